"""Whoever else is in the batch and the cache, each order gets the logits that it gets alone.

On small models of every kind, with caches of 32 bits and no flash attention: then what is computed
in another order differs by a millionth of the logits' spread, or, where attention is sharp, by less
than a thousandth. What came of shared windows and long rope factors was off by two and more.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from tests.support.small_models import NO_GENERATORS, SHAPES
from workers.engine.engine import Engine
from workers.engine.sequences import BatchRow, Seq
from workers.engine.work import Completion, GenerationRequest, Prepared
from workers.llama.model import LlamaModel
from workers.llama.options import LlamaOptions
from workers.wire import Sampling

LONG_ROPE = ["phi3", "phimoe", "minicpm3"]
GENERATORS = [
    *("llama", "qwen2", "qwen3", "qwen3moe", "qwen2vl", "deepseek2", "olmo2", "granite", "dots1"),
    *("stablelm", "starcoder2", "gptneox", "smollm3", "glm4", "ernie4_5", "bloom", "mpt"),
    *("hunyuan-dense", "hunyuan-moe", *LONG_ROPE),
    *("gemma2", "gemma3", "gemma3n", "gpt-oss", "cohere2", "exaone4"),
    *("mamba", "mamba2", "rwkv6", "rwkv7"),
    *("lfm2", "lfm2moe", "granitehybrid", "jamba", "qwen3next", "falcon-h1", "nemotron_h"),
]
TOLERANCE = 1e-2
"""Of the logits' standard deviation. Seen between right ones: 8e-4 at most, and 1e-5 mostly."""
ORDERS = 70
NOBODY = Seq("", [1], 1, 0, 0)


class Watched(LlamaModel):
    """Takes prompts as numbers of tokens, and keeps the logits from which each token was chosen."""

    def __init__(self, options: LlamaOptions) -> None:
        super().__init__(options)
        self.seen: dict[tuple[str, int], Any] = {}
        self.given: dict[str, list[int]] = {}
        self._rows: list[BatchRow] = []

    def prepare(self, work: GenerationRequest) -> Prepared:
        return Prepared([int(token) for token in (work.prompt or "").split()], None)

    def is_end(self, _token: int) -> bool:
        return False

    def decode(self, rows: Sequence[BatchRow]) -> bool:
        self._rows = [row for row in rows if row.output]
        return super().decode(rows)

    def sample(self, samplers: Any) -> Any:
        for row, logits in zip(self._rows, self.logits(len(self._rows)).copy(), strict=True):
            self.seen[row.seq.key, len(row.seq.tokens)] = logits
            self.given[row.seq.key] = row.seq.tokens
        return super().sample(samplers)


class Ended:
    """Hears only of the end."""

    def __init__(self) -> None:
        self.end: Completion | None = None

    def on_start(self, prompt_tokens: int) -> None: ...

    def on_text(self, text: str, generated: int, reasoning: int) -> None: ...

    def on_end(self, end: Completion) -> None:
        self.end = end


def opened(path: Any, **options: Any) -> Watched:
    given = {"slots": 8, "cells": 4096, "threads": 1, "kv_type": "f32", "flash_attention": "off"}
    return Watched(LlamaOptions(path=path, **given | options))


def worst(model: Watched, alone: Watched) -> float:
    """The largest difference to what each order gets alone, in standard deviations."""
    found = 0.0
    for key, tokens in model.given.items():
        done = 0
        for length in sorted(length for one, length in model.seen if one == key):
            assert alone.decode([BatchRow(0, done, tokens[done:length], True, NOBODY)])
            done = length
            right = alone.logits(1)[0]
            off = np.abs(model.seen[key, length] - right).max() / right.std()
            found = max(found, float(off))
        alone.keep(0, 0)
    return found


class Load:
    """Random orders: some begin alike, some continue others, some are cancelled.

    They come while others run, so that slots are used again.
    """

    def __init__(self, model: Watched, seed: int) -> None:
        self.model = model
        self.chance = random.Random(seed)
        self.engine = Engine(model)
        self.beginnings = [self._text(length) for length in (24, 70, 130)]
        self.keys: list[str] = []

    def _text(self, length: int) -> list[int]:
        return [self.chance.randrange(3, 259) for _ in range(length)]

    def _prompt(self) -> list[int]:
        ended = [tokens for key, tokens in self.model.given.items() if len(tokens) < 250]
        kind = self.chance.random()
        if kind < 0.3 and ended:  # the next turn
            return [*self.chance.choice(ended), *self._text(self.chance.randint(1, 12))]
        if kind < 0.8:
            return [*self.chance.choice(self.beginnings), *self._text(self.chance.randint(1, 40))]
        return self._text(self.chance.randint(1, 150))

    def submit(self) -> None:
        key = f"o{len(self.keys)}"
        self.keys.append(key)
        work = GenerationRequest(
            key=key,
            prompt=" ".join(map(str, self._prompt())),
            messages=None,
            raw=True,
            tokens=self.chance.randint(1, 12),
            stop=(),
            sampling=Sampling(temperature=0),
            rank=self.chance.randint(0, 3),
            run_limit_s=3600.0,
        )
        self.engine.submit(work, Ended())

    def run(self, orders: int) -> None:
        for _ in range(orders):
            self.submit()
            if self.chance.random() < 0.15:
                self.engine.cancel(self.chance.choice(self.keys[-8:]))
            for _ in range(self.chance.choice((0, 0, 1, 4))):
                self.engine.step()
        while self.engine.step():
            pass
        assert self.engine.broken is None
        assert self.engine.idle


def test_all_that_generate_are_tried():
    assert set(GENERATORS) == set(SHAPES) - NO_GENERATORS


CASES = [
    *((name, {"unified": unified}) for name in GENERATORS for unified in (False, True)),
    # nothing is shared, and a window keeps no more than itself
    *(("gemma3", {"unified": unified, "share": False}) for unified in (False, True)),
    # contexts above what they were trained for at first, for which there are other rope factors
    *(
        (name, {"unified": unified, "context": 1024})
        for name in LONG_ROPE
        for unified in (False, True)
    ),
    *((name, {"one_a_batch": True}) for name in ("llama", "mamba2")),
]


@pytest.mark.parametrize(("name", "options"), CASES)
def test_a_random_load_answers_as_each_order_alone(small_model, name, options):
    path = small_model(name)
    model = opened(path, **options)
    load = Load(model, seed=7)
    load.run(ORDERS)
    assert len(model.given) > ORDERS / 2
    assert model.facts.can_share == (load.engine.metrics.reused > 0)
    # as many tokens as an order of theirs may have: rope factors depend on it
    alone = opened(path, slots=1, cells=512, context=options.get("context"))
    assert worst(model, alone) < TOLERANCE
    load.engine.stop()
    alone.close()


@pytest.mark.parametrize("name", LONG_ROPE)
def test_other_rope_factors_are_other_logits(small_model, name):
    """So that the loads above would show the wrong ones."""
    path = small_model(name)
    found = []
    for context in (512, 1024):
        model = opened(path, slots=1, cells=1024, context=context)
        assert model.decode([BatchRow(0, 0, list(range(3, 40)), True, NOBODY)])
        found.append(model.logits(1)[0].copy())
        model.close()
    assert np.abs(found[0] - found[1]).max() / found[0].std() > 100 * TOLERANCE
