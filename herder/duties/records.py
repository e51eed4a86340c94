"""Records of duties in the database: which herder has one, and the counts of all herders."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence

from herder.db.database import Database
from herder.store import duties as duty_sql
from herder.store.duties import Counts

LEASE_S = 60.0
"""The lease of a guarded duty: longer than a batch may take."""


class Tally:
    """Counts what becomes of duties, until the database takes it. Safe among threads.

    There is one count for each name, however long the database is away.
    """

    def __init__(self, names: Sequence[str] = ()) -> None:
        self._lock = threading.Lock()
        # At nothing before the first: whoever watches a rate would miss the first failure.
        self._counts = {name: Counts() for name in names}

    def note(self, name: str, counts: Counts) -> None:
        """Count something of a duty."""
        with self._lock:
            self._counts[name] = self._counts.get(name, Counts()).plus(counts)

    def failed(self, name: str) -> None:
        """Count a failure of a duty."""
        self.note(name, Counts(failures=1))

    def take(self) -> Mapping[str, Counts]:
        """Return the counts since they were taken last.

        Whoever cannot write it notes it again.
        """
        with self._lock:
            taken, self._counts = self._counts, {}
        return taken

    def write(self, database: Database) -> None:
        """Add what was counted to the database.

        Raises:
            HerdUnavailable: it is out of reach; nothing is lost.
        """
        taken = self.take()
        if not taken:
            return
        try:
            database.transact(lambda connection: duty_sql.add_counts(connection, taken))
        except BaseException:
            for name, counts in taken.items():
                self.note(name, counts)
            raise


class DutyGuard:
    """Gives a duty to one herder at a time, in the database.

    A herder that dies or stands still has it no longer than a lease. Should it go on afterwards,
    two do the same for a while: a guard saves work, and no duty relies on it to be right.

    Args:
        database: the herd's.
        me: the herder's name.
        clock_us: the time, in microseconds since the epoch.
    """

    def __init__(self, database: Database, me: str, clock_us: Callable[[], int]) -> None:
        self._database = database
        self._me = me
        self._clock_us = clock_us

    def take(self, duty: str, period_s: float) -> bool:
        """Return whether this herder is to do it now: it is due, and nobody else has it."""
        now_us = self._clock_us()
        until_us = now_us + int(LEASE_S * 1e6)
        farthest_us = now_us + int(2e6 * (LEASE_S + period_s))
        with self._database.read() as connection:
            if not duty_sql.is_free(connection, duty, self._me, now_us, farthest_us):
                return False
        return self._database.transact(
            lambda connection: duty_sql.take(
                connection, duty, self._me, now_us, until_us, farthest_us
            )
        )

    def keep(self, duty: str) -> bool:
        """Have it for longer; False if another herder has it by now."""
        until_us = self._clock_us() + int(LEASE_S * 1e6)
        return self._database.transact(
            lambda connection: duty_sql.keep(connection, duty, self._me, until_us)
        )

    def give_back(self, duty: str) -> None:
        """Let another herder try it: it is still due."""
        self._database.transact(lambda connection: duty_sql.give_back(connection, duty, self._me))

    def done(self, duty: str, period_s: float) -> None:
        """Mark it as done for a period."""
        # A little less, so that whoever looks again after a period finds it due.
        due_us = self._clock_us() + int(period_s * 0.9e6)
        self._database.transact(
            lambda connection: duty_sql.done(connection, duty, self._me, due_us)
        )
