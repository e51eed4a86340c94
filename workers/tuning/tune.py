"""Finds the fastest settings here.

`python -m workers.tuning.tune --model-path P [--seconds N] [--json]`

Loads the model again and again with other settings, puts a mixed load on the engine for some
seconds each, and prints a table and what to put into herd.env. `herd worker tune` runs it as a
child process. It starts from the settings of the environment and changes one thing at a time:
threads, layout of the cache and flash attention, slots, prompt tokens a step. What is not clearly
better stays as it is. Conversions of the weights are measured last and never chosen, because
they make another model.

Exit codes: 0 good, 2 the model cannot be used (one line says why), 130 stopped by Ctrl-C (what was
measured until then is shown).

    python -m workers.tuning.tune --model-path model.gguf --seconds 10
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from workers.engine.engine import Engine
from workers.engine.work import Completion, GenerationRequest
from workers.errors import WorkerError
from workers.llama.options import LlamaOptions, cores, llama_options
from workers.settings import WorkerSettings, load_settings
from workers.tuning.search import STAGES, Changes, Search, Trial, advice, report, stages
from workers.wire import Sampling

WARM = 2.0
"""The warm-up limit, as a multiple of the seconds measured, until all slots have generated."""
LOAD_S = 2.0
"""The time that loading a small model takes, for the estimate given beforehand."""


# The load


class _Order:
    """Hears of one order of the load."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._submitted_s = now()
        self._last_s = 0.0
        self.first_s: float | None = None
        self.gaps_s: list[float] = []
        self.end: Completion | None = None

    def on_start(self, _prompt_tokens: int) -> None:
        """Note that it has a slot."""

    def on_text(self, _text: str, _generated: int, _reasoning: int) -> None:
        now_s = self._now()
        if self.first_s is None:
            self.first_s = now_s - self._submitted_s
        else:
            self.gaps_s.append(now_s - self._last_s)
        self._last_s = now_s

    def on_end(self, end: Completion) -> None:
        self.end = end


_TALE = "the llama went over the hill to sell its wool at the market where people from far away buy"


def _prompts() -> Iterator[str]:
    """Yield two of three share a long beginning, as chats with one system prompt do."""
    chance = random.Random(4)  # noqa: S311 - a load, the same each time
    words = _TALE.split()

    def some(count: int) -> str:
        return " ".join(chance.choice(words) for _ in range(count))

    system = some(96)
    while True:
        yield f"{system} {some(20)}"
        yield some(chance.randint(16, 80))
        yield f"{system} {some(10)}"


