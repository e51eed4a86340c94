"""Making the tables. The DDL itself, with its reasons, stands in `sql/`, one file per database."""

from __future__ import annotations

from sqlalchemy import Connection

from ledger.border import dialect_of, execute

TABLE_PREFIX = "ledger_"
"""Every table, index and trigger of the ledger begins with it; they share the herder's database."""


def create(conn: Connection) -> None:
    """Make the tables, indexes and triggers, in the caller's transaction.

    Called once, by a migration. Never edited in place afterwards: a change is a migration of its
    own.

    Raises:
        LedgerMisconfigured: The ledger knows no such database.
        LedgerFault: The tables exist already, or cannot be made.
    """
    for statement in dialect_of(conn).ddl():
        execute(conn, statement)
