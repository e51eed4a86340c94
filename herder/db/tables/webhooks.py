"""Endpoints of accounts, and what is sent to them."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    Table,
    Text,
    literal_column,
    text,
)

from herder.db.tables.metadata import Serial, metadata

# Who is told of what: `herder/webhooks`.
webhook_endpoint = Table(
    "webhook_endpoint",
    metadata,
    Column("id", Text, primary_key=True),
    Column("account", Text, ForeignKey("account.name"), nullable=False),
    Column("url", Text, nullable=False),
    Column("types", Text, nullable=False),
    Column("include_text", Boolean(name="include_text"), nullable=False),
    Column("enabled", Boolean(name="enabled"), nullable=False),
    # Why it is not enabled, and since when nothing has reached it.
    Column("why", Text),
    Column("failing_since_us", BigInteger),
    Column("created_us", BigInteger, nullable=False),
    # Sealed by the herder's key that `sealed_by` names.
    Column("secret", Text, nullable=False),
    Column("old_secret", Text),
    Column("old_until_us", BigInteger),
    Column("sealed_by", Text, nullable=False),
    Index("ix_webhook_endpoint_account", "account"),
)

webhook_delivery = Table(
    "webhook_delivery",
    metadata,
    Column("seq", Serial, primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    # No foreign key: an order must end also while its endpoint is being deleted.
    Column("endpoint", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("data", JSON, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("state", Text, nullable=False, server_default="pending"),
    # When it is tried next, or, while somebody tries it, when that one is given up.
    Column("due_us", BigInteger, nullable=False),
    Column("claim", Text),
    Column("failures", Integer, nullable=False, server_default="0"),
    Column("tries", Integer, nullable=False, server_default="0"),
    Column("tried_us", BigInteger),
    Column("status", Integer),
    Column("trouble", Text),
    Index("ix_webhook_delivery_endpoint", "endpoint", "seq"),
    Index("ix_webhook_delivery_created", "created_us"),
)

_pending = text("state = 'pending'")
Index(
    "ix_webhook_delivery_due",
    webhook_delivery.c.due_us,
    webhook_delivery.c.state,
    sqlite_where=_pending,
    postgresql_where=_pending,
)
# From one endpoint that has anything pending to the next, however much it is.
Index(
    "ix_webhook_delivery_waiting",
    webhook_delivery.c.endpoint,
    webhook_delivery.c.due_us,
    webhook_delivery.c.state,
    sqlite_where=_pending,
    postgresql_where=_pending,
)
IS_PENDING = webhook_delivery.c.state == literal_column("'pending'")
