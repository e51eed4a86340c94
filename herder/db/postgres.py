"""The herd's database on PostgreSQL: many write at once, and nobody waits for long.

READ COMMITTED: what keeps two writers apart are the locks on rows that they take, in one order, and
the constraints. A transaction that does nothing for a third of a lease is ended by the server, so
that a herder stopped in mid-transaction stops nobody else, and nobody waits for a lock longer than
that, or, where leases are short, than the server takes twice to see that two wait for each other.
A connection that broke while it was not in use, as when the server was started again, is
replaced before it is used.

The driver, psycopg 3, is loaded by SQLAlchemy, and only here is what it raises understood.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from sqlalchemy import URL, Connection, Engine, ExceptionContext, create_engine, event
from sqlalchemy.exc import DBAPIError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from herder.db.outages import CommitUnknown
from herder.db.psycopg_parts import connection_type, in_time, text_dumper
from herder.errors import HerdError, HerdUnavailable, SetupError
from ledger import LedgerBusy, LedgerFault
from ledger.postgres import POSTGRES

UNDONE = frozenset({"40001", "40P01", "55P03"})
"""SQLSTATEs of a transaction that was undone for others' sake: serialization_failure,
deadlock_detected, lock_not_available."""

_NO_TABLES = {"42P01", "42703", "3F000"}  # undefined table, column, schema
_NO_RIGHT = "42501"
_READ_ONLY = "25006"

_GAVE_UP = "57014"  # query_canceled, by a time limit of the server's
_WRONG_VALUE = "22"  # class data_exception
_DAMAGED = {"XX001", "XX002"}  # data, or an index, corrupted
_SHORT_OF = ("53", "58")
"""Classes of SQLSTATEs: of resources such as disk space and memory, and errors of the system."""

# A server that turns a connection away gives its reason in words only.
_TURNED_AWAY = re.compile(
    r"authentication failed|no password supplied|pg_hba\.conf|role .* does not exist"
    r"|not permitted to log in|permission denied for database",
    re.IGNORECASE,
)
_NO_DATABASE = re.compile(r"database .* does not exist", re.IGNORECASE)
_NO_HOST = re.compile(r"could not translate host name|resolve host", re.IGNORECASE)
_NO_TLS = re.compile(r"SSL|certificate|GSSAPI|channel binding", re.IGNORECASE)
_ITS_WORDS = re.compile(r"(?:FATAL|ERROR|PANIC):\s+([^\n]+)")
MAX_QUOTED = 200

KEPT_OPEN = 5
"""Connections of a pool that stay open; those beyond are closed after use."""

# Of two who wait for each other the server undoes one, once it has looked, `deadlock_timeout` after
# it began to wait. Were they to give up as soon, both would be undone.
# What was committed survives a power cut: a server may be told otherwise, and is not believed.
_SESSION = """
SELECT set_config(
        'lock_timeout',
        least(greatest(%(patience_ms)s, 2 * deadlock.setting::int), 2 * %(patience_ms)s)::text,
        false
    ),
    set_config('idle_in_transaction_session_timeout', %(patience_ms)s::text, false),
    set_config(
        'synchronous_commit', replace(current_setting('synchronous_commit'), 'off', 'on'), false
    )
