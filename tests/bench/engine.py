"""This engine beside llama.cpp's own server and beside plain Celery, on the same model.

    make bench-engine
    .venv/bin/python tests/bench/engine.py --rounds 1 --only w1,w2 --contenders ours,server

    ours      workers/engine/engine.py in process, as a worker has it
    server    llama-server, compiled from llama-cpp-python's own sources with the flags of this
              machine's wheel, over HTTP, streaming: the same kernels
    wheel     llama.cpp's server in process, from xllamacpp's wheel: the kernels that people get
    prefork   one Celery child per core, each with its own `Llama` and `create_completion`

`server_unified` is llama-server with --kv-unified; it is measured where --contenders names it.
All have as many threads, slots and cells of cache, get the same tokens and give the same number,
greedy, whether or not the model would end. Each runs in a process of its own, one at a time; the
order alternates. Ratios are taken within a round, medians over the rounds. Run it on an idle
machine: nothing is worth less than a comparison beside other work. The loads are described in
`tests/bench/engine_loads.py`. Ratios go to build/bench/engine.json, all figures to
build/bench/engine-rounds.json.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[0] = str(ROOT)

from tests.bench import engine_build  # noqa: E402
from tests.bench.engine_build import say  # noqa: E402
from tests.bench.engine_loads import NAMES, Request, arrivals, make_loads, to_json  # noqa: E402
from tests.bench.engine_report import ratios, table  # noqa: E402

CONTENDERS = ("ours", "server", "wheel", "prefork")
OPTIONAL = ("server_unified",)
SLOTS, CELLS = 16, 16_384
LOAD = 0.85
"""The part of the server's saturation at which the requests of W3 come."""
CHILD_S = 3600


class Bench:
    """What is measured, and what has been."""

    def __init__(self, given: argparse.Namespace, folder: Path) -> None:
        self._folder = folder
        self.contenders: list[str] = list(given.contenders)
        self.setup: dict[str, Any] = {
            "model": str(given.model_path),
            "slots": SLOTS,
            "cells": CELLS,
            "threads": given.threads,
            "cores": len(os.sched_getaffinity(0)),
            "options": json.loads(given.options),
        }
        tokenize, self.amx = open_vocabulary(given.model_path)
        made = make_loads(tokenize, ["w1", *given.only], given.fraction)
        self.warm = made["w1"]
        self.loads = {name: made[name] for name in given.only}
        self.rate: float | None = given.rate
        self.rounds: list[dict[str, Any]] = []

    def fetch_peers(self) -> None:
        """Compile and download what is not there yet."""
        if {"server", "server_unified"} & set(self.contenders):
            self.setup["server"] = str(engine_build.server_binary())
        if "wheel" in self.contenders:
            place = engine_build.wheel_folder()
            if place is None:
                self.contenders.remove("wheel")
            else:
                os.environ["PYTHONPATH"] = str(place)

    def set_rate(self) -> None:
        """Find how many requests of W3 a second are worth sending."""
        if "w3" not in self.loads:
            return
        if self.rate is None and "server" in self.contenders:
            burst = self.run("server", {"w3_burst": self.loads["w3"]})
            saturated = burst["w3_burst"]["requests_per_s"]
            self.rate = LOAD * saturated
            say(f"llama-server is saturated at {saturated:.2f} requests a second of W3")
        if self.rate is None:
            say("W3 is left out: without llama-server, its rate has to be given (--rate)")
            del self.loads["w3"]
            return
        self.loads["w3"] = arrivals(self.loads["w3"], self.rate)

    def round(self, number: int) -> None:
        """All contenders once, in turn; what comes first in one round comes last in the next."""
        found = {}
        for who in self.contenders[:: 1 if number % 2 else -1]:
            loads = self.loads
            if who == "prefork":
                loads = {name: loads[name] for name in ("w1", "w2") if name in loads}
            if not loads:
                continue
            begin_s = time.monotonic()
            found[who] = self.run(who, loads)
            speeds = ", ".join(f"{n} {f['tokens_per_s']:.1f}" for n, f in found[who].items())
            say(f"round {number}: {who}, tokens/s: {speeds} ({time.monotonic() - begin_s:.0f} s)")
        self.rounds.append(found)

    def run(self, who: str, loads: dict[str, list[Request]]) -> dict[str, Any]:
        """One contender, in a process of its own."""
        plan = self._folder / f"{who}.json"
        document = {
            "who": who,
            "setup": self.setup,
            "loads": to_json({"warm": self.warm, **loads}),
        }
        plan.write_text(json.dumps(document))
        child = Path(__file__).with_name("engine_child.py")
        log = self._folder / f"{who}.log"
        with log.open("w") as file:
            command = [sys.executable, str(child), str(plan)]
            ended = subprocess.run(command, stdout=file, stderr=file, cwd=ROOT, timeout=CHILD_S)
        if ended.returncode != 0:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-30:])
            raise RuntimeError(f"{who} ended with {ended.returncode}:\n{tail}")
        found: dict[str, Any] = json.loads(plan.with_suffix(".figures").read_text())
        return found


