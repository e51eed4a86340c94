"""The herd's database on PostgreSQL: many write at once, and nobody waits for long.

READ COMMITTED: what keeps two writers apart are the locks on rows that they take, in one order, and
the constraints. A transaction that does nothing for a third of a lease is ended by the server, so
that a herder stopped in mid-transaction stops nobody else, and nobody waits for a lock longer than
that, or, where leases are short, than the server takes twice to see that two wait for each other.
A connection that broke while it was not in use, as when the server was started again, is
replaced before it is used.

The driver, psycopg 3, is loaded by SQLAlchemy; what it raises is understood in `postgres_errors`,
what a connection is told first stands in `postgres_session`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from herder.db.outages import CommitUnknown
from herder.db.postgres_errors import Lost, Meanings, hide_values
from herder.db.postgres_session import prepare_sessions
from herder.db.psycopg_parts import connection_type, in_time
from herder.errors import HerdUnavailable, SetupError
from ledger import LedgerBusy, LedgerFault

KEPT_OPEN = 5
"""Connections of a pool that stay open; those beyond are closed after use."""

_statement_limit_s: ContextVar[float | None] = ContextVar("statement_limit_s", default=None)


@contextmanager
def statement_limit(seconds: float) -> Iterator[None]:
    """Have PostgreSQL end each statement of this thread's transactions that takes longer.

    It is raised as `HerdUnavailable`. Another database knows no such limit.

    Args:
        seconds: for one statement of a transaction that begins within the block.
    """
    token = _statement_limit_s.set(seconds)
    try:
        yield
    finally:
        _statement_limit_s.reset(token)


def _limit_statements(connection: Connection) -> None:
    """Costs a round trip, and only where a limit was set: none for an order."""
    limit_s = _statement_limit_s.get()
    if limit_s is not None:
        # Until the end of this transaction.
        limit_ms = max(1, int(limit_s * 1000))
        connection.exec_driver_sql(f"SET LOCAL statement_timeout = {limit_ms}")


class Postgres:
    """A database of a PostgreSQL server, as `herder.db.database.Server` asks for it."""

    def __init__(self, url: URL, lease_s: int, connections: int) -> None:
        """Open the engine; the first transaction connects.

        Raises:
            SetupError: the address names no database, or the driver is not installed.
        """
        if not url.database:
            raise SetupError(
                "HERD_DATABASE_URL names no database; a valid one looks like "
                "postgresql://user:password@host/herd."
            )
        self._meanings = Meanings(url)
        patience_s = max(1, lease_s // 3)
        self._writer = self._engine(url, patience_s, max_overflow=max(0, connections - KEPT_OPEN))
        # The same connections, each set as it is taken.
        reading = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        self._reader = self._writer.execution_options(**reading)
        self._short_pool = self._engine(url, patience_s, max_overflow=0)
        self._short = self._short_pool.execution_options(**reading)

    @staticmethod
    def _engine(url: URL, patience_s: int, **pool: int) -> Engine:
        """Build a pool of connections; none is opened before it is needed."""
        try:
            engine = create_engine(
                url.set(drivername="postgresql+psycopg"),
                isolation_level="READ COMMITTED",
                pool_pre_ping=True,
                hide_parameters=True,  # they are prompts, answers and nonces; errors are logged
                connect_args=_connect_args(url, patience_s),
                pool_size=KEPT_OPEN,
                **pool,
            )
        except ImportError:
            raise SetupError(
                "HERD_DATABASE_URL names PostgreSQL, whose driver is not installed; "
                "`pip install 'llama-herder[postgres]'` installs it."
            ) from None

        @event.listens_for(engine, "do_connect")
        def _do_connect(_dialect: object, _record: object, args: Any, given: Any) -> Any:
            return connection_type().connect(*args, **in_time(given))

        prepare_sessions(engine, patience_s)
        event.listen(engine, "handle_error", hide_values)
        return engine

    @property
    def reads_at_once(self) -> bool:
        """As `herder.db.database.Database.reads_at_once`."""
        return False

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """See `herder.db.database.Database.write`."""
        committing = False
        try:
            with self._translated(), self._writer.begin() as connection:
                _limit_statements(connection)
                yield connection
                committing = True
        except Lost as error:
            if committing:
                raise CommitUnknown(error.message) from error
            raise

    @contextmanager
    def read(self, *, short: bool) -> Iterator[Connection]:
        """See `herder.db.database.Database.read`."""
        engine = self._short if short else self._reader
        with self._translated(), engine.begin() as connection:
            _limit_statements(connection)
            yield connection

    def close(self) -> None:
        """Give every connection back."""
        self._writer.dispose()
        self._short_pool.dispose()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except LedgerBusy as error:
            raise HerdUnavailable("The database is busy; try again.") from error
        except PoolTimeout as error:
            raise HerdUnavailable(
                "All of this program's database connections are in use; try again."
            ) from error
        except (DBAPIError, LedgerFault) as error:
            # The ledger has no word for a full disk, and hands it on as the cause of its own.
            cause = error.__cause__ if isinstance(error, LedgerFault) else error
            meaning = self._meanings.meaning(cause) if isinstance(cause, DBAPIError) else None
            if meaning is None:
                raise
            raise meaning from error


def _connect_args(url: URL, patience_s: int) -> dict[str, object]:
    """Return the time limits of a connection, for those that the address does not set itself."""
    wanted: dict[str, object] = {
        "application_name": "llama-herder",
        "connect_timeout": max(2, patience_s),
        "keepalives_idle": patience_s,
        "keepalives_interval": max(1, patience_s // 3),
        "keepalives_count": 3,
        "tcp_user_timeout": 2 * patience_s * 1000,
    }
    return {name: value for name, value in wanted.items() if name not in url.query}
