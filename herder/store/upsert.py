"""An insert that knows what to do where the row is there already.

To look first and insert then is no answer: two who look at once both find nothing.
"""

from __future__ import annotations

from sqlalchemy import Connection, Table
from sqlalchemy.dialects import postgresql, sqlite


def insert_or(connection: Connection, table: Table) -> postgresql.Insert | sqlite.Insert:
    """Return an insert into a table; its `on_conflict_do_…` say what else.

    Args:
        connection: whose database it is for.
        table: what is inserted into.
    """
    if connection.dialect.name == "sqlite":
        return sqlite.insert(table)
    return postgresql.insert(table)