def open_vocabulary(model: Path) -> tuple[Any, int]:
    """The model's tokenizer, as the engine uses it for raw prompts; and whether AMX is in use."""
    import llama_cpp

    silent = llama_cpp.llama_log_callback(lambda *_: None)
    llama_cpp.llama_log_set(silent, ctypes.c_void_p(0))
    llm = llama_cpp.Llama(str(model), vocab_only=True, verbose=False)
    llm.silent = silent  # called for as long as it lives
    amx = "AMX_INT8 = 1" in llama_cpp.llama_print_system_info().decode()
    return (lambda text: llm.tokenize(text.encode(), add_bos=True, special=False)), int(amx)


def model_file() -> Path:
    """HERD_MODEL_PATH, else the demo's model."""
    if given := os.environ.get("HERD_MODEL_PATH"):
        return Path(given)
    from deploy.install.decode import model_path

    return Path(model_path())


def circumstances(bench: Bench, given: argparse.Namespace) -> dict[str, Any]:
    """What the figures depend on."""
    import llama_cpp

    cpu = re.search(r"^model name\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return {
        "cpu": cpu[1] if cpu else "",
        "cores": bench.setup["cores"],
        "threads": given.threads,
        "build": llama_cpp.llama_print_system_info().decode().strip(" |"),
        "llama_cpp_python": llama_cpp.__version__,
        "model": given.model_path.name,
        "options": bench.setup["options"],
        "rounds": len(bench.rounds),
        "fraction": given.fraction,
        "w3_requests_per_s": bench.rate,
    }


def names(text: str, known: Sequence[str]) -> list[str]:
    """A list as typed, checked."""
    found = [name.strip() for name in text.split(",") if name.strip()]
    if not found or set(found) - set(known):
        raise argparse.ArgumentTypeError(f"{text!r}: choose of {', '.join(known)}")
    return [name for name in known if name in found]


def main() -> int:
    """Run the benchmark; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    several, cores = ",".join, len(os.sched_getaffinity(0))
    add = parser.add_argument
    add("--rounds", type=int, default=3)
    add("--only", type=lambda t: names(t, NAMES), default=list(NAMES), help=several(NAMES))
    add(
        "--contenders",
        type=lambda t: names(t, CONTENDERS + OPTIONAL),
        default=list(CONTENDERS),
        help=several(CONTENDERS + OPTIONAL),
    )
    add("--fraction", type=float, default=1.0, help="the part of the requests to send (1)")
    add("--rate", type=float, help="requests a second of W3 (0.85 of the server's saturation)")
    add("--threads", type=int, default=cores, help=f"of the model ({cores})")
    add("--options", default="{}", help="of LlamaOptions, for ours: '{\"unified\": false}'")
    add("--model-path", type=Path, default=None, help="HERD_MODEL_PATH, else the demo's")
    add("--build", action="store_true", help="only get the peers ready")
    add("--json", action="store_true", help="print JSON instead of a table")
    given = parser.parse_args()
    given.model_path = given.model_path or model_file()
    target = ROOT / "build" / "bench" / "engine.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="herd-bench-") as folder:
        bench = Bench(given, Path(folder))
        try:
            bench.fetch_peers()
            if given.build:
                return 0
            bench.set_rate()
            for number in range(1, given.rounds + 1):
                bench.round(number)
            shares = bench.run("share", {}) if "ours" in bench.contenders else {}
        except (LookupError, RuntimeError, subprocess.TimeoutExpired) as error:
            say(str(error))
            return 1
        except KeyboardInterrupt:
            say("stopped")
            return 130
    document = ratios(bench.rounds) | {name: round(value, 4) for name, value in shares.items()}
    document |= {"amx": bench.amx, "circumstances": circumstances(bench, given)}
    document["rounds"] = bench.rounds
    flat = {name: value for name, value in document.items() if isinstance(value, int | float)}
    target.write_text(json.dumps(flat, indent=1) + "\n")
    text = json.dumps(document, indent=1)
    target.with_name("engine-rounds.json").write_text(text + "\n")
    sys.stdout.write((text if given.json else table(document)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
