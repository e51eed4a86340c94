"""The deterministic model keeps its promises, and catches an engine that does not."""

from __future__ import annotations

import pytest

from workers.engine.sequences import BatchRow, Seq
from workers.engine.stub import StubModel
from workers.engine.work import GenerationRequest
from workers.wire import ChatMessage, Sampling


def work(
    prompt: str | None, *, raw: bool = True, messages: tuple[str, ...] | None = None
) -> GenerationRequest:
    turns = (
        None if messages is None else tuple(ChatMessage(role="user", content=m) for m in messages)
    )
    return GenerationRequest("o:1", prompt, turns, raw, 4, (), Sampling(), 0, 60.0)


def row(slot: int, start: int, tokens: list[int]) -> BatchRow:
    return BatchRow(slot, start, tokens, False, Seq("", [1], 1, 0, 0))


@pytest.mark.parametrize(
    ("prompt", "tokens"),
    [
        ("one", 1),
        ("one two", 2),
        ("  one", 2),
        ("abcdefghij", 2),
        ("水の惑星", 1),
        (" ", 1),
        ("don't stop", 2),
    ],
)
def test_counts_tokens_by_its_rule(prompt: str, tokens: int) -> None:
    model = StubModel()
    assert len(model.prepare(work(prompt)).tokens) == tokens
    assert len(model.prepare(work(prompt, raw=False)).tokens) == tokens + 2
    assert len(model.prepare(work(None, messages=(prompt, prompt))).tokens) == 2 * (tokens + 2)


def test_time_passes_only_as_it_was_told() -> None:
    slept: list[float] = []
    model = StubModel(step_s=0.5, prompt_token_s=0.1, sleep=slept.append)
    model.decode([row(0, 0, [1, 2, 3]), row(1, 0, [1])])
    model.decode([row(0, 3, [1])])
    assert slept == pytest.approx([0.8, 0.5])
    free = StubModel(sleep=slept.append)
    free.decode([row(0, 0, [1])])
    assert len(slept) == 2


def test_refuses_what_llama_cpp_would_die_of() -> None:
    model = StubModel(slots=2, prefixes=1, context=32, cells=32, batch_tokens=16)
    model.decode([row(0, 0, [1] * 10)])
    for bad in ([], [row(3, 0, [1])], [row(0, 9, [1])], [row(1, 0, [1] * 17)], [row(1, 0, [])]):
        with pytest.raises(AssertionError):
            model.decode(bad)
    model.copy(0, 1, 10)
    with pytest.raises(AssertionError):
        model.copy(0, 1, 10)
    with pytest.raises(AssertionError):
        model.sample([None])
    assert not model.decode([row(0, 10, [1] * 13)]), "no room: nothing changed"
    assert model.cells_in_use == 20
    model.keep(1, 0)
    assert model.decode([row(0, 10, [1] * 13)])
    model.close()
    with pytest.raises(AssertionError):
        model.decode([row(0, 23, [1])])
