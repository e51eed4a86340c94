"""Orders that cannot be ended, until an operator has decided."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Take the database to this version."""
    op.create_table(
        "set_aside",
        sa.Column("order_id", sa.Text(), nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("was", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("ending", sa.JSON(), nullable=True),
        sa.ForeignKeyConstraint(["order_id"], ["orders.id"], name=op.f("fk_set_aside_order_id")),
        sa.PrimaryKeyConstraint("order_id", name=op.f("pk_set_aside")),
    )
