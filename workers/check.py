"""What this worker would run on: `python -m workers.check --model-path P [--json]`.

Loads the model, prints what was found, and measures the speed for some seconds. `herd worker check`
runs it as a child process, so that a build that crashes on this CPU takes only the child with it.
Exit codes: 0 good, 2 the model cannot be used (one line says why).
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import resource
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from workers.engine import Engine, ModelFacts
from workers.errors import WorkerError

_FLAGS = re.compile(r"^(?:flags|Features)\s*:\s*(.*)$", re.MULTILINE)
_INTERESTING = {
    "avx": "AVX",
    "avx2": "AVX2",
    "fma": "FMA",
    "f16c": "F16C",
    "bmi2": "BMI2",
    "avx512f": "AVX512",
    "avx512_vnni": "AVX512_VNNI",
    "avx512_bf16": "AVX512_BF16",
    "avx_vnni": "AVX_VNNI",
    "amx_int8": "AMX_INT8",
}
"""CPU flags that llama.cpp has code for, and what its system information calls them."""


@dataclass(frozen=True, slots=True)
class Report:
    """What was found.

    Attributes:
        cpu: the processor.
        used: CPU features that the build uses.
        unused: features that the CPU has and the build does not use.
        facts: the model and its cache.
        memory_bytes: the most memory that this process had.
        slot_tokens_per_s: decoding speed of one slot with all slots busy.
    """

    cpu: str
    used: list[str]
    unused: list[str]
    facts: ModelFacts
    memory_bytes: int
    slot_tokens_per_s: float

    @property
    def tokens_per_s(self) -> float:
        """Decoding speed of all slots together."""
        return self.slot_tokens_per_s * self.facts.slots

    def lines(self) -> list[str]:
        """The report for people."""
        facts = self.facts
        return [
            f"model    {facts.name}, weights {facts.weights}, {_mib(facts.size_bytes)}",
            f"context  {facts.context} tokens an order, {facts.cells} for {facts.slots} slots, "
            f"{_mib(facts.kv_bytes)}",
            f"cpu      {self.cpu}, {facts.threads} threads; uses {' '.join(self.used) or 'nothing'}"
            + (f"; leaves unused {' '.join(self.unused)}" if self.unused else ""),
            f"gpu      {facts.gpu or 'none'}",
            f"build    {facts.system}",
            f"memory   {_mib(self.memory_bytes)} at most",
            f"speed    {self.slot_tokens_per_s:.1f} tokens/s a slot with all slots busy, "
            f"{self.tokens_per_s:.0f} together",
        ]


def check(engine: Engine, seconds: float) -> Report:
    """Measure an engine that has not been started."""
    speed = engine.calibrate(seconds)
    used, unused = _features(engine.facts.system)
    return Report(
        cpu=_cpu(),
        used=used,
        unused=unused,
        facts=engine.facts,
        memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        slot_tokens_per_s=round(speed, 2),
    )


def main(arguments: list[str] | None = None) -> int:
    """Run the check; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m workers.check", description=__doc__)
    parser.add_argument("--model-path", type=Path, required=True)
    parser.add_argument("--slots", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=10.0, help="how long to measure")
    parser.add_argument("--json", action="store_true", help="one JSON document")
    chosen = parser.parse_args(arguments)
    try:
        from workers.llama import LlamaModel, LlamaOptions

        engine = Engine(LlamaModel(LlamaOptions(path=chosen.model_path, slots=chosen.slots)))
        try:
            report = check(engine, chosen.seconds)
        finally:
            engine.stop()
    except ImportError as error:
        print(f"llama-cpp-python cannot be loaded: {error}", file=sys.stderr)  # noqa: T201
        return 2
    except WorkerError as error:
        print(error.message, file=sys.stderr)  # noqa: T201
        return 2
    if chosen.json:
        text = json.dumps(asdict(report) | {"tokens_per_s": report.tokens_per_s}, indent=2)
    else:
        text = "\n".join(report.lines())
    print(text)  # noqa: T201
    return 0


def _features(system: str) -> tuple[list[str], list[str]]:
    """CPU features that the build uses, and those that it leaves unused."""
    used = re.findall(r"(\w+) = 1", system)
    try:
        found = _FLAGS.search(Path("/proc/cpuinfo").read_text())
    except OSError:
        return used, []
    flags = found[1].split() if found else []
    return used, [name for flag, name in _INTERESTING.items() if flag in flags and name not in used]


def _cpu() -> str:
    try:
        found = re.search(
            r"^model name\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE
        )
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / 2**20:.0f} MiB"


if __name__ == "__main__":
    sys.exit(main())
