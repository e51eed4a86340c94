"""All that is particular to PostgreSQL: the DDL, the locks, what its errors mean.

It speaks of the driver (psycopg 3) only by what errors and connections carry, and imports nothing
of it: a herd on SQLite has none installed.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from importlib.resources import files

from sqlalchemy import Connection

from ledger.backend import Backend
from ledger.errors import LedgerMisconfigured

_AGAIN = {
    "40001",  # serialization_failure
    "40P01",  # deadlock_detected
    "55P03",  # lock_not_available: lock_timeout passed
    "57014",  # query_canceled: statement_timeout passed
    "53300",  # too_many_connections
    "25P03",  # idle_in_transaction_session_timeout
    "57P01",  # admin_shutdown
    "57P02",  # crash_shutdown
    "57P03",  # cannot_connect_now
    "57P05",  # idle_session_timeout
}
"""SQLSTATEs after which nothing was committed, and the same may work later."""

_CONNECTION = "08"
_INTEGRITY = "23"

_SETTINGS = """
SELECT current_setting('session_replication_role'), current_setting('transaction_isolation')
"""


class Postgres:
    """PostgreSQL, as `ledger.backend.Backend` asks for it."""

    name = "postgresql"

    # A statement that fails spoils the transaction, but for what a SAVEPOINT gives back.
    statement_is_savepoint = False

    # As strong as the updates that follow, and no stronger: it leaves checks of foreign keys alone.
    lock_accounts: str | None = (
        "SELECT id FROM ledger_account WHERE id = ANY(?) ORDER BY id FOR NO KEY UPDATE"
    )

    def ddl(self) -> Iterator[str]:
        """Yield the statements of `sql/postgres.sql`, one by one.

        A statement ends with a semicolon at the end of a line, but within a function's body, which
        `$$` begins and ends.
        """
        statement = ""
        text = files("ledger").joinpath("sql/postgres.sql").read_text("utf-8")
        for line in text.splitlines(keepends=True):
            if not statement and (line.isspace() or line.startswith("--")):
                continue
            statement += line
            if line.rstrip().endswith(";") and statement.count("$$") % 2 == 0:
                yield statement
                statement = ""

    def spell(self, sql: str) -> str:
        """Return the statement with psycopg's `%s` where a parameter stands."""
        return _spell(sql)

    def check(self, conn: Connection) -> None:
        """Refuse a connection on which the database would not enforce the ledger's rules.

        Raises:
            LedgerMisconfigured: Each statement would commit itself; or triggers would not fire; or
                the isolation is not that of READ COMMITTED, in which a transfer that another
                connection has just written under the same id is seen, and so told from a conflict.
        """
        driver = conn.connection.driver_connection
        if driver is None or driver.autocommit:
            raise LedgerMisconfigured("its transactions must begin with BEGIN, not commit at once")
        role, isolation = conn.exec_driver_sql(_SETTINGS).one()
        if role == "replica":
            raise LedgerMisconfigured(
                "session_replication_role must be 'origin', so that triggers fire"
            )
        if isolation != "read committed":
            raise LedgerMisconfigured(f"its isolation must be READ COMMITTED, not {isolation!r}")

    def is_busy(self, error: BaseException) -> bool:
        """Return whether a lock is held, a deadlock was broken, or the session ended."""
        state = _sqlstate(error)
        return state in _AGAIN or state.startswith(_CONNECTION)

    def violated(self, error: BaseException) -> str | None:
        """Return the name of the constraint or trigger that refused; None if none did."""
        if not _sqlstate(error).startswith(_INTEGRITY):
            return None
        diagnosis = getattr(error, "diag", None)
        # NOT NULL has no name before PostgreSQL 18: its sentence says which column it was.
        return getattr(diagnosis, "constraint_name", None) or str(error).partition("\n")[0]


def _sqlstate(error: BaseException) -> str:
    return getattr(error, "sqlstate", None) or ""


@lru_cache(maxsize=256)
def _spell(sql: str) -> str:
    return sql.replace("%", "%%").replace("?", "%s")


POSTGRES: Backend = Postgres()
