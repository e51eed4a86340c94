"""A caller is given a text once and in order; who is not shown reasoning was not given it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from herder.domain.order import State
from herder.gateway.streams.given_text import GivenText, StreamMark
from workers.transport.delivery import Reach
from workers.transport.streams import TextPiece

PIECES = [
    TextPiece("1-1", 0, "hm", 1, False, 2),
    TextPiece("1-2", 2, ", hmOnce ", 3, False, 4),
    TextPiece("1-3", 11, "upon", 4, False),
]
"""Six characters of reasoning, and the answer behind them."""


def given(text, *pieces):
    """What of these pieces is given, by kind, and how far it was given then."""
    text.turn_to(1)
    found = [(one.kind, one.data["text"]) for piece in pieces for one in text.take(piece)]
    return found, text.reach


def order(state=State.COMPLETED, attempt=1):
    return SimpleNamespace(state=state, attempt=attempt)


def test_both_are_given_apart_with_marks_that_count_both():
    text = GivenText(None)
    text.turn_to(1)
    happened = [one for piece in PIECES for one in text.take(piece)]
    assert [(one.kind, one.data["text"], str(one.mark)) for one in happened] == [
        ("reasoning", "hm", "1.2"),
        ("reasoning", ", hm", "1.6"),
        ("text", "Once ", "1.11"),
        ("text", "upon", "1.15"),
    ]
    assert text.reach == Reach(15, 4)


@pytest.mark.parametrize(
    ("known", "rest"),
    [
        (1, [("reasoning", "m"), ("reasoning", ", hm"), ("text", "Once "), ("text", "upon")]),
        (4, [("reasoning", "hm"), ("text", "Once "), ("text", "upon")]),
        (6, [("text", "Once "), ("text", "upon")]),
        (8, [("text", "ce "), ("text", "upon")]),
        (15, []),
    ],
)
def test_who_comes_back_goes_on_where_he_was(known, rest):
    assert given(GivenText(StreamMark(1, known)), *PIECES)[0] == rest


def test_hidden_reasoning_is_given_with_the_first_of_the_answer():
    text = GivenText(None, shows_reasoning=False)
    text.turn_to(1)
    assert text.reach_with(PIECES[:1]) == Reach()
    assert text.reach_with(PIECES[:2]) == Reach(11, 3)
    assert given(text, PIECES[0]) == ([], Reach())
    assert text.reach_with(PIECES[1:2]) == Reach(11, 3)
    assert given(text, *PIECES[1:]) == ([("text", "Once "), ("text", "upon")], Reach(15, 4))


def test_an_attempt_that_is_lost_amid_a_thought_is_told_to_who_saw_it():
    seen, unseen = GivenText(None), GivenText(None, shows_reasoning=False)
    for text in (seen, unseen):
        given(text, PIECES[0])
    assert seen.turn_to(2).data == {"shown": 2}
    assert unseen.turn_to(2) is None
    given(unseen, *PIECES)  # of attempt 1 again
    assert unseen.turn_to(2).data == {"shown": 9}, "nine characters of the answer"


def test_the_end_gives_what_is_left_of_either():
    text = GivenText(None)
    given(text, PIECES[0])
    rest = [(one.kind, one.data["text"]) for one in text.complete(order(), "hm, hm", "Once upon")]
    assert rest == [("reasoning", ", hm"), ("text", "Once upon")]
    hidden = GivenText(None, shows_reasoning=False)
    given(hidden, PIECES[0])
    rest = [(one.kind, one.data["text"]) for one in hidden.complete(order(), "other", "answer")]
    assert rest == [("text", "answer")], "nothing of the thought that differs was seen"
    again = GivenText(None)
    given(again, PIECES[0])
    assert [one.kind for one in again.complete(order(), "other", "answer")] == [
        "restart",
        "reasoning",
        "text",
    ]
