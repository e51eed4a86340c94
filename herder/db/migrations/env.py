"""Alembic's entry: runs migrations on the connection that it was lent."""

from __future__ import annotations

from alembic import context

from herder.db.tables import metadata


def include_object(_object: object, name: str | None, kind: str, *_rest: object) -> bool:
    """Leave out the ledger's tables: they have a schema of their own."""
    return not (kind == "table" and name is not None and name.startswith("ledger_"))


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    include_object=include_object,
    transaction_per_migration=False,
)
context.run_migrations()
