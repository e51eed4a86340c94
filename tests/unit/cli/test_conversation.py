"""What is sent of a conversation, and what is forgotten of one that is too long."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from herder.cli.conversation import Conversation, too_long
from herder.errors import FeeTooLow, InvalidPrompt, OrderFailed, PromptTooLong
from herder.types import Rate, Receipt, Result, Usage


def talk(*exchanges: tuple[str, str], system: str | None = None) -> Conversation:
    conversation = Conversation(system)
    for asked, answered in exchanges:
        conversation.keep(asked, answered)
    return conversation


def test_what_was_said_goes_before_what_is_asked():
    conversation = talk(("Hi", "Hello"), system="Be brief.")
    assert conversation.asking("Who?") == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "Who?"},
    ]
    conversation.clear()
    assert [one["role"] for one in conversation.asking("Who?")] == ["system", "user"]


def test_the_oldest_go_first_and_as_many_as_have_to():
    conversation = talk(*[("a" * 50, "b" * 50)] * 10)
    # 1000 characters and 20: a quarter of them has to go, which is three exchanges of 100.
    assert conversation.cut("c" * 20, have=400, most=300) == 3
    assert len(conversation.exchanges) == 7
    assert conversation.cut("c" * 20, have=301, most=300) == 1
    assert conversation.cut("c" * 20, have=10**9, most=1) == 6
    assert conversation.cut("c" * 20, have=10, most=1) == 0


@given(
    st.lists(st.tuples(st.text(max_size=20), st.text(max_size=20)), max_size=12),
    st.text(max_size=20),
    st.integers(-5, 10**6),
    st.integers(-5, 10**6),
)
def test_each_cut_forgets_something_until_nothing_is_left(exchanges, asked, have, most):
    conversation = talk(*exchanges, system="s")
    while (before := len(conversation.exchanges)) > 0:
        cut = conversation.cut(asked, have, most)
        assert 1 <= cut <= before
        assert conversation.exchanges == exchanges[len(exchanges) - before + cut :]
    assert conversation.cut(asked, have, most) == 0
    assert conversation.system == "s"


def failed(code: str, data: object) -> OrderFailed:
    failure: dict[str, object] = {"code": code, "message": "No.", "data": data}
    receipt = Receipt(
        *("o", "a", "m", "failed", 1, 1, "1", "1", True, Rate(1, 1), 1, 1, 0, 0, 1, 0, 0, 1),
        *(None, None, None, 0, None, None, failure),
    )
    return OrderFailed("It failed.", Result("o", "", None, Usage(0, 0), receipt))


@pytest.mark.parametrize(
    ("error", "bound"),
    [
        (InvalidPrompt("Too many bytes.", bytes=70_000, most=65_536), (70_000, 65_536)),
        (InvalidPrompt("Too many turns.", turns=257, most=256), (257, 256)),
        (InvalidPrompt("Empty."), None),
        (PromptTooLong(500, 100, 512), (500, 412)),
        (PromptTooLong(5, 512, 512), None),
        (FeeTooLow(5, 20), None),
        (
            failed("prompt_too_long", {"prompt_tokens": 500, "tokens": 100, "context": 512}),
            (500, 412),
        ),
        # Fewer tokens have to be asked for: to forget what was said would not help.
        (failed("prompt_too_long", {"prompt_tokens": 5, "tokens": 512, "context": 512}), None),
        (failed("prompt_too_long", {}), None),
        (failed("prompt_too_long", None), None),
        (failed("grammar", {"prompt_tokens": 500, "tokens": 100, "context": 512}), None),
    ],
)
def test_which_errors_say_that_it_is_too_long(error, bound):
    assert too_long(error) == bound
