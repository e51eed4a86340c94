"""Models and policy, workers and their keys, clocks and duties of herders."""

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
    false,
)

from herder.db.tables.metadata import metadata

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

# How long a book was that is too long to be counted for each caller:
# `herder.market.queue_estimate`.
survey = Table(
    "survey",
    metadata,
    Column("model", Text, ForeignKey("model.name"), primary_key=True),
    Column("at_us", BigInteger, nullable=False),
    Column("marks", JSON, nullable=False),
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
    # Whether the broker's messages reach it: `herder.herd.hellos`. The hello that is to come back,
    # and the last that did; how many were sent in vain, and when the next is due on the listening
    # clock; attempts in a row that it did not claim, and whether it claimed one since.
    Column("hello", BigInteger, nullable=False, server_default="1"),
    Column("answered", BigInteger, nullable=False, server_default="0"),
    Column("hellos_sent", BigInteger, nullable=False, server_default="0"),
    Column("hello_heard_s", BigInteger, nullable=False, server_default="0"),
    Column("unclaimed", BigInteger, nullable=False, server_default="0"),
    Column("proven", Boolean(name="proven"), nullable=False, server_default=false()),
    Column("clock_ahead_s", BigInteger, nullable=False, server_default="0"),
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
