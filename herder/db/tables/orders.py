"""Orders with their texts and events, the book, and the outbox."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    ForeignKey,
    Index,
    Integer,
    Table,
    Text,
    UniqueConstraint,
    and_,
    false,
    literal_column,
    text,
)

from herder.db.tables.metadata import Serial, metadata

orders = Table(
    "orders",
    metadata,
    Column("seq", Serial, primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("account", Text, ForeignKey("account.name"), nullable=False),
    Column("model", Text, ForeignKey("model.name"), nullable=False),
    Column("state", Text, nullable=False),
    Column("rank", BigInteger, nullable=False),
    Column("fee", BigInteger, nullable=False),
    Column("needed", BigInteger, nullable=False),
    Column("prompt_fee", BigInteger, nullable=False),
    Column("fee_per_token", BigInteger, nullable=False),
    Column("charge_unused", Boolean(name="charge_unused"), nullable=False),
    Column("bid_factor", Text, nullable=False),
    Column("automatic", Boolean(name="automatic"), nullable=False),
    Column("words", BigInteger, nullable=False),
    Column("tokens", BigInteger, nullable=False),
    Column("reference", Text),
    Column("idempotency_key", Text),
    Column("fingerprint", Text),
    Column("api_key", Text),
    Column("hold_id", Text, nullable=False),
    Column("holds", Integer, nullable=False, server_default="1"),
    Column("start_by_us", BigInteger),
    Column("run_limit_s", BigInteger),
    Column("submitted_us", BigInteger, nullable=False),
    Column("attempt", Integer, nullable=False, server_default="0"),
    Column("nonce", Text),
    Column("attempt_open", Boolean(name="attempt_open"), nullable=False, server_default=false()),
    Column("dispatched_us", BigInteger),
    Column("deadline_heard_s", BigInteger),
    Column("instance", Text),
    Column("worker", Text),
    Column("weights", Text),
    Column("started_us", BigInteger),
    Column("begun", Boolean(name="begun"), nullable=False, server_default=false()),
    Column("call_off", Text),
    Column("overdue_heard_s", BigInteger),
    Column("tries", Integer, nullable=False, server_default="0"),
    Column("dispatches", Integer, nullable=False, server_default="0"),
    Column("ended_us", BigInteger),
    Column("finish_reason", Text),
    Column("prompt_tokens", BigInteger, nullable=False, server_default="0"),
    Column("generated", BigInteger, nullable=False, server_default="0"),
    Column("charged", BigInteger, nullable=False, server_default="0"),
    Column("returned", BigInteger, nullable=False, server_default="0"),
    Column("refunded", BigInteger, nullable=False, server_default="0"),
    Column("failure", JSON(none_as_null=True)),
    # The message that it came by, which its end answers.
    Column("message", Text),
    UniqueConstraint("account", "idempotency_key"),
)

_queued = text("state = 'queued'")
_out = text("state IN ('dispatched', 'running')")
# The book: the head of this index is the order that is served next. Tokens are here so that whoever
# counts places, and what is to be decoded before them, reads no orders; and so is the state, or
# SQLite reads each order to see again what the index's condition says.
Index(
    "ix_orders_book",
    orders.c.model,
    orders.c.rank.desc(),
    orders.c.seq,
    orders.c.tokens,
    orders.c.state,
    sqlite_where=_queued,
    postgresql_where=_queued,
)
Index("ix_orders_out", orders.c.instance, sqlite_where=_out, postgresql_where=_out)
Index("ix_orders_account", orders.c.account, orders.c.seq)
_ended = text("ended_us IS NOT NULL")
# What an account used between two days: `herder.accounts.usage`.
Index(
    "ix_orders_ended",
    orders.c.account,
    orders.c.ended_us,
    sqlite_where=_ended,
    postgresql_where=_ended,
)
_may_expire = text("start_by_us IS NOT NULL AND state IN ('queued', 'dispatched')")
Index(
    "ix_orders_start_by",
    orders.c.start_by_us,
    sqlite_where=_may_expire,
    postgresql_where=_may_expire,
)


def in_state(*states: str) -> ColumnElement[bool]:
    """Orders in these states, in words and not in bound values.

    What the partial indexes are found by: SQLite takes one only for the words of its condition, in
    their order, and reads the whole table otherwise; where a bound value might be such a word, it
    prepares the statement anew each time; and a plan that PostgreSQL keeps for any value reads
    every order there is.
    """
    words: list[ColumnElement[str]] = [literal_column(f"'{state}'") for state in states]
    return orders.c.state == words[0] if len(words) == 1 else orders.c.state.in_(words)


IS_QUEUED = in_state("queued")
IS_OUT = in_state("dispatched", "running")
MAY_EXPIRE = and_(orders.c.start_by_us.is_not(None), in_state("queued", "dispatched"))

order_text = Table(
    "order_text",
    metadata,
    Column("order_id", Text, ForeignKey("orders.id"), primary_key=True),
    Column("request", JSON, nullable=False),
    Column("answer", Text),
    # What the caller noted with it, as JSON: `herder.store.kept`.
    Column("notes", Text),
    # What the model thought before the answer, and the generated tokens that went into it.
    Column("reasoning", Text),
    Column("reasoning_tokens", BigInteger),
)

# Orders that cannot be ended, until an operator has decided: `herder.orders.set_aside`. How each
# was to end is kept, but for the text, which stands where all texts do.
set_aside = Table(
    "set_aside",
    metadata,
    Column("order_id", Text, ForeignKey("orders.id"), primary_key=True),
    Column("at_us", BigInteger, nullable=False),
    Column("was", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("ending", JSON(none_as_null=True)),
)

outbox = Table(
    "outbox",
    metadata,
    Column("seq", Serial, primary_key=True),
    Column("order_id", Text, ForeignKey("orders.id"), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    # A herder remembers the numbers that it published: none may come again for another message.
    sqlite_autoincrement=True,
)

event = Table(
    "event",
    metadata,
    Column("seq", Serial, primary_key=True),
    Column("order_id", Text, ForeignKey("orders.id"), nullable=False, index=True),
    Column("kind", Text, nullable=False),
    Column("at_us", BigInteger, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("instance", Text),
    Column("detail", Text),
)
