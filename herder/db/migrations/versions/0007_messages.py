"""Inboxes, and which message an order came by."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Take the database to this version."""
    op.add_column(
        "account", sa.Column("messages", sa.BigInteger(), server_default="0", nullable=False)
    )
    op.add_column("orders", sa.Column("message", sa.Text(), nullable=True))
    op.create_table(
        "message",
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("in_reply_to", sa.Text(), nullable=True),
        sa.Column("order_id", sa.Text(), nullable=True),
        sa.Column("tags", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["account"], ["account.name"], name=op.f("fk_message_account")),
        sa.ForeignKeyConstraint(["order_id"], ["orders.id"], name=op.f("fk_message_order_id")),
        sa.PrimaryKeyConstraint("account", "number", name=op.f("pk_message")),
    )
    op.create_index("ix_message_at_us", "message", ["at_us"], unique=False)
    op.create_index(
        "ix_message_order_id",
        "message",
        ["order_id"],
        unique=True,
        sqlite_where=sa.text("order_id IS NOT NULL"),
        postgresql_where=sa.text("order_id IS NOT NULL"),
    )
    op.create_index(
        "ix_message_passing",
        "message",
        ["account", "number"],
        unique=False,
        sqlite_where=sa.text("order_id IS NULL"),
        postgresql_where=sa.text("order_id IS NULL"),
    )
    op.create_table(
        "message_key",
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("idempotency_key", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("order_id", sa.Text(), nullable=True),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["account"], ["account.name"], name=op.f("fk_message_key_account")),
        sa.PrimaryKeyConstraint("account", "idempotency_key", name=op.f("pk_message_key")),
    )
