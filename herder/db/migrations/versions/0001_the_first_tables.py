"""The first tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

import ledger

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Take the database to this version."""
    ledger.create_schema(op.get_bind())
    op.create_table(
        "account",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_account")),
    )
    op.create_table(
        "clock",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("heard_s", sa.BigInteger(), nullable=False),
        sa.Column("marked_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_clock")),
    )
    op.create_table(
        "key",
        sa.Column("kid", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("jwk", sa.JSON(), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("revoked_us", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("kid", name=op.f("pk_key")),
    )
    op.create_table(
        "model",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("prompt_fee", sa.BigInteger(), nullable=False),
        sa.Column("fee_per_token", sa.BigInteger(), nullable=False),
        sa.Column("context", sa.BigInteger(), nullable=True),
        sa.Column("last_fee", sa.BigInteger(), server_default="1", nullable=False),
        sa.Column("last_needed", sa.BigInteger(), server_default="1", nullable=False),
        sa.Column("last_dispatch_us", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_model")),
    )
    op.create_table(
        "policy",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("fee_bump", sa.Text(), nullable=False),
        sa.Column("auto_multiplier_max", sa.Text(), nullable=False),
        sa.Column("auto_half_life_s", sa.BigInteger(), nullable=False),
        sa.Column("bytes_per_word", sa.BigInteger(), nullable=False),
        sa.Column("charge_unused", sa.Boolean(name="charge_unused"), nullable=False),
        sa.Column("default_model", sa.Text(), nullable=False),
        sa.Column("revenue_stripes", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_policy")),
    )
    op.create_table(
        "orders",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("rank", sa.BigInteger(), nullable=False),
        sa.Column("fee", sa.BigInteger(), nullable=False),
        sa.Column("needed", sa.BigInteger(), nullable=False),
        sa.Column("prompt_fee", sa.BigInteger(), nullable=False),
        sa.Column("fee_per_token", sa.BigInteger(), nullable=False),
        sa.Column("charge_unused", sa.Boolean(name="charge_unused"), nullable=False),
        sa.Column("bid_factor", sa.Text(), nullable=False),
        sa.Column("automatic", sa.Boolean(name="automatic"), nullable=False),
        sa.Column("words", sa.BigInteger(), nullable=False),
        sa.Column("tokens", sa.BigInteger(), nullable=False),
        sa.Column("reference", sa.Text(), nullable=True),
        sa.Column("idempotency_key", sa.Text(), nullable=True),
        sa.Column("fingerprint", sa.Text(), nullable=True),
        sa.Column("hold_id", sa.Text(), nullable=False),
        sa.Column("run_limit_s", sa.BigInteger(), nullable=True),
        sa.Column("submitted_us", sa.BigInteger(), nullable=False),
        sa.Column("attempt", sa.Integer(), server_default="0", nullable=False),
        sa.Column("nonce", sa.Text(), nullable=True),
        sa.Column(
            "attempt_open",
            sa.Boolean(name="attempt_open"),
            server_default=sa.false(),
            nullable=False,
        ),
        sa.Column("dispatched_us", sa.BigInteger(), nullable=True),
        sa.Column("deadline_heard_s", sa.BigInteger(), nullable=True),
        sa.Column("instance", sa.Text(), nullable=True),
        sa.Column("worker", sa.Text(), nullable=True),
        sa.Column("weights", sa.Text(), nullable=True),
        sa.Column("started_us", sa.BigInteger(), nullable=True),
        sa.Column("tries", sa.Integer(), server_default="0", nullable=False),
        sa.Column("dispatches", sa.Integer(), server_default="0", nullable=False),
        sa.Column("ended_us", sa.BigInteger(), nullable=True),
        sa.Column("finish_reason", sa.Text(), nullable=True),
        sa.Column("prompt_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("generated", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("charged", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("returned", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("refunded", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("failure", sa.JSON(none_as_null=True), nullable=True),
        sa.ForeignKeyConstraint(["account"], ["account.name"], name=op.f("fk_orders_account")),
        sa.ForeignKeyConstraint(["model"], ["model.name"], name=op.f("fk_orders_model")),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_orders")),
        sa.UniqueConstraint(
            "account", "idempotency_key", name=op.f("uq_orders_account_idempotency_key")
        ),
        sa.UniqueConstraint("id", name=op.f("uq_orders_id")),
    )
    op.create_index("ix_orders_account", "orders", ["account", "seq"], unique=False)
    op.create_index(
        "ix_orders_book",
        "orders",
        ["model", sa.literal_column("rank DESC"), "seq"],
        unique=False,
        sqlite_where=sa.text("state = 'queued'"),
        postgresql_where=sa.text("state = 'queued'"),
    )
    op.create_index(
        "ix_orders_out",
        "orders",
        ["instance"],
        unique=False,
        sqlite_where=sa.text("state IN ('dispatched', 'running')"),
        postgresql_where=sa.text("state IN ('dispatched', 'running')"),
    )
    op.create_table(
        "worker",
        sa.Column("instance", sa.Text(), nullable=False),
        sa.Column("kid", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("slots", sa.Integer(), nullable=False),
        sa.Column("context", sa.BigInteger(), nullable=False),
        sa.Column("tokens_per_s", sa.BigInteger(), nullable=False),
        sa.Column("weights", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("beat", sa.BigInteger(), nullable=False),
        sa.Column("strays", sa.Integer(), nullable=False),
        sa.Column("heard_s", sa.BigInteger(), nullable=False),
        sa.Column("joined_us", sa.BigInteger(), nullable=False),
        sa.Column("seen_us", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["kid"], ["key.kid"], name=op.f("fk_worker_kid")),
        sa.PrimaryKeyConstraint("instance", name=op.f("pk_worker")),
    )
    op.create_index("ix_worker_model", "worker", ["model", "state"], unique=False)
    op.create_table(
        "event",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("order_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("instance", sa.Text(), nullable=True),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["order_id"], ["orders.id"], name=op.f("fk_event_order_id")),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_event")),
    )
    op.create_index(op.f("ix_event_order_id"), "event", ["order_id"], unique=False)
    op.create_table(
        "order_text",
        sa.Column("order_id", sa.Text(), nullable=False),
        sa.Column("request", sa.JSON(), nullable=False),
        sa.Column("answer", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["order_id"], ["orders.id"], name=op.f("fk_order_text_order_id")),
        sa.PrimaryKeyConstraint("order_id", name=op.f("pk_order_text")),
    )
    op.create_table(
        "outbox",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("order_id", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["order_id"], ["orders.id"], name=op.f("fk_outbox_order_id")),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_outbox")),
    )
