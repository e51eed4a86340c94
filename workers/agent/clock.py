"""The time by the herders' clocks, as far as this worker can tell.

How long a message may be obeyed is the herder's to say, and stands in it by the herder's clock.
This machine's own may be minutes wrong. So the worker asks: a herder answers on the control stream,
signed and with the question's nonce, what its clock shows. It showed that at some moment between
question and answer, which bounds the error by half of the round trip (Cristian's algorithm).

Several herders may differ, and a message does not say whose clock it goes by. Messages are judged
by the slowest clock of those heard lately: none is refused too early, and those of faster herders
live longer by the difference.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from workers.wire import ClockReading, ClockRequest

_log = structlog.get_logger("workers.agent.clock")

ASK_EVERY_S = 30.0
"""Seconds between questions, once a herder has answered."""
ANSWER_S = 5.0
"""The longest round trip that says anything: its error is half of that."""
FORGET_S = 600.0
"""Seconds after which a herder that was not heard again counts no more."""
DRIFT = 1e-4
"""By how much two clocks may drift apart: seconds a second, generously."""
UNKNOWN_S = 30.0
"""Seconds from the start in which no message is refused for its age, since nobody knows the time.
After that, where no herder answers such questions, this machine's own clock has to do."""
MAX_HERDERS = 64
MAX_ASKED = 8
TOLD_S = 5.0
"""A difference above which somebody should set a clock."""


@dataclass(frozen=True, slots=True)
class _Reading:
    """A herder's clock, as seconds ahead of this process's steady one, found out at `at_s`."""

    ahead_s: float
    at_s: float
    error_s: float

    def error_at(self, now_s: float) -> float:
        return self.error_s + (now_s - self.at_s) * DRIFT


class HerderClock:
    """Asks herders for the time, and tells it. Safe among threads.

    Args:
        wall_s: this machine's clock, in seconds since the epoch.
        steady_s: a clock that only rises, in seconds.
        new_nonce: draws a word that nobody can guess.
    """

    def __init__(
        self,
        *,
        wall_s: Callable[[], float],
        steady_s: Callable[[], float],
        new_nonce: Callable[[], str],
    ) -> None:
        self._wall_s = wall_s
        self._steady_s = steady_s
        self._new_nonce = new_nonce
        self._lock = threading.Lock()
        self._began_s = steady_s()
        self._asked: dict[str, float] = {}
        self._asked_s = float("-inf")
        self._readings: dict[str, _Reading] = {}
        self._told_s = 0

    def question(self) -> ClockRequest | None:
        """Return the question for the herders, if it is time to ask."""
        with self._lock:
            now_s = self._steady_s()
            if self._readings and now_s - self._asked_s < ASK_EVERY_S:
                return None
            self._asked_s = now_s
            recent = [one for one in self._asked.items() if now_s - one[1] <= ANSWER_S]
            self._asked = dict(recent[1 - MAX_ASKED :])
            nonce = self._new_nonce()
            self._asked[nonce] = now_s
            return ClockRequest(nonce=nonce)

    def doubt(self) -> None:
        """Ask with the next heartbeat: a message seems too old."""
        with self._lock:
            self._asked_s = float("-inf")

    def hear(self, reading: ClockReading) -> None:
        """Take a herder's answer, whose signature was checked."""
        with self._lock:
            now_s = self._steady_s()
            asked_s = self._asked.pop(reading.nonce, None)
            if asked_s is None or now_s - asked_s > ANSWER_S:
                return  # not asked, answered before, or too late to say anything
            error_s = (now_s - asked_s) / 2
            new = _Reading(reading.now_us / 1e6 - (asked_s + error_s), now_s, error_s)
            old = self._readings.get(reading.herder)
            if old is None or _is_better(new, old, now_s):
                self._readings[reading.herder] = new
            else:
                # Still there, and as it was: what is known better stays, with its age.
                self._readings[reading.herder] = _Reading(old.ahead_s, now_s, old.error_at(now_s))
            for herder in sorted(self._readings, key=lambda one: self._readings[one].at_s)[
                :-MAX_HERDERS
            ]:
                del self._readings[herder]
        self._tell()

    def judging_s(self) -> float:
        """Return the time by which messages are too old, in seconds since the epoch.

        Zero, by which none is, while it is not known yet.
        """
        with self._lock:
            now_s = self._steady_s()
            if (known := self._slowest(now_s)) is not None:
                return now_s + known.ahead_s - known.error_at(now_s)
            if now_s - self._began_s < UNKNOWN_S:
                return 0.0
            return self._wall_s()

    def ahead_s(self) -> int:
        """Return by how many seconds this machine's clock is ahead of the herders'.

        Negative where it is behind; 0 up to a difference of `TOLD_S`, beyond what a round trip may
        have added.
        """
        with self._lock:
            now_s = self._steady_s()
            known = self._slowest(now_s)
            if known is None:
                return 0
            ahead_s = self._wall_s() - (now_s + known.ahead_s)
            return round(ahead_s) if abs(ahead_s) - known.error_at(now_s) > TOLD_S else 0

    def _slowest(self, now_s: float) -> _Reading | None:
        """Return the reading of the slowest clock among those of herders heard lately."""
        for herder, reading in list(self._readings.items()):
            # The last one is kept: where no herder runs, none has been heard for long.
            if now_s - reading.at_s > FORGET_S and len(self._readings) > 1:
                del self._readings[herder]
        return min(self._readings.values(), key=lambda one: one.ahead_s, default=None)

    def _tell(self) -> None:
        ahead_s = self.ahead_s()
        if abs(ahead_s - self._told_s) > 1:
            self._told_s = ahead_s
            if ahead_s:
                _log.warning("clock_differs", ahead_s=ahead_s, of="this machine, to the herder's")
            else:
                _log.info("clock_agrees")


def _is_better(new: _Reading, old: _Reading, now_s: float) -> bool:
    """Return whether a new reading is exact as the old one is by now, or contradicts it."""
    allowed_s = new.error_s + old.error_at(now_s)
    return new.error_s <= old.error_at(now_s) or abs(new.ahead_s - old.ahead_s) > allowed_s
