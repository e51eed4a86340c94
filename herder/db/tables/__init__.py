"""The herder's tables, as SQLAlchemy knows them; `herder.db.migrations` makes and changes them.

Times are integer microseconds since the epoch (`_us`), or seconds of the listening clock
(`_heard_s`); amounts are integer winston. The ledger's tables stand beside these, under its own
names and its own rules.

The package hands on all of them, since the metadata must know every table.

May not enter: queries, but for the words of a partial index's condition.
"""

from herder.db.tables.accounts import account, api_key, grants
from herder.db.tables.herd import clock, duty, key, model, policy, survey, worker
from herder.db.tables.messages import message, message_key
from herder.db.tables.metadata import Serial, metadata
from herder.db.tables.orders import (
    IS_OUT,
    IS_QUEUED,
    MAY_EXPIRE,
    event,
    in_state,
    order_text,
    orders,
    outbox,
    set_aside,
)
from herder.db.tables.webhooks import IS_PENDING, webhook_delivery, webhook_endpoint

__all__ = [
    "metadata",
    "Serial",
    "policy",
    "model",
    "survey",
    "key",
    "worker",
    "clock",
    "duty",
    "account",
    "api_key",
    "grants",
    "orders",
    "in_state",
    "IS_QUEUED",
    "IS_OUT",
    "MAY_EXPIRE",
    "order_text",
    "set_aside",
    "outbox",
    "event",
    "message",
    "message_key",
    "webhook_endpoint",
    "webhook_delivery",
    "IS_PENDING",
]
