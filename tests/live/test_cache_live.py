"""Cells shared, copied and freed; and how much a row's logits depend on its company."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.live.live_support import Heard, run, work
from workers.engine.engine import Engine
from workers.engine.sequences import BatchRow, Seq

pytestmark = pytest.mark.live

TOLERANCE = 1.5
"""Logits of the same prefix in different batches differ by less than this (0.9 was seen: the
activations are rounded to 8 bits), while they spread over about 40."""

NOBODY = Seq("", [1], 1, 0, 0)
LISTS = ("one two three four", "red green blue white", "north east south west", "cat dog cow hen")
PROMPTS = [
    f"{who} {what} {how}"
    for who in ("The llama", "A shepherd")
    for what in ("went to the market", "was asked a question")
    for how in ("and", "because", "at night, when", "with a")
] + [
    # a list again and again: what comes next is clear
    ", ".join((words.split() * 4)[: 12 + more]) + ","
    for words in LISTS
    for more in range(4)
]


@pytest.fixture(params=["unified", "separate"])
def model(model_path: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    from workers.llama.model import LlamaModel
    from workers.llama.options import LlamaOptions

    model = LlamaModel(
        LlamaOptions(
            path=model_path,
            slots=36,
            prefixes=0,
            context=512,
            cells=36 * 512,
            batch_tokens=1024,
            unified=request.param == "unified",
        )
    )
    yield model
    model.close()


def logits(model: Any, rows: int) -> Any:
    from workers.llama.model import lib

    pointer = lib.llama_get_logits(model._ctx)
    return np.ctypeslib.as_array(pointer, (rows, model.facts.vocab)).copy()


def centred(row: Any) -> Any:
    """Without what all have in common, which no choice depends on."""
    return row - row.mean()


def test_copied_cells_give_the_same_logits_bit_for_bit(model: Any) -> None:
    prefix = model.tokenize(
        "All about llamas, from their wool to their manners. " * 20, template=False
    )
    tail = model.tokenize("And what do llamas eat?", template=False)
    length = len(prefix)
    found = []
    for slot in (0, 2):
        # the same cells in the same places: where a cell lies decides in which order sums are made
        assert model.decode([BatchRow(0, 0, prefix, False, NOBODY)])
        if slot:
            model.copy(0, slot, length)
        assert model.decode([BatchRow(slot, length, tail, True, NOBODY)])
        found.append(logits(model, 1))
        for used in {0, slot}:
            model.keep(used, 0)
    computed, copied = found
    assert np.array_equal(computed, copied)


def test_cells_copied_between_separate_streams_are_those_computed(model_path: Path) -> None:
    from workers.llama.model import LlamaModel
    from workers.llama.options import LlamaOptions

    model = LlamaModel(LlamaOptions(path=model_path, slots=3, unified=False, context=512))
    assert model.facts.can_share
    prefix = model.tokenize("All about llamas, from wool to manners. " * 12, template=False)
    tail = model.tokenize("And what do llamas eat?", template=False)
    length = len(prefix)
    assert model.decode([BatchRow(0, 0, prefix, False, NOBODY)])
    model.copy(0, 1, length)
    model.copy(1, 2, length - 20)  # a copy of a copy, and of a part of it, in the same step
    rows = [
        BatchRow(1, length, tail, True, NOBODY),
        BatchRow(2, length - 20, prefix[-20:], False, NOBODY),
    ]
    assert model.decode(rows)
    copied = logits(model, 1)
    assert model.decode([BatchRow(2, length, tail, True, NOBODY)])
    partly = logits(model, 1)
    assert model.decode([BatchRow(0, length, tail, True, NOBODY)])
    computed = logits(model, 1)
    model.close()
    assert np.array_equal(copied, computed)
    assert np.abs(centred(partly[0]) - centred(computed[0])).max() < TOLERANCE


def test_a_batched_rows_logits_agree_with_those_of_the_prompt_alone(model: Any) -> None:
    assert len(PROMPTS) == 32
    prompts = [model.tokenize(prompt, template=False) for prompt in PROMPTS]
    assert model.decode(
        [BatchRow(slot, 0, tokens, True, NOBODY) for slot, tokens in enumerate(prompts)]
    )
    together = logits(model, len(prompts))
    firsts = model.sample([None] * len(prompts))
    clear = 0
    for slot, tokens in enumerate(prompts):
        model.keep(slot, 0)
        assert model.decode([BatchRow(slot, 0, tokens, True, NOBODY)])
        alone = logits(model, 1)[0]
        model.keep(slot, 0)
        assert np.abs(centred(together[slot]) - centred(alone)).max() < TOLERANCE
        second, first = np.sort(alone)[-2:]
        if first - second > TOLERANCE:
            clear += 1
            assert firsts[slot] == alone.argmax()
    assert clear >= 8, "enough of them to mean something"


def test_a_shared_system_prompt_is_computed_once(model_path: Path) -> None:
    from workers.llama.model import LlamaModel
    from workers.llama.options import LlamaOptions

    options = LlamaOptions(path=model_path, slots=8, cells=8192, unified=True)
    engine = Engine(LlamaModel(options))
    system = "You know all about llamas and alpacas and tell it to everybody who asks. " * 12
    works = [work(f"{system} Question {i}:", 6, rank=i % 3) for i in range(24)]
    length = len(engine._model.prepare(works[0]).tokens)
    heard = run(engine, *works)
    assert all(one.end.generated for one in heard)
    assert engine.metrics.prefilled < 2 * length + 24 * 20
    assert engine.metrics.prefilled + engine.metrics.reused == sum(
        one.prompt_tokens for one in heard
    )
    (prefix,) = engine._scheduler.prefixes
    assert length - 16 < prefix.computed <= length
    later = run(engine, *(work(f"Nothing of that, {i}", 2) for i in range(40)))
    assert all(one.end.generated for one in later)
    assert system not in later[0].end.text
    assert prefix not in engine._scheduler.prefixes, "nobody wanted it any more"
    assert engine.stop()


def test_what_ended_in_a_part_of_its_own_serves_the_next(model_path: Path) -> None:
    from workers.llama.model import LlamaModel
    from workers.llama.options import LlamaOptions

    engine = Engine(LlamaModel(LlamaOptions(path=model_path, slots=4, cells=4096)))
    system = "You know all about llamas and alpacas and tell it to everybody who asks. " * 12
    heard = []
    for wave in range(3):
        heard += run(engine, *(work(f"{system} Question {wave}{i}:", 6) for i in range(4)))
    length = heard[0].prompt_tokens
    assert all(one.end.generated for one in heard)
    assert engine.metrics.prefilled < length + 12 * 20, "once, and a few tokens for each"
    assert engine.metrics.prefilled + engine.metrics.reused == sum(
        one.prompt_tokens for one in heard
    )
    assert engine.stop()


def test_a_thousand_random_submissions_and_stops_leave_no_cell_in_use(engine: Engine) -> None:
    from workers.llama.model import lib

    chance = random.Random(4)
    model: Any = engine._model
    heard: list[Heard] = []
    keys: list[str] = []
    for i in range(1000):
        head = chance.choice(["", "A common beginning that several of them share, word for word. "])
        one = work(
            f"{head}{chance.random():.3f}",
            chance.randint(1, 3),
            rank=chance.randint(0, 3),
            stop=("5",) if i % 7 == 0 else (),
        )
        heard.append(Heard())
        keys.append(one.key)
        engine.submit(one, heard[-1])
        if chance.random() < 0.8:
            engine.cancel(chance.choice(keys[-20:]))
        if chance.random() < 0.15:
            engine.step()
    while engine.step():
        pass
    assert all(len(one.ends) == 1 for one in heard)
    assert {one.end.reason for one in heard} == {"stop", "length", "cancelled"}
    assert engine.idle
    prefixes = {prefix.slot: prefix.computed for prefix in engine._scheduler.prefixes}
    for slot in range(model._sequences):
        held = lib.llama_memory_seq_pos_max(model._memory, slot) + 1
        assert held == model._past[slot] == prefixes.get(slot, 0)
    assert engine._scheduler.reserved == (0 if model.facts.separate else sum(prefixes.values()))
