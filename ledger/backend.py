"""The interface to a kind of database, which `sqlite.py` and `postgres.py` implement."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from sqlalchemy import Connection


class Backend(Protocol):
    """One kind of database.

    Attributes:
        name: SQLAlchemy's name of the dialect.
        statement_is_savepoint: Whether a statement that fails undoes itself and leaves the
            transaction usable, so that a single insert needs no SAVEPOINT around it.
        lock_accounts: A query with a list of accounts' ids as its one parameter, which locks them
            in the order of their ids; None where a transaction that writes has locked everything.
    """

    name: str
    statement_is_savepoint: bool
    lock_accounts: str | None

    def ddl(self) -> Iterator[str]:
        """Yield the statements that make the tables."""

    def spell(self, sql: str) -> str:
        """Return a statement, written with `?` for parameters, as the driver wants it."""

    def check(self, conn: Connection) -> None:
        """Refuse a connection on which the rules would not be enforced."""

    def is_busy(self, error: BaseException) -> bool:
        """Return whether the same transaction, done again from its beginning, may succeed."""

    def violated(self, error: BaseException) -> str | None:
        """Return the name of the constraint that refused; None if none did."""
