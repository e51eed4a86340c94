"""Rows as types: what is written for each of many, and how that becomes a statement's parameters.

A row is a tuple whose fields are named and typed; the names of the parameters are made from the
fields, here and nowhere else, so that who fills a row cannot miss one or misspell it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

from sqlalchemy import BindParameter, Column, Connection, Executable, bindparam

Row = TypeVar("Row", bound=NamedTuple)


def given(field: str, column: Column[Any] | None = None) -> BindParameter[Any]:
    """Make the parameter that a field of a row fills.

    SQLAlchemy keeps the names of columns for itself where a table is updated, so it is not of them.

    Args:
        field: the field's name.
        column: the column whose kind the value is of, where the statement does not say so.
    """
    return bindparam(f"v_{field}", type_=None if column is None else column.type)


@dataclass(frozen=True, slots=True)
class Each(Generic[Row]):
    """A statement that is executed for each of many rows.

    Attributes:
        kind: of the rows.
        statement: its parameters are those that are `given` by the fields, all of them.
    """

    kind: type[Row]
    statement: Executable

    def parameters(self, rows: Iterable[Row]) -> list[dict[str, Any]]:
        """Return the parameters of the statement."""
        names = [f"v_{field}" for field in self.kind._fields]
        return [dict(zip(names, row, strict=True)) for row in rows]

    def __call__(self, connection: Connection, rows: Sequence[Row]) -> None:
        """Execute it, if there are any rows."""
        if rows:
            connection.execute(self.statement, self.parameters(rows))
