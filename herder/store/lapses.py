"""SQL about attempts that nobody claimed, or whose worker fell silent."""

from __future__ import annotations

from sqlalchemy import Connection, and_, bindparam, exists, func, or_, select

from herder.db.tables import IS_OUT, in_state, orders, worker
from herder.domain.order import Order, State
from herder.store.orders import to_order

TAKEN_S = 1
"""Seconds in which the claim of an attempt arrives that a worker took just before it drained."""

# A sum, which no index has: else PostgreSQL might look for the few through all that have ended.
_BY_SEQ = orders.c.seq + 0
_LAPSED = (
    select(orders)
    .where(
        IS_OUT,
        or_(
            orders.c.deadline_heard_s < bindparam("heard_s"),
            # Sent to a worker that takes no more.
            and_(
                in_state(State.DISPATCHED),
                orders.c.deadline_heard_s < bindparam("taken_heard_s"),
                exists().where(worker.c.instance == orders.c.instance, worker.c.state != "alive"),
            ),
        ),
        orders.c.seq > bindparam("after"),
    )
    .order_by(_BY_SEQ)
    .limit(bindparam("limit"))
)
_CLAIMED = select(func.count()).where(
    orders.c.instance == bindparam("which"),
    in_state(State.RUNNING),
    IS_OUT,  # implied, but only its words lead to the index
)


def lapsed(
    connection: Connection, heard_s: int, after: int, limit: int, *, claim_s: int
) -> list[Order]:
    """Orders that are out and whose claim or lease has run out on the listening clock.

    By number, from after one of them on.

    Args:
        connection: the transaction.
        heard_s: the listening clock.
        after: the number of the order that they come after.
        limit: orders at most.
        claim_s: seconds that a claim may take. It may take `TAKEN_S` where the worker drains or has
            left, as it takes no more then.
    """
    values = {"heard_s": heard_s, "after": after, "limit": limit}
    values["taken_heard_s"] = heard_s + claim_s - TAKEN_S
    rows = connection.execute(_LAPSED, values)
    return [to_order(row) for row in rows]


def claimed(connection: Connection, instance: str) -> int:
    """Return the number of orders that a worker instance has claimed and not ended."""
    return int(connection.execute(_CLAIMED, {"which": instance}).scalar_one())
