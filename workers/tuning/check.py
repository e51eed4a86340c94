"""Checks what this worker would run on: `python -m workers.tuning.check --model-path P [--json]`.

Loads the model as a worker with the same settings would, prints what was found, and measures the
speed for some seconds. `herd worker check` runs it as a child process, so that a build that crashes
on this CPU takes only the child with it.
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

from workers.engine.engine import Engine
from workers.engine.work import ModelFacts, TemplateFacts
from workers.errors import WorkerError
from workers.settings import load_settings

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
_BUILD = {"LLAMAFILE", "OPENMP", "REPACK", "ACCELERATE", "KLEIDIAI"}
"""Entries of the system information that are not features of the CPU."""


@dataclass(frozen=True, slots=True)
class Report:
    """The findings.

    Attributes:
        cpu: the processor.
        used: CPU features that the build uses.
        unused: features that the CPU has and the build does not use.
        build: what llama.cpp was built with besides.
        facts: the model and its cache.
        memory_bytes: the most memory that this process had.
        slot_tokens_per_s: decoding speed of one slot with all slots busy.
    """

    cpu: str
    used: list[str]
    unused: list[str]
    build: list[str]
    facts: ModelFacts
    memory_bytes: int
    slot_tokens_per_s: float

    @property
    def tokens_per_s(self) -> float:
        """Decoding speed of all slots together."""
        return self.slot_tokens_per_s * self.facts.slots

    def lines(self) -> list[str]:
        """Return the report for people."""
        facts = self.facts
        return [
            f"model    {facts.name}, weights {facts.weights}, {_mib(facts.size_bytes)}",
            f"template {_template_of(facts.template)}",
            f"context  {facts.context} tokens an order, {facts.cells} for {facts.slots} slots, "
            f"{_mib(facts.kv_bytes)}",
            f"cpu      {self.cpu}, {facts.threads} threads; uses {' '.join(self.used) or 'nothing'}"
            + (f"; leaves unused {' '.join(self.unused)}" if self.unused else ""),
            f"gpu      {facts.gpu or 'none'}",
            f"build    {' '.join(self.build) or 'plain'}; llama.cpp says: {facts.system}",
            f"memory   {_mib(self.memory_bytes)} at most",
            f"speed    {self.slot_tokens_per_s:.1f} tokens/s a slot with all slots busy, "
            f"{self.tokens_per_s:.0f} together",
            *(f"note     {note}" for note in facts.notes),
        ]


def check(engine: Engine, seconds: float) -> Report:
    """Measure an engine that has not been started."""
    speed = engine.calibrate(seconds)
    used, unused, build = _features(engine.facts.system)
    return Report(
        cpu=_cpu(),
        used=used,
        unused=unused,
        build=build,
        facts=engine.facts,
        memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        slot_tokens_per_s=round(speed, 2),
    )


def main(arguments: list[str] | None = None) -> int:
    """Run the check; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m workers.tuning.check", description=__doc__)
    parser.add_argument("--model-path", type=Path, required=True)
    parser.add_argument("--slots", type=int, help="HERD_SLOTS unless given")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long to measure")
    parser.add_argument("--json", action="store_true", help="one JSON document")
    chosen = parser.parse_args(arguments)
    try:
        settings = load_settings()
        changes = {"model_path": str(chosen.model_path), "slots": chosen.slots or settings.slots}
        from workers.llama.model import LlamaModel
        from workers.llama.options import llama_options
        from workers.llama.trial import tried
        from workers.llama.verdicts import Verdicts

        options = llama_options(settings.model_copy(update=changes))
        engine = Engine(LlamaModel(tried(options, Verdicts(settings.verdicts_path))))
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


def _template_of(template: TemplateFacts) -> str:
    if template.source == "none":
        return "none: HERD_CHAT_TEMPLATE gives it one"
    source = "the model's own" if template.source == "model" else template.path
    if not template.renders:
        return f"{source}, which does not show the message of a user"
    shown = f"system messages {template.system}, later ones {template.later_system}"
    thinks = f"reasoning after {template.thinking}" if template.thinking else "no reasoning"
    return f"{source}; {shown}; {thinks}"


def _features(system: str) -> tuple[list[str], list[str], list[str]]:
    """CPU features that the build uses, those that it leaves unused, and what it has besides."""
    # "CUDA : ARCHS = 900 | USE_GRAPHS = 1 | CPU : SSE3 = 1 | AVX = 1 | OPENMP = 1 |"
    others, _, cpu = system.partition("CPU :")
    on = re.findall(r"(\w+) = 1", cpu)
    used = [name for name in on if name not in _BUILD]
    build = re.findall(r"(\w+) :", others) + [name for name in on if name in _BUILD]
    try:
        found = _FLAGS.search(Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    flags = found[1].split() if found else []
    unused = [name for flag, name in _INTERESTING.items() if flag in flags and name not in used]
    return used, unused, build


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
