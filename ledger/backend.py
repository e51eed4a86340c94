"""What the ledger must know of a kind of database: the interface that `sqlite.py` fills."""

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
    """

    name: str
    statement_is_savepoint: bool

    def ddl(self) -> Iterator[str]:
        """The statements that make the tables."""

    def check(self, conn: Connection) -> None:
        """Refuse a connection on which the rules would not be enforced."""

    def is_busy(self, error: BaseException) -> bool:
        """Whether a lock held by another connection is the reason."""

    def violated(self, error: BaseException) -> str | None:
        """The name of the constraint that refused; None if none did."""
