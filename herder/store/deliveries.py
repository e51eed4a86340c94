"""SQL about what webhooks deliver. Who sends it now: `herder.store.claims`.

What a message says is read as text and parsed row by row, so that one that cannot be read does not
keep the others from being read.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, Text, bindparam, cast, delete, func, select, update

from herder.db.tables import webhook_delivery
from herder.store.upsert import insert_or


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message to an endpoint, as it stands.

    Attributes:
        id: the message's id, permanent.
        subject: what it is about: an order's id.
        data: what it says; None where that cannot be read.
        state: `pending`, `delivered` or `dead`.
        due_us: when it is tried next, where it is pending.
        failures: tries that failed since it was queued, or replayed.
        tries: all of them.
        status: what the receiver answered last.
        trouble: what was wrong last.
    """

    seq: int
    id: str
    endpoint: str
    type: str
    subject: str
    data: dict[str, Any] | None = field(repr=False)
    created_us: int
    state: str
    due_us: int
    claim: str | None
    failures: int
    tries: int
    tried_us: int | None
    status: int | None
    trouble: str | None


class NewDelivery(NamedTuple):
    """A message that is to be sent; the fields are columns.

    Attributes:
        id: derived from what it tells, and whom, so that it is queued once.
        type: of the event.
        subject: what it is about: an order's id.
        data: what it says, as JSON has it.
        due_us: when it is sent.
    """

    id: str
    endpoint: str
    type: str
    subject: str
    data: dict[str, Any]
    created_us: int
    due_us: int


COLUMNS = tuple(
    cast(column, Text).label("data") if column.name == "data" else column
    for column in webhook_delivery.c
)
"""The columns that `to_delivery` reads."""


def to_delivery(row: Row[Any]) -> Delivery:
    """Return a row of `COLUMNS` as the message that it is."""
    return Delivery(**{**row._mapping, "data": _parsed(row.data)})


def _parsed(text: object) -> dict[str, Any] | None:
    try:
        found = json.loads(str(text))
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def add_deliveries(connection: Connection, rows: Sequence[NewDelivery]) -> None:
    """Queue messages. One that is there already stays as it is: ids are derived, and permanent."""
    if rows:
        add = insert_or(connection, webhook_delivery)
        connection.execute(
            add.on_conflict_do_nothing(index_elements=["id"]), [row._asdict() for row in rows]
        )


def get_delivery(connection: Connection, message: str) -> Delivery | None:
    """Return a message by its id."""
    row = connection.execute(
        select(*COLUMNS).where(webhook_delivery.c.id == bindparam("which")),
        {"which": message},
    ).one_or_none()
    return None if row is None else to_delivery(row)


def deliveries(
    connection: Connection,
    endpoint: str,
    *,
    state: str | None = None,
    before_seq: int | None = None,
    limit: int,
) -> list[Delivery]:
    """Messages to an endpoint, the newest first, a page at a time."""
    query = (
        select(*COLUMNS)
        .where(webhook_delivery.c.endpoint == endpoint)
        .order_by(webhook_delivery.c.seq.desc())
        .limit(limit)
    )
    if state is not None:
        query = query.where(webhook_delivery.c.state == state)
    if before_seq is not None:
        query = query.where(webhook_delivery.c.seq < before_seq)
    return [to_delivery(row) for row in connection.execute(query)]


def counts(connection: Connection, endpoint: str) -> dict[str, int]:
    """Return the number of messages to an endpoint by state; it reads them all."""
    rows = connection.execute(
        select(webhook_delivery.c.state, func.count())
        .where(webhook_delivery.c.endpoint == endpoint)
        .group_by(webhook_delivery.c.state)
    )
    return {state: int(count) for state, count in rows}


def ended_of(
    connection: Connection,
    endpoint: str,
    states: Collection[str],
    *,
    since_us: int | None,
    until_us: int | None,
    after_seq: int,
    limit: int,
) -> list[int]:
    """Messages to an endpoint that are pending no more, oldest first, a page at a time."""
    query = (
        select(webhook_delivery.c.seq)
        .where(
            webhook_delivery.c.endpoint == endpoint,
            webhook_delivery.c.seq > after_seq,
            webhook_delivery.c.state.in_(sorted(states)),
        )
        .order_by(webhook_delivery.c.seq)
        .limit(limit)
    )
    if since_us is not None:
        query = query.where(webhook_delivery.c.created_us >= since_us)
    if until_us is not None:
        query = query.where(webhook_delivery.c.created_us < until_us)
    return [int(seq) for seq in connection.execute(query).scalars()]


def replay(connection: Connection, seqs: Collection[int], now_us: int) -> int:
    """Have messages sent anew, under their old ids; says how many were not pending already."""
    changed = connection.execute(
        update(webhook_delivery)
        .where(webhook_delivery.c.seq.in_(sorted(seqs)), webhook_delivery.c.state != "pending")
        .values(state="pending", failures=0, due_us=now_us, claim=None)
    )
    return changed.rowcount


_OLD = (
    select(webhook_delivery.c.seq)
    .where(
        webhook_delivery.c.created_us < bindparam("before_us"),
        webhook_delivery.c.state != "pending",
    )
    .order_by(webhook_delivery.c.created_us)
    .limit(bindparam("limit"))
)


def old(connection: Connection, before_us: int, limit: int) -> list[int]:
    """Messages that are pending no more, and were queued before."""
    found = connection.execute(_OLD, {"before_us": before_us, "limit": limit})
    return [int(seq) for seq in found.scalars()]


def of_endpoint(connection: Connection, endpoint: str, limit: int) -> list[int]:
    """Messages to an endpoint, whatever became of them."""
    query = (
        select(webhook_delivery.c.seq)
        .where(webhook_delivery.c.endpoint == endpoint)
        .order_by(webhook_delivery.c.seq)
        .limit(limit)
    )
    return [int(seq) for seq in connection.execute(query).scalars()]


def forget(connection: Connection, seqs: Collection[int]) -> None:
    """Delete messages."""
    connection.execute(delete(webhook_delivery).where(webhook_delivery.c.seq.in_(sorted(seqs))))


def forget_ended(connection: Connection, seqs: Collection[int]) -> None:
    """Delete messages, but for those that were replayed meanwhile."""
    connection.execute(
        delete(webhook_delivery).where(
            webhook_delivery.c.seq.in_(sorted(seqs)), webhook_delivery.c.state != "pending"
        )
    )
