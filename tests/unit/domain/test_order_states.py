"""The states of an order and the legal steps between them."""

from __future__ import annotations

from herder.domain.order import ENDED, STEPS, Prompt, State
from workers.wire import ChatMessage


def test_an_end_is_for_ever():
    for state in ENDED:
        assert state.ended
        assert STEPS[state] == frozenset()


def test_every_state_that_is_no_end_can_end_in_every_way():
    for state in set(State) - ENDED:
        assert not state.ended
        assert STEPS[state] >= ENDED


def test_only_what_is_out_or_set_aside_goes_back_to_waiting():
    back = {state for state in State if State.QUEUED in STEPS[state]}
    assert back == {State.DISPATCHED, State.RUNNING, State.SET_ASIDE}


def test_nothing_goes_out_twice_without_coming_back():
    assert {state for state in State if State.DISPATCHED in STEPS[state]} == {State.QUEUED}


def test_words_of_a_conversation_are_counted_in_its_contents():
    turns = (
        ChatMessage(role="system", content="Be brief."),
        ChatMessage(role="user", content="Why?"),
    )
    assert Prompt(None, turns).counted == "Be brief.\nWhy?"
    assert Prompt("Why?").counted == "Why?"