def put_load(
    engine: Engine,
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
    *,
    stopped: Callable[[], bool] = lambda: False,
) -> tuple[float, float, float]:
    """Keep all slots busy for some seconds, once they all run (or that has taken too long).

    Returns:
        tokens a second, and 95 of 100 times to the first text and between two, in milliseconds.

    Raises:
        WorkerError: an order failed, or the model died.
        KeyboardInterrupt: `stopped` said so, between two steps.
    """
    chance = random.Random(4)  # noqa: S311 - a load, the same each time
    prompts = _prompts()
    orders: list[_Order] = []
    held: list[_Order] = []

    def submit(tokens: int) -> None:
        order = _Order(clock)
        key = f"t{len(orders)}:1"
        sampling = Sampling(temperature=0)
        work = GenerationRequest(key, next(prompts), None, True, tokens, (), sampling, 0, 3600.0)
        orders.append(order)
        held.append(order)
        engine.submit(work, order)

    for slot in range(engine.facts.slots):
        submit(8 + 48 * slot // engine.facts.slots)  # so that they don't all end at once
    start_s = clock()
    begin_s: float | None = None
    before = 0
    while True:
        engine.step()
        now_s = clock()
        if stopped():
            raise KeyboardInterrupt
        if engine.broken is not None:
            raise engine.broken
        all_run = all(order.first_s is not None or order.end for order in held)
        if begin_s is None and (all_run or now_s - start_s > WARM * seconds):
            begin_s, before = now_s, engine.metrics.generated
        if begin_s is not None and now_s - begin_s >= seconds:
            break
        for order in [order for order in held if order.end is not None]:
            if order.end is not None and order.end.error is not None:
                raise order.end.error
            held.remove(order)
            submit(chance.randint(16, 64))
    rate = (engine.metrics.generated - before) / (now_s - begin_s)
    firsts = [order.first_s for order in orders if order.first_s is not None]
    gaps = [gap for order in orders for gap in order.gaps_s]
    return rate, 1e3 * _most(firsts), 1e3 * _most(gaps)


def _most(values: Sequence[float]) -> float:
    """Return the 95th percentile; 0 of none."""
    return sorted(values)[(len(values) - 1) * 95 // 100] if values else 0.0


class Bench:
    """Measures changes of settings on a model file."""

    def __init__(
        self, settings: WorkerSettings, seconds: float, stopped: Callable[[], bool]
    ) -> None:
        self._settings = settings
        self._seconds = seconds
        self._stopped = stopped
        self._sound: LlamaOptions | None = None

    def measure(self, changes: Changes) -> Trial:
        """Load the model so, put the load on it, and free it."""
        from workers.llama.model import LlamaModel
        from workers.llama.trial import tried
        from workers.llama.verdicts import Verdicts

        options = llama_options(self._settings.model_copy(update=dict(changes)))
        try:
            # once is enough for the file, and to find how it is computed right
            if self._sound is None:
                options = tried(options, Verdicts(self._settings.verdicts_path))
            else:
                alone = self._sound.one_a_batch
                options = replace(options, check_tensors=False, one_a_batch=alone)
            engine = Engine(LlamaModel(options))
        except WorkerError as error:
            return Trial(changes, error=error.message)
        self._sound = self._sound or options
        try:
            return Trial(changes, *put_load(engine, self._seconds, stopped=self._stopped))
        except WorkerError as error:
            return Trial(changes, error=error.message)
        finally:
            engine.stop()


class Interrupt:
    """Notes Ctrl-C while it is entered, and raises nothing: whoever works asks whether it came.

    An exception that is raised while llama.cpp calls back, as it does when a model loads, is lost
    and printed with a traceback.
    """

    def __init__(self) -> None:
        self._came = False

    def came(self) -> bool:
        """Return whether Ctrl-C was pressed."""
        return self._came

    def __enter__(self) -> None:
        self._before = signal.signal(signal.SIGINT, self._note)

    def _note(self, *_: object) -> None:
        self._came = True

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._before)


# What people see


def row(trial: Trial, settings: WorkerSettings, cores: int) -> str:
    """Return a trial as a line of the table."""
    of = settings.model_copy(update=dict(trial.changes))
    setup = (
        f"{of.slots:5}  {of.kv_layout:8}  {of.flash_attention:5}  {of.step_tokens:4}  "
        f"{of.threads or cores:7}  {of.requantize or 'file':7}"
    )
    if trial.error:
        return f"{setup}  {trial.error[:60]}"
    return f"{setup}  {trial.tokens_per_s:8.1f}  {trial.first_ms:8.0f}  {trial.gap_ms:8.0f}"


HEAD = (
    f"{'slots':5}  {'cache':8}  {'flash':5}  {'step':4}  {'threads':7}  {'weights':7}  "
    f"{'tokens/s':>8}  {'first ms':>8}  {'gap ms':>8}"
)


def main(arguments: list[str] | None = None) -> int:
    """Run the search; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m workers.tuning.tune",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model-path", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=5.0, help="of load for each setting (5)")
    parser.add_argument(
        "--only", type=_stages, default=STAGES, help=f"some of {','.join(STAGES)}, in that order"
    )
    parser.add_argument("--json", action="store_true", help="one JSON document")
    chosen = parser.parse_args(arguments)
    try:
        settings = load_settings().model_copy(update={"model_path": str(chosen.model_path)})
        from workers.llama.model import gpu_name
    except ImportError as error:
        return _refuse(f"llama-cpp-python cannot be loaded: {error}")
    except WorkerError as error:
        return _refuse(error.message)
    gpu = gpu_name() is not None and settings.gpu_layers != 0
    wanted = stages(settings, cores(), gpu=gpu)
    wanted = {name: changes for name, changes in wanted.items() if name in chosen.only}
    conversions = wanted.pop("weights", [])
    interrupt = Interrupt()
    measure = Bench(settings, chosen.seconds, interrupt.came).measure
    search = Search(list(wanted.values()), conversions, measure)
    with interrupt:
        code = _run(search, settings, cores(), chosen.seconds)
    if not search.trials or search.best.error:
        return code or _refuse(search.best.error)
    if chosen.json:
        text = json.dumps(report(search), indent=2)
    else:
        text = "\n".join(["", *advice(search, settings)])
    print(text)  # noqa: T201
    return code


def _run(search: Search, settings: WorkerSettings, cores: int, seconds: float) -> int:
    """Measure, with the table growing on standard error; Ctrl-C ends it where it is."""
    minutes = search.planned * (2 * seconds + LOAD_S) / 60
    _say(
        f"{search.planned} measurements of {seconds:g} s, and what each needs to get going: about "
        f"{max(1, round(minutes))} min for a small model. Nothing else should run here meanwhile. "
        "Ctrl-C ends it, and shows what was found."
    )
    _say("")
    _say(HEAD)
    begin_s = time.monotonic()
    try:
        for number, trial in enumerate(search.run(), 1):
            each_s = (time.monotonic() - begin_s) / number
            left_s = each_s * (search.planned - number)
            _say(f"{row(trial, settings, cores)}   {number}/{search.planned}, {left_s:.0f} s left")
    except KeyboardInterrupt:
        _say("stopped")
        return 130
    return 0


def _stages(text: str) -> list[str]:
    named = text.split(",")
    if unknown := set(named) - set(STAGES):
        raise argparse.ArgumentTypeError(f"no stage {', '.join(sorted(unknown))}")
    return named


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def _refuse(sentence: str) -> int:
    _say(sentence)
    return 2


if __name__ == "__main__":
    sys.exit(main())
