"""The herd's database on SQLite: who writes, and who waits.

WAL with `synchronous=FULL`, so that what was committed survives a power cut. Whatever writes
begins with BEGIN IMMEDIATE: a transaction that reads first and asks for the write lock later fails
as busy under load (99 of 100 tries, measured). SQLite's own lock is not fair (one process was seen
to commit once while another committed ten thousand times), so processes queue on a file lock
first, and the threads of one process on a mutex before it. A process that is stopped while it
holds the lock stops all that write.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DatabaseError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from herder.db.outages import CommitUnknown
from herder.db.sqlite_errors import DiskFailed, meaning, not_locked
from herder.errors import HerdUnavailable
from ledger import SQLITE_PRAGMAS, LedgerBusy, LedgerFault
from workers.transport.private_files import close_to_others, make_private

BUSY_TIMEOUT_S = 30
POOL_TIMEOUT_S = 10
"""The time that a read waits for a connection."""
KEPT_OPEN = 5
"""Connections that stay open; those beyond are closed after use."""


class Sqlite:
    """A file, or a database in memory, as `herder.db.database.Server` asks for it."""

    def __init__(self, url: URL, connections: int) -> None:
        """Open the engines; the first transaction connects."""
        self._connections = connections
        self._path = url.database if url.database not in (None, "", ":memory:") else None
        self._url = url.set(drivername="sqlite+pysqlite")
        self._mutex = threading.Lock()
        self._lock_file = -1
        self._writer = self._engine("BEGIN IMMEDIATE")
        # A database in memory lives in one connection: readers must share it.
        self._reader = self._writer if self._path is None else self._engine("BEGIN")
        self._short = self._writer if self._path is None else self._engine("BEGIN")

    @property
    def reads_at_once(self) -> bool:
        """As `herder.db.database.Database.reads_at_once`."""
        return self._path is not None

    def _engine(self, begin: str) -> Engine:
        # What lives in memory has no pool that could wait.
        pool: dict[str, Any] = (
            {}
            if self._path is None
            else {
                "pool_timeout": POOL_TIMEOUT_S,
                "max_overflow": max(0, self._connections - KEPT_OPEN),
                "pool_size": min(self._connections, KEPT_OPEN),
            }
        )
        engine = create_engine(
            self._url,
            hide_parameters=True,  # they are prompts, answers and nonces; errors are logged
            connect_args={"timeout": BUSY_TIMEOUT_S},
            **pool,
        )

        @event.listens_for(engine, "do_connect")
        def _do_connect(*_: object) -> None:
            self._keep_private()

        @event.listens_for(engine, "connect")
        def _on_connect(connection: Any, _record: object) -> None:
            connection.isolation_level = None  # the driver's own BEGIN would be a deferred one
            cursor = connection.cursor()
            cursor.execute("PRAGMA journal_mode=WAL")
            cursor.execute("PRAGMA synchronous=FULL")
            for pragma in SQLITE_PRAGMAS:  # what the ledger's guards and batches need
                cursor.execute(pragma)
            cursor.close()

        @event.listens_for(engine, "begin")
        def _on_begin(connection: Connection) -> None:
            if begin == "BEGIN":
                # It takes no lock, and waits for nobody: what SQLAlchemy does around a statement
                # costs as much as a short read.
                connection.connection.cursor().execute(begin)
            else:
                connection.exec_driver_sql(begin)

        return engine

    def _keep_private(self) -> None:
        """Have nobody else read the file, nor those beside it, which SQLite makes like it."""
        if self._path is not None:
            make_private(Path(self._path))
            close_to_others(*(Path(f"{self._path}{end}") for end in ("", "-wal", "-shm", ".lock")))

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """See `herder.db.database.Database.write`."""
        committing = False
        try:
            with (
                self._mutex,
                self._turn(),
                _translated(self._path),
                self._writer.begin() as connection,
            ):
                yield connection
                committing = True
        except DiskFailed as error:
            if committing:
                raise CommitUnknown(error.message) from error
            raise

    @contextmanager
    def read(self, *, short: bool) -> Iterator[Connection]:
        """See `herder.db.database.Database.read`."""
        if self._path is None:
            with self.write() as connection:
                yield connection
            return
        engine = self._short if short else self._reader
        with _translated(self._path), engine.begin() as connection:
            yield connection

    @contextmanager
    def _turn(self) -> Iterator[None]:
        if self._path is None:
            yield
            return
        if self._lock_file < 0:
            self._lock_file = _open_lock(Path(self._path))
        fcntl.flock(self._lock_file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._lock_file, fcntl.LOCK_UN)

    def close(self) -> None:
        """Give every connection back."""
        self._writer.dispose()
        self._reader.dispose()
        self._short.dispose()
        if self._lock_file >= 0:
            os.close(self._lock_file)
            self._lock_file = -1


def _open_lock(database: Path) -> int:
    try:
        return os.open(f"{database}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise not_locked(database, error) from None


@contextmanager
def _translated(path: str | None) -> Iterator[None]:
    try:
        yield
    except LedgerBusy as error:
        raise HerdUnavailable("The database is busy; try again.") from error
    except PoolTimeout as error:
        raise HerdUnavailable(
            "All connections of this program to the database are in use; try again."
        ) from error
    except (DatabaseError, LedgerFault) as error:
        # The ledger has no word for a full disk, and hands it on as the cause of its own.
        cause = error.__cause__ if isinstance(error, LedgerFault) else error
        said = meaning(str(cause.orig), path) if isinstance(cause, DatabaseError) else None
        if said is None:
            raise
        raise said from error
