"""What the live tests share."""

from __future__ import annotations

import itertools
import threading

from workers.engine.engine import Engine
from workers.engine.work import Completion, GenerationRequest
from workers.wire import Sampling

GREEDY = Sampling(temperature=0)
_keys = itertools.count()


class Heard:
    def __init__(self) -> None:
        self.prompt_tokens = 0
        self.pieces: list[str] = []
        self.tokens: list[int] = []
        self.done = threading.Event()
        self.ends: list[Completion] = []

    def on_start(self, prompt_tokens: int) -> None:
        self.prompt_tokens = prompt_tokens

    def on_text(self, text: str, _generated: int, _reasoning: int) -> None:
        self.pieces.append(text)

    def on_end(self, end: Completion) -> None:
        self.ends.append(end)
        self.done.set()

    @property
    def end(self) -> Completion:
        (end,) = self.ends
        assert end.text == "".join(self.pieces)
        return end


def work(prompt: str | None, tokens: int = 16, **changes: object) -> GenerationRequest:
    values: dict[str, object] = {
        "key": f"o{next(_keys)}:1",
        "prompt": prompt,
        "messages": None,
        "raw": True,
        "tokens": tokens,
        "stop": (),
        "sampling": GREEDY,
        "rank": 0,
        "run_limit_s": 600.0,
    }
    return GenerationRequest(**(values | changes))  # type: ignore[arg-type]


def run(engine: Engine, *works: GenerationRequest) -> list[Heard]:
    heard = [Heard() for _ in works]
    for one, listener in zip(works, heard, strict=True):
        engine.submit(one, listener)
    while engine.step():
        pass
    assert engine.idle
    return heard
