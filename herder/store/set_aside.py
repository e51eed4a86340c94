"""SQL about orders that were set aside: why, and how they were to end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, bindparam, delete, func, insert, select, update

from herder.db.tables import orders, set_aside
from herder.domain.order import Order, State
from herder.store.orders import get_orders
from herder.store.steps import EndedRow
from workers.transport.event_log import EventLog

_log = EventLog("herder.store.set_aside")


@dataclass(frozen=True, slots=True)
class Aside:
    """An order that was set aside.

    Attributes:
        order: as it stands.
        at_us: when it was set aside, in microseconds since the epoch.
        was: the state in which it stood before.
        reason: a sentence for operators.
        ending: how it was to end; None where that could not be worked out, or read.
    """

    order: Order
    at_us: int
    was: str
    reason: str
    ending: EndedRow | None


_ADD = insert(set_aside)
_PUT = (
    update(orders)
    .where(orders.c.seq == bindparam("which"))
    .values(
        state=State.SET_ASIDE.value,
        attempt_open=False,
        instance=bindparam("who"),
        deadline_heard_s=None,
        overdue_heard_s=None,
    )
)
_REMOVE = delete(set_aside).where(set_aside.c.order_id == bindparam("which"))
_ONE = select(set_aside).where(set_aside.c.order_id == bindparam("which"))
_AFTER = (
    select(set_aside)
    .where(set_aside.c.order_id > bindparam("after"))
    .order_by(set_aside.c.order_id)
    .limit(bindparam("limit"))
)
_COUNT = select(func.count()).select_from(set_aside)


def put(
    connection: Connection,
    order: Order,
    *,
    instance: str | None,
    at_us: int,
    reason: str,
    ending: EndedRow | None,
) -> None:
    """Set an order aside.

    Args:
        connection: the transaction, which has locked it.
        order: as it stands.
        instance: the worker whose outcome is kept in `ending`; None: nobody's is.
        at_us: the time.
        reason: a sentence for operators.
        ending: how it was to end, if that is known.
    """
    connection.execute(_PUT, {"which": order.seq, "who": instance})
    row = {"order_id": order.id, "at_us": at_us, "was": order.state.value, "reason": reason}
    connection.execute(_ADD, {**row, "ending": None if ending is None else ending.to_json()})


def remove(connection: Connection, order_id: str) -> None:
    """Forget that an order was set aside; the caller ends it, or lets it wait again."""
    connection.execute(_REMOVE, {"which": order_id})


def find(connection: Connection, order: Order) -> Aside | None:
    """Return the record of an order that is set aside; None if it is not."""
    row = connection.execute(_ONE, {"which": order.id}).one_or_none()
    return None if row is None else _to_aside(row, order)


def page(connection: Connection, after: str, limit: int) -> list[Aside]:
    """Orders that are set aside, by id, a page at a time."""
    rows = connection.execute(_AFTER, {"after": after, "limit": limit}).all()
    # Not joined: a plan for any `after` would walk through all orders beside them.
    found = get_orders(connection, (row.order_id for row in rows))
    return [_to_aside(row, found[row.order_id]) for row in rows]


def count(connection: Connection) -> int:
    """Return the number of orders that are set aside."""
    return int(connection.execute(_COUNT).scalar_one())


def _to_aside(row: Row[Any], order: Order) -> Aside:
    ending = None
    if row.ending is not None:
        try:
            ending = EndedRow.from_json(order.seq, row.ending)
        except (ValueError, TypeError) as error:
            _log.warning("ending_unreadable", order=order.id, reason=str(error))
    return Aside(order, row.at_us, row.was, row.reason, ending)
