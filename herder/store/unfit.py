"""SQL about orders that wait for more tokens than their model can hold."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, bindparam, select

from herder.db.tables import IS_QUEUED, order_text, orders
from herder.domain.order import Order
from herder.store.orders import FIT_TOKENS, REQUEST, to_order

# The index of the book holds tokens and numbers: few orders are read. The sum is in no index: else
# PostgreSQL might look for them through all orders that have ended.
_LONGER = (
    select(orders)
    .where(
        orders.c.model == bindparam("model"),
        IS_QUEUED,
        orders.c.tokens > bindparam("context"),
        orders.c.begun.is_(False),
        orders.c.seq > bindparam("after"),
    )
    .order_by(orders.c.seq + 0)
    .limit(bindparam("limit"))
)


def longer_than(
    connection: Connection, model_name: str, context: int, after: int, limit: int
) -> list[Order]:
    """Orders of a model that wait for more tokens than its context holds, by number.

    Args:
        connection: a transaction.
        model_name: the model.
        context: tokens that an order may have.
        after: the number of the order behind which to begin.
        limit: how many at most.
    """
    values = {"model": model_name, "context": context, "after": after, "limit": limit}
    return [to_order(row) for row in connection.execute(_LONGER, values)]


# Looked for as text, in the database: a request may be long, and one that is no JSON is no error
# here. In what a client wrote, each quotation mark stands behind a backslash.
_FITTED = select(order_text.c.order_id).where(
    order_text.c.order_id.in_(bindparam("ids", expanding=True)),
    REQUEST.element.contains(f'"{FIT_TOKENS}": true', autoescape=True),
)


def fitted_by_workers(connection: Connection, ids: Sequence[str]) -> set[str]:
    """Return those of some orders whose tokens the worker cuts to what fits."""
    if not ids:
        return set()
    return set(connection.execute(_FITTED, {"ids": ids}).scalars())