FROM pg_settings AS deadlock WHERE deadlock.name = 'deadlock_timeout'
"""


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
        self._database = url.database
        self._server = f"{url.host or 'this machine'}:{url.port or 5432}"
        self._password = str(url.password or "")
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

        @event.listens_for(engine, "connect")
        def _on_connect(connection: Any, _record: object) -> None:
            connection.autocommit = True  # else a rollback would undo the settings
            connection.execute(_SESSION, {"patience_ms": patience_s * 1000})
            connection.autocommit = False
            connection.adapters.register_dumper(str, text_dumper())

        event.listen(engine, "handle_error", _hide_values)
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
        except _Lost as error:
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
            meaning = self._meaning(cause) if isinstance(cause, DBAPIError) else None
            if meaning is None:
                raise
            raise meaning from error

    def _meaning(self, error: DBAPIError) -> HerdError | None:
        cause = error.orig
        state = getattr(cause, "sqlstate", None)
        if state in UNDONE:
            return HerdUnavailable("The database is busy; try again.")
        if state == _GAVE_UP:
            return HerdUnavailable("The database gave up what took it too long; try again.")
        if error.connection_invalidated or (cause is not None and POSTGRES.is_busy(cause)):
            return _Lost("The connection to the database was lost; try again.")
        if state in _NO_TABLES:
            return SetupError(
                "The database has no tables of this version; `herd init` brings it up to date."
            )
        if state == _NO_RIGHT:
            return SetupError(
                "The user in HERD_DATABASE_URL lacks the rights for this; use the one that "
                "created the tables."
            )
        if state == _READ_ONLY:
            return HerdUnavailable("The database does not accept writes; it may be a standby.")
        if state in _DAMAGED:
            return SetupError(f"The database is damaged: {self._quoted(str(cause))}.")
        if state is not None and state.startswith(_SHORT_OF):
            return _Unreachable(
                f"PostgreSQL at {self._server} cannot do this now: {self._quoted(str(cause))}; "
                f"try again later."
            )
        if error.statement is None and state is None:
            return self._not_connected(error)
        return None

    def _quoted(self, words: str) -> str:
        """Return the server's own words, on one line; never the password."""
        line = words.partition("\n")[0].strip()
        if self._password:
            line = line.replace(self._password, "***")
        return f'"{line[:MAX_QUOTED]}"'

    def _not_connected(self, error: DBAPIError) -> HerdError:
        """Return why no connection came about: the server says no, or nothing at all."""
        if isinstance(error, ProgrammingError):
            return SetupError("HERD_DATABASE_URL has an option that PostgreSQL does not know.")
        reason = str(error.orig)
        if _TURNED_AWAY.search(reason):
            return SetupError(
                f"PostgreSQL at {self._server} rejected the user and password in HERD_DATABASE_URL."
            )
        if _NO_DATABASE.search(reason):
            return SetupError(
                f"PostgreSQL at {self._server} has no database {self._database!r}; `createdb "
                f"{self._database}` creates it."
            )
        if said := _ITS_WORDS.search(reason):
            return _Unreachable(
                f"PostgreSQL at {self._server} accepts no connections: {self._quoted(said[1])}; "
                f"try again."
            )
        if _NO_HOST.search(reason):
            return _Unreachable(
                f"The host of PostgreSQL at {self._server} cannot be looked up; is "
                f"HERD_DATABASE_URL right?"
            )
        if _NO_TLS.search(reason):
            return SetupError(
                f"PostgreSQL at {self._server} and HERD_DATABASE_URL do not agree on encryption; "
                f"look at its sslmode and certificates."
            )
        return _Unreachable(f"PostgreSQL at {self._server} does not answer; try again.")


class _Unreachable(HerdUnavailable):
    """The server does not do what it is asked now; the message names it."""

    told_callers = "The herd's database is out of reach; try again."


class _Lost(HerdUnavailable):
    """The connection was lost: what it was about to do may have been done, if that was a commit."""


def _hide_values(context: ExceptionContext) -> None:
    """Leave out of an error what the server quotes of the values: errors are logged.

    It quotes them after its first line (`DETAIL: Failing row contains ...`), and within it where
    a value itself is wrong. What may say so is a prompt, an answer or a nonce.
    """
    cause, error = context.original_exception, context.sqlalchemy_exception
    words = str(cause)
    kept = words.partition("\n")[0]
    if (getattr(cause, "sqlstate", None) or "").startswith(_WRONG_VALUE):
        kept = kept.partition(': "')[0]
    if kept == words or error is None:
        return
    cause.args = (kept,)
    error.args = (str(error.args[0]).replace(words, kept), *error.args[1:])


def _connect_args(url: URL, patience_s: int) -> dict[str, object]:
    """Return how long to wait for a server that says nothing, unless the address itself says so."""
    wanted: dict[str, object] = {
        "application_name": "llama-herder",
        "connect_timeout": max(2, patience_s),
        "keepalives_idle": patience_s,
        "keepalives_interval": max(1, patience_s // 3),
        "keepalives_count": 3,
        "tcp_user_timeout": 2 * patience_s * 1000,
    }
    return {name: value for name, value in wanted.items() if name not in url.query}
