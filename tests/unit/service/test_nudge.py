"""Nudges: one for all that was submitted since the last, from a thread that nothing ends."""

from __future__ import annotations

from unittest.mock import Mock

import pytest
from redis import ConnectionError as RedisAway

from herder.service.nudge import Nudger
from tests.support.wait import wait_for


@pytest.fixture
def nudger(house, monkeypatch):
    made = Nudger(house.settings, Mock(), house.key)
    sender = Mock()
    monkeypatch.setattr(made, "_get_sender", lambda: sender)
    made.sender = sender
    yield made
    made.close(60)
    assert not made._loop.alive


def sent(nudger):
    return [call.args[0][0].label for call in nudger.sender.publish_many.call_args_list]


def test_an_unforeseen_error_ends_no_nudges(nudger):
    nudger._streams.first_nudge.side_effect = [ZeroDivisionError, SystemExit, True]
    for number in range(1, 4):
        nudger.nudge("stub")
        wait_for(lambda n=number: nudger._streams.first_nudge.call_count == n, "the nudge")
    wait_for(lambda: sent(nudger) == ["model=stub"], "the nudge after the failures")
    assert nudger._loop.failures == 2


def test_one_model_whose_nudge_fails_keeps_no_other_from_it(nudger):
    nudger._streams.first_nudge.side_effect = away_for_b
    nudger._models |= {"b", "c"}
    nudger.nudge("a")
    wait_for(lambda: sent(nudger) == ["model=a", "model=c"], "the others")
    assert nudger._loop.failures == 0, "a broker that is away is nothing to tell of"


def away_for_b(model):
    if model == "b":
        raise RedisAway
    return True


def test_closing_sends_what_waits(nudger):
    nudger.nudge("a")
    nudger.close(60)
    assert sent(nudger) == ["model=a"]
    nudger.nudge("b")
    assert sent(nudger) == ["model=a"]
