"""Opens the database and hands out transactions.

Every rule about connections stands in `sqlite` and `postgres`, beside this module; the address
chooses between them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Protocol, TypeVar

from sqlalchemy import URL, Connection, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from herder.db import migrations
from herder.db.outages import CommitUnknown, give_up_s, pause_s
from herder.db.postgres import Postgres
from herder.db.postgres_errors import UNDONE
from herder.db.sqlite import Sqlite
from herder.errors import HerdUnavailable, SetupError

PAUSES_S = (0.01, 0.05)
"""Before each further try of a transaction that was undone for others' sake."""

SETTLE_S = 30.0
"""The time that `Database.settle` has to find out whether a commit happened."""

CONNECTIONS = 15
"""To the database, that a process uses at once, where it says nothing else."""

Result = TypeVar("Result")


_short: ContextVar[bool] = ContextVar("short_reads", default=False)


@contextmanager
def short_reads() -> Iterator[None]:
    """Have the reads of this block use connections of their own: those of short reads.

    For what must be answered at once (an order, who calls): long reads, however many, take none of
    these. Whoever reads many rows must not ask for it.
    """
    token = _short.set(True)
    try:
        yield
    finally:
        _short.reset(token)


class Server(Protocol):
    """The database's server: hands out transactions, and translates its errors."""

    @property
    def reads_at_once(self) -> bool:
        """As `Database.reads_at_once`."""

    def write(self) -> AbstractContextManager[Connection]:
        """See `Database.write`."""

    def read(self, *, short: bool) -> AbstractContextManager[Connection]:
        """Do as `Database.read`; `short`: with a connection that only short reads use."""

    def close(self) -> None:
        """See `Database.close`."""


class Database:
    """One database, as one process sees it. Safe among threads; never used after a fork."""

    def __init__(
        self,
        url: str,
        lease_s: int = 20,
        connections: int = CONNECTIONS,
        *,
        any_version: bool = False,
    ) -> None:
        """Open the engine; the first transaction connects.

        Args:
            url: `sqlite:///PATH`, or `postgresql://user:password@host/name`.
            lease_s: the silence in seconds that a worker is allowed. On PostgreSQL nobody holds a
                lock in a transaction that does nothing longer than a third of it, nor waits for
                one longer than two thirds.
            connections: how many may be used at once, besides those of short reads: of threads
                that want one, so many are served, and the others wait.
            any_version: whether transactions are handed out whatever version made the tables, or
                where there are none: for who makes them.

        Raises:
            SetupError: no address of a database that is known here, or its driver is missing.
        """
        self._server = _open(url, lease_s, connections)
        self._is_known = any_version

    @property
    def reads_at_once(self) -> bool:
        """Whether a read waits for nobody: neither for those that write, nor for a network."""
        return self._server.reads_at_once

    def require_current(self) -> None:
        """Refuse a database of another version; done once, before the first transaction.

        Raises:
            DatabaseVersionMismatch: another version made it.
            HerdUnavailable, SetupError: as `read`.
        """
        if self._is_known:
            return
        with self._server.read(short=_short.get()) as connection:
            migrations.require_current(connection)
        self._is_known = True

    def write(self) -> AbstractContextManager[Connection]:
        """Return a transaction that writes.

        Committed at the end of the block, undone by an exception.

        Raises:
            CommitUnknown: the connection was lost in the middle of the commit; it may have
                happened.
            HerdUnavailable: the database is busy or out of reach; nothing is committed.
            SetupError: the database cannot be used as it is.
        """
        self.require_current()
        return self._server.write()

    def read(self) -> AbstractContextManager[Connection]:
        """Return a transaction that only reads, and sees one moment.

        Raises:
            HerdUnavailable: the database is busy or out of reach.
            SetupError: the database cannot be used as it is.
        """
        self.require_current()
        return self._server.read(short=_short.get())

    def transact(self, step: Callable[[Connection], Result]) -> Result:
        """Take a step in a transaction that writes, and take it again if others undid it.

        On PostgreSQL two transactions may wait for each other, until one is undone; done again,
        it succeeds as a rule. A lost connection is no reason to do it again: it may have been
        lost after the commit.

        Args:
            step: is given the connection. What it does outside of the transaction it does once
                for each try.

        Returns:
            What the step returned that was committed.

        Raises:
            HerdUnavailable: as `write`, after the last try.
        """
        for rest_s in PAUSES_S:
            try:
                with self.write() as connection:
                    return step(connection)
            except HerdUnavailable as error:
                if not _was_undone(error):
                    raise
            time.sleep(rest_s)
        with self.write() as connection:
            return step(connection)

    def settle(self, step: Callable[[Connection], Result]) -> Result:
        """Do as `transact`, and find out what became of a commit that lost its connection.

        Args:
            step: taken a second time after it was committed, it changes nothing and returns the
                same.

        Returns:
            What the step returned that was committed.

        Raises:
            CommitUnknown: the database was away for `SETTLE_S`, or until the caller gave up, and
                may have committed it.
            HerdUnavailable: as `write`; nothing is committed.
        """
        unknown: CommitUnknown | None = None
        tried, until_s = 0, 0.0
        while True:
            try:
                return self.transact(step)
            except HerdUnavailable as error:
                if unknown is None:
                    if not isinstance(error, CommitUnknown):
                        raise
                    unknown, until_s = error, time.monotonic() + SETTLE_S
                    until_s = min(until_s, give_up_s() or until_s)
            if time.monotonic() >= until_s:
                raise unknown
            tried += 1
            time.sleep(pause_s(tried))

    def close(self) -> None:
        """Give every connection back."""
        self._server.close()


def _open(address: str, lease_s: int, connections: int) -> Server:
    url = _parse(address)
    match url.get_backend_name():
        case "sqlite":
            return Sqlite(url, connections)
        case "postgresql" | "postgres":
            return Postgres(url, lease_s, connections)
        case other:
            raise SetupError(
                f"HERD_DATABASE_URL names {other!r}; only sqlite and postgresql are supported."
            )


def _parse(address: str) -> URL:
    try:
        return make_url(address)
    except (ArgumentError, ValueError):  # the second: a port that is no number
        raise SetupError(
            "HERD_DATABASE_URL is not a database URL; valid ones look like "
            "sqlite:////path/to/herd.db or postgresql://user:password@host/herd."
        ) from None


def _was_undone(error: BaseException) -> bool:
    """Return whether the database said that it undid the transaction for others' sake."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, DBAPIError):
            return getattr(cause.orig, "sqlstate", None) in UNDONE
        cause = cause.__cause__
    return False
