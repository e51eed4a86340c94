"""Cancellation, re-bids, deadlines, limits of accounts, aging."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_MAY_EXPIRE = "start_by_us IS NOT NULL AND state IN ('queued', 'dispatched')"


def _columns() -> Iterator[tuple[str, sa.Column[Any]]]:
    for name, value in (("aging_s", "0"), ("max_open_orders", "10000"), ("tokens_per_minute", "0")):
        yield "policy", sa.Column(name, sa.BigInteger(), server_default=value, nullable=False)
    for name in ("max_open_orders", "tokens_per_minute"):
        yield "account", sa.Column(name, sa.BigInteger(), nullable=True)
    for name in ("open_orders", "tokens_until_us"):
        yield "account", sa.Column(name, sa.BigInteger(), server_default="0", nullable=False)
    heard = sa.Column("heard_us", sa.BigInteger(), server_default="0", nullable=False)
    yield "clock", heard
    yield "orders", sa.Column("holds", sa.Integer(), server_default="1", nullable=False)
    yield "orders", sa.Column("start_by_us", sa.BigInteger(), nullable=True)
    begun: sa.Column[Any] = sa.Column(
        "begun", sa.Boolean(name="begun"), server_default=sa.false(), nullable=False
    )
    yield "orders", begun
    yield "orders", sa.Column("call_off", sa.Text(), nullable=True)
    yield "orders", sa.Column("overdue_heard_s", sa.BigInteger(), nullable=True)


def upgrade() -> None:
    """Take the database to this version."""
    for table, column in _columns():
        op.add_column(table, column)
    op.execute("UPDATE orders SET begun = (tries > 0)")
    # What runs now was given its limit by its worker; the herder's side of it begins here.
    op.execute(
        "UPDATE orders SET overdue_heard_s = (SELECT heard_s FROM clock) + run_limit_s + 3600 "
        "WHERE state = 'running'"
    )
    op.execute(
        "UPDATE account SET open_orders = (SELECT count(*) FROM orders "
        "WHERE orders.account = account.name "
        "AND orders.state IN ('queued', 'dispatched', 'running'))"
    )
    if op.get_bind().dialect.name == "sqlite":
        _number_the_outbox_for_ever()
    op.create_index(
        "ix_orders_start_by",
        "orders",
        ["start_by_us"],
        unique=False,
        sqlite_where=sa.text(_MAY_EXPIRE),
        postgresql_where=sa.text(_MAY_EXPIRE),
    )


def _number_the_outbox_for_ever() -> None:
    """SQLite gives the number of a deleted last row again, unless it is told not to."""
    op.create_table(
        "outbox_new",
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("order_id", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["order_id"], ["orders.id"], name=op.f("fk_outbox_order_id")),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_outbox")),
        sqlite_autoincrement=True,
    )
    op.execute("INSERT INTO outbox_new SELECT seq, order_id, attempt, created_us FROM outbox")
    op.drop_table("outbox")
    op.rename_table("outbox_new", "outbox")
