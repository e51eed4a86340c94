"""Places in a long book: counted by its index alone, and beyond that estimated from a survey."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_QUEUED = "state = 'queued'"


def upgrade() -> None:
    """Take the database to this version."""
    op.drop_index("ix_orders_book", "orders")
    op.create_index(
        "ix_orders_book",
        "orders",
        ["model", sa.literal_column("rank DESC"), "seq", "tokens", "state"],
        unique=False,
        sqlite_where=sa.text(_QUEUED),
        postgresql_where=sa.text(_QUEUED),
    )
    op.create_table(
        "survey",
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("marks", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["model"], ["model.name"], name=op.f("fk_survey_model")),
        sa.PrimaryKeyConstraint("model", name=op.f("pk_survey")),
    )
