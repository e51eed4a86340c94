"""What time it is by the herders' clocks, from answers that may be late, old, or of several."""

from __future__ import annotations

from itertools import count

import pytest

from workers.agent.clock import (
    ANSWER_S,
    ASK_EVERY_S,
    FORGET_S,
    MAX_HERDERS,
    UNKNOWN_S,
    HerderClock,
)
from workers.wire import ClockReading

TRUE_S = 1_800_000_000.0


class Here:
    """A machine whose clock is off, and herders whose clocks are too."""

    def __init__(self, ahead_s: float = 0.0) -> None:
        self.passed_s = 1000.0
        self.ahead_s = ahead_s
        numbers = count(1)
        self.clock = HerderClock(
            wall_s=lambda: self.true_s + self.ahead_s,
            steady_s=lambda: self.passed_s,
            new_nonce=lambda: f"n{next(numbers)}",
        )

    @property
    def true_s(self) -> float:
        return TRUE_S + self.passed_s

    def answer(
        self, *, there_s: float = 0.05, back_s: float = 0.05, off_s: float = 0.0, name: str = "h-1"
    ) -> ClockReading:
        """Ask, and be answered by a herder whose clock is `off_s` ahead of the true time."""
        question = self.clock.question()
        assert question is not None
        self.passed_s += there_s
        shown_us = int((self.true_s + off_s) * 1e6)
        self.passed_s += back_s
        reading = ClockReading(nonce=question.nonce, now_us=shown_us, herder=name)
        self.clock.hear(reading)
        return reading


@pytest.mark.parametrize("ahead_s", [-3600, -120, -6, 6, 120, 3600])
def test_a_wrong_clock_is_found_and_messages_are_judged_by_the_herders(ahead_s):
    here = Here(ahead_s)
    here.answer()
    assert here.clock.judging_s() == pytest.approx(here.true_s, abs=0.2)
    assert here.clock.ahead_s() == ahead_s
    here.passed_s += 300
    assert here.clock.judging_s() == pytest.approx(here.true_s, abs=0.3)


def test_a_clock_that_is_set_meanwhile_changes_nothing():
    here = Here(120)
    here.answer()
    here.ahead_s = -7200
    assert here.clock.judging_s() == pytest.approx(here.true_s, abs=0.2)
    assert here.clock.ahead_s() == -7200


def test_a_small_difference_is_none():
    for ahead_s in (-4, 0, 4):
        here = Here(ahead_s)
        here.answer()
        assert here.clock.ahead_s() == 0


def test_a_slow_answer_is_wrong_by_half_of_its_round_trip_and_is_not_held_against_anybody():
    here = Here(0)
    here.answer(there_s=0.0, back_s=4.0)
    # Judged by the earliest that it may be: nothing is refused too soon.
    assert here.true_s - 4.5 < here.clock.judging_s() <= here.true_s
    assert here.clock.ahead_s() == 0
    here.passed_s += ASK_EVERY_S
    here.answer()
    assert here.clock.judging_s() == pytest.approx(here.true_s, abs=0.2)
    # A worse one does not take its place.
    here.passed_s += ASK_EVERY_S
    here.answer(there_s=0.0, back_s=4.0)
    assert here.clock.judging_s() == pytest.approx(here.true_s, abs=0.2)


def test_an_answer_counts_once_and_in_time_and_only_if_it_was_asked_for():
    here = Here(120)
    here.answer(back_s=ANSWER_S)
    assert here.clock.ahead_s() == 0, "too late to say anything"
    here.clock.hear(ClockReading(nonce="of-nobody", now_us=1, herder="h-1"))
    assert here.clock.ahead_s() == 0
    good = here.answer()
    assert here.clock.ahead_s() == 120
    here.passed_s += 50
    here.clock.hear(good)  # again, by somebody who kept it
    assert here.clock.ahead_s() == 120
    assert here.clock.judging_s() == pytest.approx(here.true_s, abs=0.2)


def test_a_herder_whose_clock_is_set_is_believed():
    here = Here(0)
    here.answer()
    here.passed_s += ASK_EVERY_S
    here.answer(off_s=-120)
    assert here.clock.ahead_s() == 120
    here.passed_s += ASK_EVERY_S
    here.answer(off_s=0)
    assert here.clock.ahead_s() == 0


def test_several_herders_are_judged_by_the_slowest_that_was_heard_lately():
    here = Here(0)
    here.answer(name="h-1")
    here.passed_s += ASK_EVERY_S
    here.answer(name="h-2", off_s=-300)
    here.passed_s += ASK_EVERY_S
    here.answer(name="h-3", off_s=+300)
    assert here.clock.judging_s() == pytest.approx(here.true_s - 300, abs=0.3)
    assert here.clock.ahead_s() == 300
    here.passed_s += FORGET_S
    here.answer(name="h-1")
    assert here.clock.judging_s() == pytest.approx(here.true_s, abs=0.3), "h-2 is gone"


def test_nothing_is_too_old_while_the_time_is_not_known_and_then_the_own_clock_has_to_do():
    here = Here(120)
    assert here.clock.judging_s() == 0
    here.passed_s += UNKNOWN_S
    assert here.clock.judging_s() == here.true_s + 120
    here.answer()
    here.passed_s += 10 * FORGET_S  # no herder was up for long
    assert here.clock.judging_s() == pytest.approx(here.true_s, abs=2)


def test_it_asks_until_it_is_answered_and_then_now_and_then():
    here = Here(0)
    assert here.clock.question() is not None
    assert here.clock.question() is not None
    here.answer()
    assert here.clock.question() is None
    here.clock.doubt()
    assert here.clock.question() is not None
    assert here.clock.question() is None
    here.passed_s += ASK_EVERY_S
    assert here.clock.question() is not None


def test_it_stays_small():
    here = Here(0)
    for number in range(5 * MAX_HERDERS):
        here.clock.doubt()
        here.answer(name=f"h-{number}", there_s=0.01, back_s=0.01)
    for _ in range(100):
        here.clock.doubt()
        here.clock.question()
    assert len(here.clock._readings) <= MAX_HERDERS
    assert len(here.clock._asked) <= 8
