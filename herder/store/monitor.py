"""SQL of the monitor: what happened since it looked last, and what is out with the herd now."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, bindparam, func, select

from herder.db.tables import IS_OUT, event, orders, outbox


class Happening(NamedTuple):
    """Something that happened to an order, and the order as it stands now.

    Attributes:
        seq: rises from event to event; one that was committed late may come after a higher one.
        kind: as `herder.store.orders.add_events` wrote it.
    """

    seq: int
    kind: str
    model: str
    submitted_us: int
    started_us: int | None
    ended_us: int | None
    prompt_tokens: int
    generated: int
    charged: int
    returned: int


_HAPPENINGS = (
    select(
        event.c.seq,
        event.c.kind,
        orders.c.model,
        orders.c.submitted_us,
        orders.c.started_us,
        orders.c.ended_us,
        orders.c.prompt_tokens,
        orders.c.generated,
        orders.c.charged,
        orders.c.returned,
    )
    .join(orders, orders.c.id == event.c.order_id)
    .order_by(event.c.seq)
)
_AFTER = _HAPPENINGS.where(event.c.seq > bindparam("after")).limit(bindparam("limit"))
_THESE = _HAPPENINGS.where(event.c.seq.in_(bindparam("seqs", expanding=True)))
_LAST = select(func.max(event.c.seq))
_OUT = (
    select(orders.c.model, orders.c.state, func.count())
    .where(IS_OUT)
    .group_by(orders.c.model, orders.c.state)
)
_DISPATCHED = (
    select(event.c.order_id)
    .where(event.c.kind == "dispatched")
    .group_by(event.c.order_id)
    .order_by(func.min(event.c.seq))
    .limit(bindparam("limit"))
)
_UNSENT = select(func.count()).select_from(outbox)


def happened_after(connection: Connection, seq: int, limit: int) -> list[Happening]:
    """Return the events after a given one, in the order of their numbers, a page at a time."""
    return _read(connection.execute(_AFTER, {"after": seq, "limit": limit}))


def happened(connection: Connection, seqs: Iterable[int]) -> list[Happening]:
    """Return the events of these numbers that are there."""
    wanted = sorted(seqs)
    return _read(connection.execute(_THESE, {"seqs": wanted})) if wanted else []


def _read(rows: Iterable[Row[Any]]) -> list[Happening]:
    return [Happening._make(row) for row in rows]


def last_event(connection: Connection) -> int:
    """Return the number of the last event; 0 if there is none."""
    return int(connection.execute(_LAST).scalar_one() or 0)


def dispatched(connection: Connection, limit: int) -> list[str]:
    """Read which orders were sent out first, by the first time that each was.

    For a herd of a few orders: it reads every event that there ever was.
    """
    return [str(found) for found in connection.execute(_DISPATCHED, {"limit": limit}).scalars()]


def count_out(connection: Connection) -> dict[tuple[str, str], int]:
    """Return the number of orders that are out with the herd, by model and state."""
    return {(model, state): int(count) for model, state, count in connection.execute(_OUT)}


def unsent(connection: Connection) -> int:
    """Messages in the outbox: those that no herder has cleared yet."""
    return int(connection.execute(_UNSENT).scalar_one())
