"""Hellos to workers, through the broker, before they are sent orders."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Take the database to this version."""
    for name, value in (
        ("hello", "1"),
        ("answered", "0"),
        ("hellos_sent", "0"),
        ("hello_heard_s", "0"),
        ("unclaimed", "0"),
    ):
        column = sa.Column(name, sa.BigInteger(), server_default=value, nullable=False)
        op.add_column("worker", column)
    kind = sa.Boolean(name="proven")
    proven: sa.Column[bool] = sa.Column("proven", kind, server_default=sa.false(), nullable=False)
    op.add_column("worker", proven)
