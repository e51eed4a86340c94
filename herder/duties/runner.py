"""Background duties: what a herder does beside its orders, each behind walls of its own.

A duty is a name, a period and a step. The step does one batch of at most so many rows and says
whether there is more; a row that cannot be done is set aside by the step itself (`each_alone`) and
stops nobody else. Each duty has a thread of its own (`herder.service.loop`), so that one that
fails, or is slow, holds up no other. Whatever needs only one herder in each period stands behind a
guard: a row of the database with a lease.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import structlog
from redis import RedisError

from herder.db.postgres import statement_limit
from herder.duties.records import LEASE_S, DutyGuard, Tally
from herder.errors import HerdUnavailable, SetupError
from herder.store.duties import Counts

_log = structlog.get_logger("herder.duties.runner")

OUTAGES: tuple[type[Exception], ...] = (RedisError, HerdUnavailable, SetupError, OSError)
"""Errors of things that are out of reach, or cannot be used as they are: no row is to blame, and
all is tried again."""

BATCH = 500
"""Rows of one batch, where a duty says nothing else: no transaction holds its locks for long."""

LIMIT_S = 10.0
LOOK_S = 60.0
"""The longest pause before a herder looks whether a guarded duty has become free."""

Row = TypeVar("Row")


class Step(Protocol):
    """One step of a duty."""

    def __call__(self, limit: int, /) -> bool:
        """Do one batch, in transactions that are short.

        Args:
            limit: rows at most.

        Returns:
            Whether there is more to do at once.

        Raises:
            HerdUnavailable, RedisError, OSError: something is out of reach; all of it is due again.
            Exception: nothing of the batch could be done. A row that fails alone is no reason: it
                is set aside, or left out in a way in which the next batch does not begin with it.
        """


@dataclass(frozen=True, slots=True)
class Duty:
    """Something that herders do again and again.

    Attributes:
        name: in logs, metrics and the database.
        step: does a batch.
        period_s: seconds between the end of one run, of as many batches as there are, and the next.
        batch: rows of a batch at most; halved after a failure, and so on down to one.
        limit_s: seconds that a batch may take. PostgreSQL ends a statement that takes longer; a
            batch that took longer all the same is logged and counted.
        pause_s: seconds between two batches, for others to write.
        alone: whether one herder at a time is to do it, once in each period.
    """

    name: str
    step: Step
    period_s: float = 1.0
    batch: int = BATCH
    limit_s: float = LIMIT_S
    pause_s: float = 0.0
    alone: bool = False


def each_alone(
    rows: Sequence[Row],
    do: Callable[[Sequence[Row]], object],
    set_aside: Callable[[Row, Exception], object],
) -> None:
    """Do something to rows together; where that fails to each half, down to each row alone.

    So one bad row stops no other, and of many good ones costs few transactions more. Rows are done
    in their order.

    Args:
        rows: what it is done to.
        do: does it, in a transaction of its own, and keeps what came of it.
        set_aside: is given a row that fails alone and why. It sees to it that the row does not come
            again at once, and logs it.

    Raises:
        HerdUnavailable, RedisError, OSError: something is out of reach; what was done stays done.
    """
    if not rows:
        return
    try:
        do(rows)
    except OUTAGES:
        raise
    except Exception as error:  # noqa: BLE001 (handed on with its trace, once a row is found)
        if len(rows) == 1:
            set_aside(rows[0], error)
            return
    else:
        return
    half = len(rows) // 2
    each_alone(rows[:half], do, set_aside)
    each_alone(rows[half:], do, set_aside)


SPREAD_S = 1.0
"""Seconds over which the first steps of duties are spread: the period of most of them."""


def spread(runners: Sequence[Runner]) -> list[tuple[Runner, float]]:
    """Return duties with the seconds after which each begins, always the same.

    All at once they would want a connection each at the same moment, second after second.
    """
    return [(one, SPREAD_S * place / len(runners)) for place, one in enumerate(runners)]


class Runner:
    """Does one duty, as its definition says. One thread at a time.

    Args:
        duty: what is done.
        tally: counts what becomes of it.
        guard: of duties that are one herder's; None: this herder is alone.
        clock_s: a clock that only rises, in seconds.
    """

    def __init__(
        self,
        duty: Duty,
        tally: Tally,
        guard: DutyGuard | None = None,
        *,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.duty = duty
        self._tally = tally
        self._guard = guard if duty.alone else None
        self._clock_s = clock_s
        self._batch = duty.batch
        self._due_s = float("-inf")

    @property
    def every_s(self) -> float:
        """How often to call `run`."""
        return self.duty.period_s if self._guard is None else min(self.duty.period_s, LOOK_S)

    def run_if_due(self) -> None:
        """Do it, unless it was done within its period: for who calls this more often."""
        if self._clock_s() >= self._due_s:
            # A little less, so that whoever calls once in a period finds it due each time.
            self._due_s = self._clock_s() + 0.9 * self.every_s
            self.run(lambda _seconds: False)

    def run(self, pause: Callable[[float], bool]) -> None:
        """Do batches until there is no more.

        Args:
            pause: waits so many seconds; says whether to stop.

        Raises:
            Exception: what a batch raised; it is counted.
        """
        try:
            if self._guard is None:
                self._do_all(pause, lambda: True)
            else:
                self._run_alone(self._guard, pause)
        except BaseException:
            self._tally.failed(self.duty.name)
            raise

    def _run_alone(self, guard: DutyGuard, pause: Callable[[float], bool]) -> None:
        duty = self.duty
        if not guard.take(duty.name, duty.period_s):
            return
        kept_s = self._clock_s()

        def keep() -> bool:
            nonlocal kept_s
            if self._clock_s() - kept_s < LEASE_S / 3:
                return True
            kept_s = self._clock_s()
            return guard.keep(duty.name)

        try:
            is_done = self._do_all(pause, keep)
        except OUTAGES:
            raise  # it would be one for the guard as well; this herder may come back to it
        except Exception:
            guard.give_back(duty.name)
            raise
        if is_done:
            guard.done(duty.name, duty.period_s)
        else:
            guard.give_back(duty.name)

    def _do_all(self, pause: Callable[[float], bool], keep: Callable[[], bool]) -> bool:
        """Return whether all of it is done; else it was to stop, or is another herder's by now."""
        while self._do_batch():
            if pause(self.duty.pause_s) or not keep():
                return False
        return True

    def _do_batch(self) -> bool:
        duty, begin_s = self.duty, self._clock_s()
        try:
            with statement_limit(duty.limit_s):
                more = duty.step(self._batch)
        except Exception:
            # The batch may have been too large for the time that it had.
            self._batch = max(1, self._batch // 2)
            self._note(begin_s, runs=0)
            raise
        if self._note(begin_s, runs=1):
            self._batch = min(duty.batch, self._batch * 2)
        else:
            self._batch = max(1, self._batch // 2)
        return more

    def _note(self, begin_s: float, runs: int) -> bool:
        """Count a batch; says whether it took no longer than it may."""
        duty, took_s = self.duty, max(0.0, self._clock_s() - begin_s)
        over = took_s > duty.limit_s
        if over:
            _log.warning("duty_overran", duty=duty.name, took_s=round(took_s, 3))
        self._tally.note(duty.name, Counts(runs, 0, int(over), int(took_s * 1e6)))
        return not over
