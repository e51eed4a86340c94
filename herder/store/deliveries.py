"""SQL about what webhooks deliver: messages, who sends them now, and what came of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import (
    Connection,
    Row,
    bindparam,
    delete,
    exists,
    func,
    or_,
    select,
    update,
)

from herder.store.upsert import insert_or
from herder.store.webhooks import Endpoint, to_endpoint
from herder.tables import IS_PENDING, webhook_delivery, webhook_endpoint

LOOKED_AT = 200
"""Deliveries that one claim looks at: more than it takes, since each endpoint gets few at once."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message to an endpoint, as it stands.

    Attributes:
        id: the message's id, permanent.
        subject: what it is about: an order's id.
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
    data: dict[str, Any] = field(repr=False)
    created_us: int
    state: str
    due_us: int
    claim: str | None
    failures: int
    tries: int
    tried_us: int | None
    status: int | None
    trouble: str | None


def _to_delivery(row: Row[Any]) -> Delivery:
    return Delivery(**row._mapping)


def add_deliveries(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Queue messages. One that is there already stays as it is: ids are derived, and permanent."""
    if rows:
        add = insert_or(connection, webhook_delivery)
        connection.execute(
            add.on_conflict_do_nothing(index_elements=["id"]), [dict(row) for row in rows]
        )


_IS_DUE = select(exists().where(IS_PENDING, webhook_delivery.c.due_us <= bindparam("now_us")))
_DUE = (
    select(webhook_delivery.c.seq, webhook_delivery.c.endpoint, webhook_endpoint.c.enabled)
    .select_from(
        webhook_delivery.outerjoin(
            webhook_endpoint, webhook_endpoint.c.id == webhook_delivery.c.endpoint
        )
    )
    .where(
        IS_PENDING,
        webhook_delivery.c.due_us <= bindparam("now_us"),
        webhook_delivery.c.endpoint.not_in(bindparam("busy", expanding=True)),
        # A secret that another key sealed is for another herder to use.
        or_(
            webhook_endpoint.c.id.is_(None),
            webhook_endpoint.c.sealed_by == bindparam("kid"),
        ),
    )
    .order_by(webhook_delivery.c.due_us)
    .limit(LOOKED_AT)
    .with_for_update(of=webhook_delivery, skip_locked=True)
)
_CLAIM = (
    update(webhook_delivery)
    .where(webhook_delivery.c.seq.in_(bindparam("seqs", expanding=True)))
    .values(claim=bindparam("by"), due_us=bindparam("until_us"))
)
_BY_SEQS = (
    select(webhook_delivery)
    .where(webhook_delivery.c.seq.in_(bindparam("seqs", expanding=True)))
    .order_by(webhook_delivery.c.seq)
)
_ENDPOINTS = select(webhook_endpoint).where(
    webhook_endpoint.c.id.in_(bindparam("ids", expanding=True))
)
_DROP = (
    update(webhook_delivery)
    .where(webhook_delivery.c.seq.in_(bindparam("seqs", expanding=True)), IS_PENDING)
    .values(state="dead", claim=None, trouble="disabled")
)
_FINISH = (
    update(webhook_delivery)
    .where(
        webhook_delivery.c.seq == bindparam("which"),
        webhook_delivery.c.claim == bindparam("by"),
        IS_PENDING,
    )
    .values(
        state=bindparam("now_state"),
        due_us=bindparam("now_due_us"),
        failures=bindparam("now_failures"),
        tries=webhook_delivery.c.tries + 1,
        tried_us=bindparam("at_us"),
        status=bindparam("now_status"),
        trouble=bindparam("now_trouble"),
        claim=None,
    )
)


def is_due(connection: Connection, now_us: int) -> bool:
    """Whether anything is to be sent now."""
    return bool(connection.execute(_IS_DUE, {"now_us": now_us}).scalar_one())


def claim(
    connection: Connection,
    *,
    now_us: int,
    until_us: int,
    by: str,
    kid: str,
    limit: int,
    rooms: Mapping[str, int],
    room: int,
) -> list[tuple[Delivery, Endpoint]]:
    """Take deliveries that are due; nobody else takes them before the claim's end.

    What is for an endpoint that is disabled or gone is given up here.

    Args:
        connection: the transaction.
        now_us: the time.
        until_us: when the claim ends, if nothing is heard of it.
        by: who claims: drawn anew for each claim.
        kid: the key whose secrets this herder opens.
        limit: how many at most.
        rooms: how many more each endpoint may get that gets some already.
        room: how many any other may get.
    """
    left = dict(rooms)
    taken: list[int] = []
    while len(taken) < limit:
        busy = sorted(endpoint for endpoint, more in left.items() if more <= 0)
        rows = connection.execute(_DUE, {"now_us": now_us, "busy": busy, "kid": kid}).all()
        chosen: list[int] = []
        for row in rows:
            more = left.get(row.endpoint, room)
            if row.enabled and more > 0 and len(taken) + len(chosen) < limit:
                left[row.endpoint] = more - 1
                chosen.append(row.seq)
        if dropped := [row.seq for row in rows if not row.enabled]:
            connection.execute(_DROP, {"seqs": sorted(dropped)})
        if chosen:
            values = {"seqs": sorted(chosen), "by": by, "until_us": until_us}
            connection.execute(_CLAIM, values)
        taken += chosen
        if len(rows) < LOOKED_AT or not (chosen or dropped):
            break
    return _claimed(connection, taken) if taken else []


def _claimed(connection: Connection, seqs: Sequence[int]) -> list[tuple[Delivery, Endpoint]]:
    found = [
        _to_delivery(row)
        for row in connection.execute(
            _BY_SEQS,
            {"seqs": list(seqs)},
        )
    ]
    named = sorted({one.endpoint for one in found})
    rows = connection.execute(_ENDPOINTS, {"ids": named})
    there = {row.id: to_endpoint(row) for row in rows}
    return [(one, there[one.endpoint]) for one in found if one.endpoint in there]


def finish(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write down what came of tries; what somebody else claimed meanwhile stays as it is."""
    if rows:
        connection.execute(_FINISH, [dict(row) for row in rows])


def get_delivery(connection: Connection, message: str) -> Delivery | None:
    """A message by its id."""
    row = connection.execute(
        select(webhook_delivery).where(webhook_delivery.c.id == bindparam("which")),
        {"which": message},
    ).one_or_none()
    return None if row is None else _to_delivery(row)


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
        select(webhook_delivery)
        .where(webhook_delivery.c.endpoint == endpoint)
        .order_by(webhook_delivery.c.seq.desc())
        .limit(limit)
    )
    if state is not None:
        query = query.where(webhook_delivery.c.state == state)
    if before_seq is not None:
        query = query.where(webhook_delivery.c.seq < before_seq)
    return [_to_delivery(row) for row in connection.execute(query)]


def counts(connection: Connection, endpoint: str) -> dict[str, int]:
    """How many messages to an endpoint stand where; for people, since it reads them all."""
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
