"""The inboxes of accounts."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Column, ForeignKey, Index, Table, Text, text

from herder.db.tables.metadata import metadata

# The inboxes. A number is drawn under the lock of the account's row: of two messages to one account
# the one with the lower number was committed first, so that who reads on after one misses none.
message = Table(
    "message",
    metadata,
    Column("account", Text, ForeignKey("account.name"), primary_key=True),
    Column("number", BigInteger, primary_key=True),
    Column("at_us", BigInteger, nullable=False),
    Column("in_reply_to", Text),
    # The order whose end it tells: at most one message does. Its text stays in `order_text`.
    Column("order_id", Text, ForeignKey("orders.id")),
    Column("tags", JSON, nullable=False),
    Index("ix_message_at_us", "at_us"),
)

_with_order, _without_order = text("order_id IS NOT NULL"), text("order_id IS NULL")
# Not of those without an order: SQLite would take it for the one row of them that there is.
Index(
    "ix_message_order_id",
    message.c.order_id,
    unique=True,
    sqlite_where=_with_order,
    postgresql_where=_with_order,
)
# What an inbox forgets when it is full: all but the answers of orders.
Index(
    "ix_message_passing",
    message.c.account,
    message.c.number,
    sqlite_where=_without_order,
    postgresql_where=_without_order,
)

# Messages that came with an idempotency key: the same key is the same message.
message_key = Table(
    "message_key",
    metadata,
    Column("account", Text, ForeignKey("account.name"), primary_key=True),
    Column("idempotency_key", Text, primary_key=True),
    Column("fingerprint", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("order_id", Text),
    Column("created_us", BigInteger, nullable=False),
)
