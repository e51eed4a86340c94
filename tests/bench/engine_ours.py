"""This engine as a contender of `tests/bench/engine.py`, and Python's share of its steps."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.bench.engine_loads import Request, Timing
from workers.engine.engine import Engine
from workers.engine.stub import StubModel
from workers.engine.work import Completion, GenerationRequest
from workers.wire import Sampling

GREEDY = Sampling(temperature=0)
SHARE_SLOTS = (16, 64)
_keys = itertools.count()


class Heard:
    """Notes when text came, and the end."""

    def __init__(self) -> None:
        self.first_s = 0.0
        self.end_s = 0.0
        self.end: Completion | None = None
        self.done = threading.Event()

    def on_start(self, _prompt_tokens: int) -> None:
        pass

    def on_text(self, _text: str, _generated: int, _reasoning: int) -> None:
        self.first_s = self.first_s or time.perf_counter()

    def on_end(self, end: Completion) -> None:
        self.end_s = time.perf_counter()
        self.end = end
        self.done.set()


class Clock:
    """The seconds inside one C function."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call
        self.seconds = 0.0

    def __call__(self, *arguments: Any) -> Any:
        begin_s = time.perf_counter()
        try:
            return self._call(*arguments)
        finally:
            self.seconds += time.perf_counter() - begin_s


def load(setup: dict[str, Any], slots: int) -> tuple[Engine, Clock]:
    """The engine on the real model, which never ends by itself, and the time in llama_decode."""
    from workers.llama import model as llama
    from workers.llama.options import LlamaOptions

    class Endless(llama.LlamaModel):
        def is_end(self, _token: int) -> bool:
            return False

    if not isinstance(llama.lib.llama_decode, Clock):
        llama.lib.llama_decode = Clock(llama.lib.llama_decode)
    options = LlamaOptions(
        path=Path(setup["model"]),
        slots=slots,
        cells=setup["cells"],
        threads=setup["threads"],
        **setup.get("options", {}),
    )
    return Engine(Endless(options)), llama.lib.llama_decode


def as_work(request: Request) -> GenerationRequest:
    """A request as the agent hands it to the engine."""
    key = f"o{next(_keys)}:1"
    return GenerationRequest(key, request.text, None, True, request.new, (), GREEDY, 0, 3600.0)


class Ours:
    """The engine with its thread, in this process."""

    def __init__(self, setup: dict[str, Any]) -> None:
        self.engine, self._clock = load(setup, setup["slots"])
        self._before: dict[str, float] = {}
        self.engine.start()

    def run(self, request: Request) -> Timing:
        heard = Heard()
        sent_s = time.perf_counter()
        self.engine.submit(as_work(request), heard)
        heard.done.wait()
        end = heard.end
        assert end is not None
        assert end.error is None, end.error
        assert (end.prompt_tokens, end.generated) == (len(request.tokens), request.new), end
        return Timing(sent_s, heard.first_s or heard.end_s, heard.end_s, request.new)

    def profile(self) -> dict[str, float]:
        """Where the time since the last call went, and what was shared."""
        now = {**asdict(self.engine.metrics), "decode_s": self._clock.seconds}
        gone = {name: value - self._before.get(name, 0) for name, value in now.items()}
        self._before = now
        busy_s = gone["busy_s"] or 1e-9
        return {
            "decode_share": gone["decode_s"] / busy_s,
            "sampling_share": (gone["model_s"] - gone["decode_s"]) / busy_s,
            "python_share": (busy_s - gone["model_s"]) / busy_s,
            "step_ms": 1e3 * busy_s / max(1, gone["steps"]),
            "rows_per_step": gone["rows"] / max(1, gone["steps"]),
            **{name: gone[name] for name in ("prefilled", "reused", "preempted")},
        }

    def close(self) -> None:
        self.engine.stop()


def shares(setup: dict[str, Any], requests: Sequence[Request]) -> dict[str, float]:
    """Python's share of a step on the real model, and its milliseconds on the deterministic one.

    The share is all but `llama_decode`: choosing the tokens is in it.
    """
    found = {}
    for slots in SHARE_SLOTS:
        engine, clock = load(setup, slots)
        for request in itertools.islice(itertools.cycle(requests), slots):
            engine.submit(as_work(request), Heard())
        while engine.metrics.generated < slots:  # past the prompts
            engine.step()
        busy_s, decode_s = engine.metrics.busy_s, clock.seconds
        while engine.step():
            pass
        decode_s = clock.seconds - decode_s
        found[f"python_share_{slots}"] = 1 - decode_s / (engine.metrics.busy_s - busy_s)
        engine.stop()
        found[f"python_step_ms_{slots}"] = stub_step_ms(slots)
    return found


def stub_step_ms(slots: int, tokens: int = 1000) -> float:
    """Milliseconds of a step in which the model costs next to nothing."""
    engine = Engine(StubModel(slots=slots, context=2048))
    for number in range(slots):
        engine.submit(as_work(Request(f"Prompt {number}", [], tokens)), Heard())
    while engine.step():
        pass
    engine.stop()
    return 1e3 * engine.metrics.busy_s / engine.metrics.steps
