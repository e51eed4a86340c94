"""The table of charges: what counts of an outcome, and what it costs. No database."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from herder.domain.charging import charge_of, delivered_part
from herder.domain.order import Order, State
from herder.domain.pricing import Rates
from workers.transport.delivery import Reach
from workers.wire import Outcome

TEXT = "one two three four five"


def order(**changes: Any) -> Order:
    """A running order of three words and ten tokens that offers twice what it needs: 28 for 14."""
    fields = dict.fromkeys(Order.__dataclass_fields__)
    given: dict[str, Any] = {
        "id": "o1",
        "state": State.RUNNING,
        "fee": 28,
        "needed": 14,
        "rates": Rates(1, 1),
        "charge_unused": False,
        "words": 3,
        "tokens": 10,
        "attempt": 1,
    }
    return replace(Order(**{**fields, **given}), **changes)


def outcome(reason: str = "cancelled", generated: int = 5, text: str = TEXT) -> Outcome:
    return Outcome(
        order="o1",
        attempt=1,
        nonce="n",
        result="completed",
        finish_reason=reason,
        text=text,
        generated=generated,
    )


@pytest.mark.parametrize("reason", ["stop", "length", "deadline", "cancelled"])
def test_what_nobody_cancelled_counts_whole_whoever_read_it(reason):
    said = outcome(reason)
    assert delivered_part(order(), said, Reach()) == said
    assert delivered_part(order(call_off="deadline"), said, Reach()) == said


@pytest.mark.parametrize("reason", ["stop", "length", "deadline", "cancelled"])
@pytest.mark.parametrize(
    ("reach", "text", "tokens"),
    [
        (Reach(), "", 0),
        (Reach(8, 2), "one two ", 2),
        (Reach(8, 0), "one two ", 0),
        (Reach(8, 9), "one two ", 5),
    ],
)
def test_what_was_cancelled_counts_as_far_as_readers_were_given_it(reason, reach, text, tokens):
    part = delivered_part(order(call_off="cancelled"), outcome(reason), reach)
    assert (part.finish_reason, part.text, part.generated) == ("cancelled", text, tokens)


@pytest.mark.parametrize("reason", ["stop", "length", "deadline"])
def test_what_was_cancelled_when_all_had_been_read_ends_as_it_would_have(reason):
    said = outcome(reason)
    assert delivered_part(order(call_off="cancelled"), said, Reach(len(TEXT), 5)) == said


@pytest.mark.parametrize(
    ("reach", "text", "reasoning", "of_reasoning", "tokens"),
    [
        (Reach(4, 1), "one ", 4, 1, 1),
        (Reach(8, 2), "one two ", 8, 2, 2),
        (Reach(14, 4), "one two three ", 8, 2, 4),
    ],
)
def test_of_what_the_model_thought_that_counts_which_was_read(
    reach, text, reasoning, of_reasoning, tokens
):
    said = outcome().model_copy(update={"reasoning": 8, "reasoning_tokens": 2})
    part = delivered_part(order(call_off="cancelled"), said, reach)
    assert (part.text, part.reasoning) == (text, reasoning)
    assert (part.reasoning_tokens, part.generated) == (of_reasoning, tokens)


def test_an_empty_answer_was_read_by_nobody():
    part = delivered_part(order(call_off="cancelled"), outcome("stop", 3, ""), Reach())
    assert (part.finish_reason, part.generated) == ("cancelled", 0)


@given(
    reason=st.sampled_from(["stop", "length", "deadline", "cancelled"]),
    generated=st.integers(0, 10),
    characters=st.integers(0, 40),
    tokens=st.integers(0, 12),
)
def test_no_cancelled_order_is_charged_for_or_keeps_more_than_was_read(
    reason, generated, characters, tokens
):
    said = outcome(reason, generated)
    part = delivered_part(order(call_off="cancelled"), said, Reach(characters, tokens))
    assert said.text.startswith(part.text)
    assert len(part.text) <= characters
    if characters < len(said.text):
        assert part.generated <= tokens
    if characters == 0:
        assert (part.text, part.generated) == ("", 0) or tokens > 0


@pytest.mark.parametrize(
    ("state", "generated", "whole", "charged"),
    [
        (State.COMPLETED, 10, False, 28),
        (State.COMPLETED, 1, False, 10),
        (State.COMPLETED, 1, True, 28),
        (State.COMPLETED, 0, False, 8),
        (State.CANCELLED, 2, False, 12),
        (State.CANCELLED, 2, True, 12),
        (State.CANCELLED, 0, False, 0),
        (State.EXPIRED, 2, False, 12),
        (State.EXPIRED, 0, True, 0),
        (State.FAILED, 9, True, 0),
    ],
)
def test_the_table_of_charges(state, generated, whole, charged):
    assert charge_of(order(charge_unused=whole), state, generated) == charged
