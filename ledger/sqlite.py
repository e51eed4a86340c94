"""All that is particular to SQLite: the DDL, its errors, what a connection must be like."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from importlib.resources import files

from sqlalchemy import Connection

from ledger.backend import Backend
from ledger.errors import LedgerMisconfigured

_REQUIRED = ("foreign_keys", "recursive_triggers")

PRAGMAS = (
    "PRAGMA foreign_keys=ON",
    "PRAGMA recursive_triggers=ON",
    "PRAGMA temp_store=MEMORY",
    "PRAGMA cache_size=-16384",
    "PRAGMA wal_autocheckpoint=4000",
)
"""The statements to execute on each new connection for the ledger, outside a transaction.

The first two are required. Without the first, SQLite checks no foreign key, and a transfer to an
account that does not exist would lose money. Without the second, `INSERT OR REPLACE` deletes a
transfer unseen by the trigger that refuses it.

The others make batches a third faster and may be left out: what SQLite notes to undo a statement
stays out of temporary files; 16 MiB of pages stay at hand (a transfer's id falls anywhere in its
index, and the default 2 MiB are outgrown by ten thousand transfers); the log is folded back every
16 MiB and not every 4.
"""

_UNIQUE = {
    "ledger_account.id": "ledger_account_id_key",
    "ledger_transfer.seq": "ledger_transfer_seq_key",
    "ledger_transfer.id": "ledger_transfer_id_key",
    "ledger_transfer.pending_id": "ledger_transfer_pending_id_key",
    "ledger_refundable.transfer_id": "ledger_refundable_transfer_id_key",
}


class Sqlite:
    """SQLite, as `ledger.backend.Backend` asks for it."""

    name = "sqlite"

    # A statement that fails undoes itself, its triggers' work included, and leaves the transaction
    # open (conflict resolution ABORT), so that one insert is its own savepoint.
    statement_is_savepoint = True

    # Whoever writes holds the one write lock.
    lock_accounts: str | None = None

    def ddl(self) -> Iterator[str]:
        """Yield the statements of `sql/sqlite.sql`, one by one.

        A script would commit (sqlite3 does).
        """
        statement = ""
        text = files("ledger").joinpath("sql/sqlite.sql").read_text("utf-8")
        for line in text.splitlines(keepends=True):
            if not statement and (line.isspace() or line.startswith("--")):
                continue
            statement += line
            if sqlite3.complete_statement(statement):  # knows that a trigger ends with END;
                yield statement
                statement = ""

    def spell(self, sql: str) -> str:
        """Return the statement as it is."""
        return sql

    def check(self, conn: Connection) -> None:
        """Refuse a connection on which the database would not enforce the ledger's rules.

        Raises:
            LedgerMisconfigured: One of the required pragmas is off, or nothing begins the
                transactions, so that each statement would commit itself.
        """
        for pragma in _REQUIRED:
            if conn.exec_driver_sql(f"PRAGMA {pragma}").scalar() != 1:
                raise LedgerMisconfigured(f"it must execute 'PRAGMA {pragma}=ON' when it is opened")
        driver = conn.connection.driver_connection
        if driver is None or not driver.in_transaction:
            raise LedgerMisconfigured("its transactions must begin with BEGIN IMMEDIATE")

    def is_busy(self, error: BaseException) -> bool:
        """Return whether another connection holds a lock."""
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the low byte is the family
        return code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)

    def violated(self, error: BaseException) -> str | None:
        """Return the name of the constraint or trigger that refused; None if none did."""
        if getattr(error, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_CONSTRAINT:
            return None
        what, _, rest = str(error).partition(" constraint failed")
        detail = rest.removeprefix(": ")
        match what:
            case "CHECK":
                return detail
            case "UNIQUE":
                return _UNIQUE.get(detail, detail)
            case "FOREIGN KEY":  # SQLite does not say which one
                return "foreign_key"
            case _:  # RAISE gives the name itself; NOT NULL and STRICT give a sentence
                return str(error)


SQLITE: Backend = Sqlite()
