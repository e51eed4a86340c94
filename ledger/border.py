"""The border: every statement of the ledger passes here, and foreign exceptions pass no further.

What a constraint refuses comes out as `Violation`, with the constraint's name, and the journal
says in the ledger's words what it means.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from ledger.backend import Backend
from ledger.errors import LedgerBusy, LedgerError, LedgerFault, LedgerMisconfigured
from ledger.postgres import POSTGRES
from ledger.sqlite import SQLITE

Params = tuple[object, ...]

_BACKENDS = {backend.name: backend for backend in (SQLITE, POSTGRES)}
_SAVEPOINT = "ledger_savepoint"
_INFO_KEY = "ledger_backend"


class Violation(LedgerError):
    """A constraint refused. Internal: the journal turns it into what it means."""

    code = "ledger_violation"
    sentence = "constraint {name} refused"

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


def dialect_of(conn: Connection) -> Backend:
    """Return the backend of a connection's dialect, with the connection unchecked.

    Raises:
        LedgerMisconfigured: The ledger has no tables for that dialect.
    """
    backend = _BACKENDS.get(conn.dialect.name)
    if backend is None:
        raise LedgerMisconfigured(f"the ledger does not support {conn.dialect.name!r}")
    return backend


def backend_for(conn: Connection) -> Backend:
    """Return the backend of a connection's dialect, with the connection checked the first time.

    `conn.info` lives as long as the driver's connection does, and so do the settings checked.

    Raises:
        LedgerMisconfigured: An unknown dialect, or a connection that would not enforce the rules.
        LedgerBusy: Others hold a lock, or the connection is lost.
    """
    known: Backend | None = conn.info.get(_INFO_KEY)
    if known is not None:
        return known
    backend = dialect_of(conn)
    try:
        backend.check(conn)
    except SQLAlchemyError as error:  # the first statement may well be the one that finds a lock
        _translate(conn, error)
    conn.info[_INFO_KEY] = backend
    return backend


def execute(conn: Connection, sql: str, params: Params = ()) -> None:
    """Execute one statement.

    In the driver's own words: SQLAlchemy's compiled constructs, though cached, cost as much again
    as the insert does (`tests/bench/ledger.py`).

    Raises:
        Violation: A constraint refused.
        LedgerBusy: Others hold a lock, or the connection is lost.
        LedgerFault: Anything else.
    """
    try:
        conn.exec_driver_sql(dialect_of(conn).spell(sql), params)
    except SQLAlchemyError as error:
        _translate(conn, error)


def write(conn: Connection, sql: str, params: Params) -> None:
    """Execute a statement that writes, so that a refusal leaves the transaction usable.

    Raises:
        LedgerMisconfigured: The connection would not enforce the rules.
        LedgerError: As `execute`.
    """
    if backend_for(conn).statement_is_savepoint:
        execute(conn, sql, params)
    else:
        with savepoint(conn):
            execute(conn, sql, params)


def fetch(conn: Connection, sql: str, params: Params = ()) -> Sequence[Any]:
    """Return every row of a query.

    Raises:
        LedgerBusy: Others hold a lock, or the connection is lost.
        LedgerFault: Anything else.
    """
    try:
        return conn.exec_driver_sql(dialect_of(conn).spell(sql), params).fetchall()
    except SQLAlchemyError as error:
        _translate(conn, error)


@contextmanager
def savepoint(conn: Connection) -> Iterator[None]:
    """Do all of the block or none of it; the caller's transaction continues either way."""
    execute(conn, f"SAVEPOINT {_SAVEPOINT}")
    try:
        yield
    except BaseException:  # even an interrupt must not leave half a batch to be committed
        if not conn.invalidated:  # with the connection, the transaction is gone as a whole
            execute(conn, f"ROLLBACK TO SAVEPOINT {_SAVEPOINT}")
            execute(conn, f"RELEASE SAVEPOINT {_SAVEPOINT}")
        raise
    execute(conn, f"RELEASE SAVEPOINT {_SAVEPOINT}")


def _translate(conn: Connection, error: SQLAlchemyError) -> NoReturn:
    cause = error.orig if isinstance(error, DBAPIError) else None
    reason = str(cause or error).partition("\n")[0]
    if isinstance(error, DBAPIError) and cause is not None:
        backend = dialect_of(conn)
        if error.connection_invalidated or backend.is_busy(cause):
            raise LedgerBusy(reason) from error
        name = backend.violated(cause)
        if name is not None:
            raise Violation(name) from error
    raise LedgerFault(reason) from error
