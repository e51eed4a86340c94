"""The herder's tables, as SQLAlchemy knows them; `herder/migrations` makes and changes them.

Times are integer microseconds since the epoch (`_us`), or seconds of the listening clock
(`_heard_s`); amounts are integer winston. The ledger's tables stand beside these, under its own
names and its own rules.
"""

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
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    and_,
    false,
    literal_column,
    text,
)

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)

Serial = BigInteger().with_variant(Integer, "sqlite")
"""SQLite numbers rows by itself only in a column that is called INTEGER."""

policy = Table(
    "policy",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("fee_bump", Text, nullable=False),
    Column("auto_multiplier_max", Text, nullable=False),
    Column("auto_half_life_s", BigInteger, nullable=False),
    Column("bytes_per_word", BigInteger, nullable=False),
    Column("charge_unused", Boolean(name="charge_unused"), nullable=False),
    Column("default_model", Text, nullable=False),
    Column("revenue_stripes", Integer, nullable=False),
    Column("aging_s", BigInteger, nullable=False, server_default="0"),
    Column("max_open_orders", BigInteger, nullable=False, server_default="10000"),
    Column("tokens_per_minute", BigInteger, nullable=False, server_default="0"),
)

model = Table(
    "model",
    metadata,
    Column("name", Text, primary_key=True),
    Column("prompt_fee", BigInteger, nullable=False),
    Column("fee_per_token", BigInteger, nullable=False),
    Column("context", BigInteger),
    Column("last_fee", BigInteger, nullable=False, server_default="1"),
    Column("last_needed", BigInteger, nullable=False, server_default="1"),
    Column("last_dispatch_us", BigInteger),
    # The number of the last change of how waiting weighs, and of the one that its book is ranked
    # for: `herder/market/ranking.py`.
    Column("rank_epoch", BigInteger, nullable=False, server_default="0"),
    Column("ranked_epoch", BigInteger, nullable=False, server_default="0"),
)

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
)

# Orders that cannot be ended, until an operator has decided: `herder/set_aside.py`. How each was to
# end is kept, but for the text, which stands where all texts do.
set_aside = Table(
    "set_aside",
    metadata,
    Column("order_id", Text, ForeignKey("orders.id"), primary_key=True),
    Column("at_us", BigInteger, nullable=False),
    Column("was", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("ending", JSON(none_as_null=True)),
)

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

# How long a book was that is too long to be counted for each caller:
# `herder.market.queue_estimate`.
survey = Table(
    "survey",
    metadata,
    Column("model", Text, ForeignKey("model.name"), primary_key=True),
    Column("at_us", BigInteger, nullable=False),
    Column("marks", JSON, nullable=False),
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

key = Table(
    "key",
    metadata,
    Column("kid", Text, primary_key=True),
    Column("role", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("jwk", JSON, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("revoked_us", BigInteger),
)

worker = Table(
    "worker",
    metadata,
    Column("instance", Text, primary_key=True),
    Column("kid", Text, ForeignKey("key.kid"), nullable=False),
    Column("name", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("slots", Integer, nullable=False),
    Column("context", BigInteger, nullable=False),
    Column("tokens_per_s", BigInteger, nullable=False),
    Column("weights", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("beat", BigInteger, nullable=False),
    Column("strays", Integer, nullable=False),
    Column("heard_s", BigInteger, nullable=False),
    Column("joined_us", BigInteger, nullable=False),
    Column("seen_us", BigInteger, nullable=False),
    Index("ix_worker_model", "model", "state"),
)

clock = Table(
    "clock",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("heard_s", BigInteger, nullable=False),
    Column("marked_us", BigInteger, nullable=False),
    Column("heard_us", BigInteger, nullable=False, server_default="0"),
)

duty = Table(
    "duty",
    metadata,
    Column("name", Text, primary_key=True),
    Column("holder", Text),
    Column("until_us", BigInteger, nullable=False, server_default="0"),
    Column("due_us", BigInteger, nullable=False, server_default="0"),
    Column("runs", BigInteger, nullable=False, server_default="0"),
    Column("failures", BigInteger, nullable=False, server_default="0"),
    Column("overruns", BigInteger, nullable=False, server_default="0"),
    Column("busy_us", BigInteger, nullable=False, server_default="0"),
)
"""Background duties of the herders: `holder` has a guarded one until `until_us`, and it is to be
done again at `due_us`; the rest counts what all of them did since the herd began."""
