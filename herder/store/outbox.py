"""SQL about the outbox: messages that are to be published, born with the attempt that they name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, bindparam, delete, exists, insert, select

from herder.db.tables import in_state, order_text, orders, outbox
from herder.domain.order import Order, State
from herder.store.orders import REQUEST, to_order

_ADD = insert(outbox)
_JOIN = (
    select(outbox.c.seq.label("outbox_seq"), orders, REQUEST)
    .join(orders, orders.c.id == outbox.c.order_id)
    .outerjoin(order_text, order_text.c.order_id == orders.c.id)
    .where(outbox.c.attempt == orders.c.attempt, in_state(State.DISPATCHED))
    .order_by(outbox.c.seq)
)
_PENDING = _JOIN.where(
    outbox.c.created_us <= bindparam("until_us"), outbox.c.seq > bindparam("after")
).limit(bindparam("limit"))
_OF = _JOIN.where(outbox.c.order_id.in_(bindparam("ids", expanding=True)))
_OLD = select(exists().where(outbox.c.created_us <= bindparam("until_us")))
_DONE = delete(outbox).where(outbox.c.seq.in_(bindparam("seqs", expanding=True)))
_OF_USE = exists().where(
    orders.c.id == outbox.c.order_id,
    orders.c.attempt == outbox.c.attempt,
    in_state(State.DISPATCHED),
)
_STALE = delete(outbox).where(
    outbox.c.seq.in_(
        select(outbox.c.seq).where(~_OF_USE).order_by(outbox.c.seq).limit(bindparam("limit"))
    )
)


def add(connection: Connection, attempts: Sequence[tuple[str, int]], at_us: int) -> None:
    """Note that a message about each (order, attempt) is to be published."""
    connection.execute(
        _ADD,
        [{"order_id": one, "attempt": attempt, "created_us": at_us} for one, attempt in attempts],
    )


class Outgoing(NamedTuple):
    """A message that is to be published.

    Attributes:
        row: its number in the outbox.
        order: as it was dispatched.
        stored: what it asks, as it is stored; None where that is gone.
    """

    row: int
    order: Order
    stored: str | None


def pending(connection: Connection, *, until_us: int, after: int, limit: int) -> list[Outgoing]:
    """Messages that are to be published and that nobody published yet: those still of use.

    Args:
        connection: a transaction.
        until_us: only those that were noted by then.
        after: the number of the row behind which to begin.
        limit: how many at most.
    """
    values = {"until_us": until_us, "after": after, "limit": limit}
    return _outgoing(connection.execute(_PENDING, values))


def of_orders(connection: Connection, ids: Sequence[str]) -> list[Outgoing]:
    """Return the messages about orders that were dispatched just now."""
    return _outgoing(connection.execute(_OF, {"ids": list(ids)}))


def _outgoing(rows: Iterable[Row[Any]]) -> list[Outgoing]:
    return [Outgoing(row.outbox_seq, to_order(row), row.request) for row in rows]


def is_old(connection: Connection, until_us: int) -> bool:
    """Return whether the outbox holds rows that old, of use or not."""
    return bool(connection.execute(_OLD, {"until_us": until_us}).scalar_one())


def clear(connection: Connection, seqs: Sequence[int]) -> None:
    """Forget messages that were published."""
    if seqs:
        connection.execute(_DONE, {"seqs": list(seqs)})


def sweep(connection: Connection, limit: int) -> int:
    """Forget messages whose attempt is no longer waiting for a worker; how many that were."""
    return connection.execute(_STALE, {"limit": limit}).rowcount
