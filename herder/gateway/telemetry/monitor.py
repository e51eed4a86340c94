"""The figures of a herd, read cheaply however much it ever did.

What is now is read by indexes that hold none of the orders that ended. What was is followed: each
look reads the events since the look before, and the first one none, so that whoever counts counts
from its first look on. Every account is read only now and then, for the sums of the ledger.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from sqlalchemy import Connection

from herder.db.database import Database
from herder.market import queue_estimate
from herder.store import book as book_sql
from herder.store import duties as duty_sql
from herder.store import herd as herd_sql
from herder.store import models as model_sql
from herder.store import monitor as monitor_sql
from herder.store import set_aside as set_aside_sql
from herder.store import survey as survey_sql
from herder.store.duties import Counts
from herder.store.herd import Heard, Worker
from herder.store.monitor import Happening
from herder.types import PLACE_COUNTED
from ledger import Totals

PAGE = 5000
PAGES = 10
"""Of events, that one look reads at most; the next one goes on from there."""

MISSED_S = 60.0
"""The wait for a missing event number: PostgreSQL draws it before the transaction is
committed, perhaps after others with higher numbers, or never. None of ours takes as long."""
MISSED = 1000
"""Numbers that are waited for at most."""

SUMS_S = 60.0
SUMS_REST = 100
"""The ledger's sums are worked out each minute at most, and then not for a hundred times as long as
it took: with a million accounts too it is one part in a hundred of one core."""


@dataclass(frozen=True, slots=True)
class Queue:
    """A model's book: orders that wait and what they ask for; exact up to 1,000."""

    orders: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Look:
    """A herd, as it was looked at.

    Attributes:
        queues: by model.
        out: orders that are out, by model and state.
        workers: those that beat.
        heard: the listening clock.
        set_aside: orders that an operator has to end.
        unsent: messages in the outbox.
        happened: since the look before.
        behind: events that are yet to be read: there were more than one look reads.
        totals: the ledger's sums, as they were worked out last.
        totals_us: when that was, in microseconds since the epoch.
        duties: what all herders counted of each background duty, since the herd began.
    """

    queues: dict[str, Queue]
    out: dict[tuple[str, str], int]
    workers: list[Worker]
    heard: Heard
    set_aside: int
    unsent: int
    happened: list[Happening]
    behind: int
    totals: Totals
    totals_us: int
    duties: dict[str, Counts]


@dataclass(slots=True)
class Cursor:
    """A position in the events, whose numbers may become visible out of order.

    Attributes:
        top: the highest that was read; None before the first look.
        missed: numbers below it that were not there, and when that was seen.
    """

    top: int | None = None
    missed: dict[int, float] = field(default_factory=dict)

    def read(self, seq: int, now_s: float) -> None:
        """Note an event that was read, the next one that was there."""
        assert self.top is not None
        if seq < self.top:
            self.missed.pop(seq, None)
            return
        for skipped in range(max(self.top + 1, seq - MISSED), seq):
            self.missed[skipped] = now_s
        self.top = seq

    def give_up(self, now_s: float) -> None:
        """Wait no more for what has been missing for long, or is the oldest of too many."""
        too_many = len(self.missed) - MISSED
        for place, (seq, since_s) in enumerate(list(self.missed.items())):
            if place < too_many or now_s - since_s > MISSED_S:
                del self.missed[seq]


class Monitor:
    """Looks at a herd. One thread at a time.

    Args:
        database: the herd's.
        totals: gives the ledger's sums.
        clock_us: the time, in microseconds since the epoch.
        clock_s: a clock that only rises, in seconds.
    """

    def __init__(
        self,
        database: Database,
        totals: Callable[[], Totals],
        *,
        clock_us: Callable[[], int],
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._read_totals = totals
        self._clock_us = clock_us
        self._clock_s = clock_s
        self._cursor = Cursor()
        self._totals: Totals | None = None
        self._totals_us = 0
        self._totals_due_s = 0.0

    def look(self) -> Look:
        """Return the herd now, and what happened since the last look.

        Raises:
            HerdUnavailable: the database is out of reach; what happened is told by the next look.
        """
        totals = self._sums()
        with self._database.read() as connection:
            models = [model.name for model in model_sql.list_models(connection)]
            queues = {model: self._queue(connection, model) for model in models}
            out = monitor_sql.count_out(connection)
            workers = herd_sql.workers_here(connection)
            heard = herd_sql.listening(connection)
            set_aside = set_aside_sql.count(connection)
            unsent = monitor_sql.unsent(connection)
            happened, behind = self._follow(connection)
            duties = duty_sql.counted(connection)
        return Look(
            *(
                queues,
                out,
                workers,
                heard,
                set_aside,
                unsent,
                happened,
                behind,
                totals,
                self._totals_us,
            ),
            duties=duties,
        )

    def _queue(self, connection: Connection, model: str) -> Queue:
        found = Queue(*book_sql.queue_length(connection, model))
        if found.orders <= PLACE_COUNTED:
            return found
        known = survey_sql.read(connection, model)
        if known is None or self._clock_us() - known.at_us > queue_estimate.TOO_OLD_US:
            return found
        last = known.marks[-1]
        return Queue(max(found.orders, last.ahead), max(found.tokens, last.tokens))

    def _follow(self, connection: Connection) -> tuple[list[Happening], int]:
        """Return the events since the look before, and the number of those left unread."""
        cursor, now_s = self._cursor, self._clock_s()
        last = monitor_sql.last_event(connection)
        if cursor.top is None:
            cursor.top = last
            return [], 0
        found = monitor_sql.happened(connection, cursor.missed)
        for _ in range(PAGES):
            after = max(cursor.top, found[-1].seq if found else 0)
            page = monitor_sql.happened_after(connection, after, PAGE)
            found += page
            if len(page) < PAGE:
                break
        for one in found:
            cursor.read(one.seq, now_s)
        cursor.give_up(now_s)
        return found, max(0, last - cursor.top)

    def _sums(self) -> Totals:
        begin_s = self._clock_s()
        if self._totals is None or begin_s >= self._totals_due_s:
            self._totals = self._read_totals()
            self._totals_us = self._clock_us()
            end_s = self._clock_s()
            self._totals_due_s = end_s + max(SUMS_S, SUMS_REST * (end_s - begin_s))
        return self._totals
