"""Events for accounts, written down in the transaction in which they happen.

An event costs an account without endpoints one look into an index, for all the orders that end in
a transaction together; one with endpoints, an insert besides. Nothing is sent from here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID, uuid5

from sqlalchemy import Connection

from herder.domain.kept import NO_TEXT
from herder.domain.order import ENDED, Order
from herder.domain.receipts import result_of
from herder.store import deliveries as delivery_sql
from herder.store import webhooks as webhook_sql
from herder.store.deliveries import NewDelivery

ORDER_TYPES = tuple(f"order.{state.value}" for state in sorted(ENDED))
"""One for each way in which an order ends."""

MESSAGE_TYPE = "message.created"
"""A message came into the account's inbox."""

TYPES = (*ORDER_TYPES, MESSAGE_TYPE)
"""The types that an endpoint may listen to."""

TEST_TYPE = "webhook.test"
"""The type of a test message, which is sent whatever the endpoint listens to."""

_MESSAGES = UUID("6f0b7a2e-0e57-4c0e-9a43-3c6a1d1f7b52")


def message_id(kind: str, subject: str, endpoint: str) -> str:
    """Return the id of the message that tells an endpoint of something: always the same.

    A receiver that takes each id once is told of each thing once.

    Args:
        kind: the event's type.
        subject: what it happened to: an order ends once, so that its id will do.
        endpoint: who is told.
    """
    return f"msg_{uuid5(_MESSAGES, f'{kind} {subject} {endpoint}').hex}"


def queue_for(
    connection: Connection,
    endpoint: str,
    kind: str,
    data: Mapping[str, Any],
    subject: str,
    now_us: int,
) -> str:
    """Have one endpoint told of something, whatever it listens to; the message's id."""
    row = _row(endpoint, kind, data, subject, now_us)
    delivery_sql.add_deliveries(connection, [row])
    return row.id


def queue_ends(connection: Connection, ended: Sequence[Order], now_us: int) -> None:
    """Have accounts told how their orders ended, all those of a transaction at once."""
    if not ended:
        return
    listening = webhook_sql.listeners(connection, {order.account for order in ended})
    rows: list[NewDelivery] = []
    for order in ended if listening else ():
        kind = f"order.{order.state.value}"
        told = [one for one, types in listening.get(order.account, ()) if kind in types]
        if told:
            data = told_of(order)
            rows += [_row(endpoint, kind, data, order.id, now_us) for endpoint in told]
    delivery_sql.add_deliveries(connection, rows)


def queue_messages(
    connection: Connection, messages: Sequence[tuple[str, int, Mapping[str, Any]]], now_us: int
) -> None:
    """Have accounts told of messages that came into their inboxes, all those of a transaction.

    Args:
        connection: the transaction in which they come.
        messages: account, number in its inbox, and what is told, of each.
        now_us: the time.
    """
    if not messages:
        return
    listening = webhook_sql.listeners(connection, {account for account, _, _ in messages})
    rows = [
        _row(endpoint, MESSAGE_TYPE, data, f"{account} {number}", now_us)
        for account, number, data in messages
        for endpoint, types in listening.get(account, ())
        if MESSAGE_TYPE in types
    ]
    delivery_sql.add_deliveries(connection, rows)


def told_of(order: Order) -> dict[str, Any]:
    """Return an order as an event shows it.

    Its result without the text, which stands elsewhere.
    """
    told = result_of(order, NO_TEXT).to_dict()
    del told["usage"]["reasoning_tokens"]
    for kept_with_it in ("text", "text_deleted", "metadata", "request_id", "reasoning"):
        del told[kept_with_it]
    return told


def _row(
    endpoint: str, kind: str, data: Mapping[str, Any], subject: str, now_us: int
) -> NewDelivery:
    return NewDelivery(
        id=message_id(kind, subject, endpoint),
        endpoint=endpoint,
        type=kind,
        subject=subject,
        data=dict(data),
        created_us=now_us,
        due_us=now_us,
    )
