"""Accounts, their API keys and their grants."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, Index, Table, Text, text

from herder.db.tables.metadata import metadata

account = Table(
    "account",
    metadata,
    Column("name", Text, primary_key=True),
    Column("created_us", BigInteger, nullable=False),
    # What is empty here is as the policy has it.
    Column("max_open_orders", BigInteger),
    Column("tokens_per_minute", BigInteger),
    Column("open_orders", BigInteger, nullable=False, server_default="0"),
    Column("tokens_until_us", BigInteger, nullable=False, server_default="0"),
    # The number of the newest message in its inbox.
    Column("messages", BigInteger, nullable=False, server_default="0"),
)

api_key = Table(
    "api_key",
    metadata,
    Column("id", Text, primary_key=True),
    Column("account", Text, ForeignKey("account.name"), nullable=False),
    Column("name", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("scopes", Text, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("expires_us", BigInteger),
    Column("revoked_us", BigInteger),
    Column("max_fee", BigInteger),
    Column("spending_limit", BigInteger),
    # Of the fees of its orders: what is held now, and what was charged.
    Column("held", BigInteger, nullable=False, server_default="0"),
    Column("charged", BigInteger, nullable=False, server_default="0"),
    Index("ix_api_key_account", "account"),
)

# What an account is given anew in each period of the calendar: `herder.accounts.grants`.
grants = Table(
    "grants",
    metadata,
    Column("id", Text, primary_key=True),
    Column("account", Text, ForeignKey("account.name"), nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("every", Text, nullable=False),
    Column("note", Text, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    # When its first period begins, and the one that is to be posted next.
    Column("first_us", BigInteger, nullable=False),
    Column("next_us", BigInteger, nullable=False),
    Column("periods", BigInteger, nullable=False, server_default="0"),
    Column("ended_us", BigInteger),
    Column("failure", Text),
    Index("ix_grants_account", "account"),
)
_live = text("ended_us IS NULL")
Index("ix_grants_due", grants.c.next_us, sqlite_where=_live, postgresql_where=_live)
