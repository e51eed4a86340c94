"""SQL about who sends which message of a webhook now, and what came of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, bindparam, false, func, or_, select, update

from herder.db.tables import IS_PENDING, webhook_delivery, webhook_endpoint
from herder.store.deliveries import COLUMNS, Delivery, to_delivery
from herder.store.rows import Each, given
from herder.store.webhooks import Endpoint, to_endpoint

LOOKED_AT = 200
"""Deliveries that one claim looks at: more than it takes, since each endpoint gets few at once."""

_WITH_ENDPOINT = webhook_delivery.outerjoin(
    webhook_endpoint, webhook_endpoint.c.id == webhook_delivery.c.endpoint
)
_DUE = (
    select(
        webhook_delivery.c.seq,
        webhook_delivery.c.endpoint,
        webhook_endpoint.c.enabled,
        webhook_endpoint.c.sealed_by,
    )
    .select_from(_WITH_ENDPOINT)
    .where(IS_PENDING, webhook_delivery.c.due_us <= bindparam("now_us"))
    .order_by(webhook_delivery.c.due_us)
    .limit(bindparam("limit"))
)
_DUE_OF = _DUE.where(webhook_delivery.c.endpoint == bindparam("endpoint"))
# Each endpoint that has anything pending, from one to the next by the index: a backlog of one is
# passed over in one step.
_FIRST = select(func.min(webhook_delivery.c.endpoint).label("endpoint")).where(IS_PENDING)
_WAITING = _FIRST.cte("waiting", recursive=True)
_WAITING = _WAITING.union_all(
    select(
        select(func.min(webhook_delivery.c.endpoint))
        .where(IS_PENDING, webhook_delivery.c.endpoint > _WAITING.c.endpoint)
        .scalar_subquery()
    ).where(_WAITING.c.endpoint.is_not(None))
)
_SINCE = (
    select(func.min(webhook_delivery.c.due_us))
    .where(IS_PENDING, webhook_delivery.c.endpoint == _WAITING.c.endpoint)
    .scalar_subquery()
)
# Without those of another herder's key: they stay due, and would be looked at again each time.
_ENDPOINTS_DUE = (
    select(_WAITING.c.endpoint, _SINCE.label("since_us"))
    .outerjoin_from(_WAITING, webhook_endpoint, webhook_endpoint.c.id == _WAITING.c.endpoint)
    .where(
        _WAITING.c.endpoint.is_not(None),
        or_(
            webhook_endpoint.c.id.is_(None),
            webhook_endpoint.c.enabled == false(),
            webhook_endpoint.c.sealed_by == bindparam("kid"),
        ),
    )
)
_CLAIM = (
    update(webhook_delivery)
    .where(webhook_delivery.c.seq.in_(bindparam("seqs", expanding=True)))
    .values(claim=bindparam("by"), due_us=bindparam("until_us"))
)
_BY_SEQS = (
    select(*COLUMNS)
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


class FinishedRow(NamedTuple):
    """The outcome of a try.

    Attributes:
        seq: the message's number.
        claim: whose try it was; what somebody else claimed meanwhile stays as it is.
        state: `pending`, `delivered` or `dead`.
        due_us: when it is tried next, where it is pending.
        failures: tries that failed since it was queued, or replayed.
        tried_us: the time.
        status: what the receiver answered, if it did.
        trouble: what was wrong, if anything was.
    """

    seq: int
    claim: str
    state: str
    due_us: int
    failures: int
    tried_us: int
    status: int | None
    trouble: str | None


_FINISH = Each(
    FinishedRow,
    update(webhook_delivery)
    .where(
        webhook_delivery.c.seq == given("seq"),
        webhook_delivery.c.claim == given("claim"),
        IS_PENDING,
    )
    .values(
        state=given("state"),
        due_us=given("due_us"),
        failures=given("failures"),
        tries=webhook_delivery.c.tries + 1,
        tried_us=given("tried_us"),
        status=given("status"),
        trouble=given("trouble"),
        claim=None,
    ),
)


@dataclass(frozen=True, slots=True)
class Places:
    """The deliveries that a herder may have in flight.

    Attributes:
        kid: the key whose secrets it opens; what another sealed is for another herder.
        free: how many more messages it may send.
        rooms: how many more each endpoint may get that gets some already.
        room: how many any other may get.
    """

    kid: str
    free: int
    rooms: Mapping[str, int]
    room: int


def is_due(connection: Connection, now_us: int, places: Places) -> bool:
    """Return whether there is anything to send, or to give up, that a herder has a place for."""
    return any(_choose(connection, now_us, places, lock=False))


def claim(
    connection: Connection, now_us: int, places: Places, *, until_us: int, by: str
) -> list[int]:
    """Take deliveries that are due; nobody else takes them before the claim's end.

    What they say is read afterwards (`claimed`): what cannot be read must not undo the claim.

    What is for an endpoint that is disabled or gone is given up here.

    Args:
        connection: the transaction.
        now_us: the time.
        places: how many, and whose.
        until_us: when the claim ends, if nothing is heard of it.
        by: who claims: drawn anew for each claim.

    Returns:
        Their numbers.
    """
    chosen, dropped = _choose(connection, now_us, places, lock=True)
    if dropped:
        connection.execute(_DROP, {"seqs": sorted(dropped)})
    if chosen:
        connection.execute(_CLAIM, {"seqs": sorted(chosen), "by": by, "until_us": until_us})
    return chosen


def _choose(
    connection: Connection, now_us: int, places: Places, *, lock: bool
) -> tuple[list[int], list[int]]:
    """Choose what is to be sent now and what is to be given up, longest due first."""
    left = dict(places.rooms)
    chosen: list[int] = []
    dropped: list[int] = []
    looked_at: set[str] = set()

    def look(query: Select[Any], values: dict[str, Any]) -> int:
        if lock:
            query = query.with_for_update(of=webhook_delivery, skip_locked=True)
        rows = connection.execute(query, {"now_us": now_us, **values}).all()
        for row in rows:
            looked_at.add(row.endpoint)
            room = left.get(row.endpoint, places.room)
            if not row.enabled:
                dropped.append(row.seq)
            elif row.sealed_by == places.kid and room > 0 and len(chosen) < places.free:
                left[row.endpoint] = room - 1
                chosen.append(row.seq)
        return len(rows)

    if look(_DUE, {"limit": LOOKED_AT}) < LOOKED_AT or len(chosen) >= places.free:
        return chosen, dropped
    # The backlog of a few may hide all the others.
    mine = {"kid": places.kid}
    waiting = [row for row in connection.execute(_ENDPOINTS_DUE, mine) if row.since_us <= now_us]
    others = sorted((row.since_us, row.endpoint) for row in waiting)
    for _, endpoint in [one for one in others if one[1] not in looked_at][:LOOKED_AT]:
        if len(chosen) >= places.free:
            break
        look(_DUE_OF, {"endpoint": endpoint, "limit": places.room})
    return chosen, dropped


def claimed(connection: Connection, seqs: Sequence[int]) -> list[tuple[Delivery, Endpoint]]:
    """Deliveries that were claimed, and where they go; without those whose endpoint is gone."""
    found = [to_delivery(row) for row in connection.execute(_BY_SEQS, {"seqs": list(seqs)})]
    named = sorted({one.endpoint for one in found})
    rows = connection.execute(_ENDPOINTS, {"ids": named})
    there = {row.id: to_endpoint(row) for row in rows}
    return [(one, there[one.endpoint]) for one in found if one.endpoint in there]


def finish(connection: Connection, rows: Iterable[FinishedRow]) -> None:
    """Write down what came of tries; what somebody else claimed meanwhile stays as it is."""
    _FINISH(connection, sorted(rows, key=lambda row: row.seq))  # as all locks of them go
