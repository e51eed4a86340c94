"""What must be true of calls that are made once each, whatever became of the database meanwhile.

Each has its answer, or an error after which nothing is charged, and is one order at most.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

from sqlalchemy import select

from herder.db.database import Database
from herder.db.tables import order_text, orders
from herder.domain.order import Order
from herder.store import orders as order_sql
from tests.chaos.buyers import Asked
from tests.chaos.clients import Seen
from tests.chaos.judge import judge


def judge_calls(database: Database, calls: Sequence[Asked], *, max_attempts: int) -> dict[str, int]:
    """Everything that must be true when all is over; returns how many orders ended how."""
    with database.read() as connection:
        found = [order_sql.to_order(row) for row in connection.execute(select(orders))]
        rows = connection.execute(select(order_text.c.order_id, order_text.c.request)).all()
        texts = {one.id: order_sql.get_answer(connection, one.id) or "" for one in found}
    by_id = {one.id: one for one in found}
    asked = {order_id: json.dumps(request) for order_id, request in rows}
    made = {
        call.prompt: [by_id[one] for one, said in asked.items() if call.prompt in said]
        for call in calls
    }
    faults = [fault for call in calls for fault in _of_call(call, made[call.prompt], texts)]
    assert not faults, "\n".join(faults[:20])
    seen = [_seen(call, one, texts) for call in calls for one in made[call.prompt]]
    return judge(database, seen, max_attempts=max_attempts)


def _of_call(call: Asked, made: Sequence[Order], texts: Mapping[str, str]) -> Iterator[str]:
    if len(made) > 1:
        yield f"{call.prompt} made {len(made)} orders"
    if call.order is not None and call.order not in {one.id for one in made}:
        yield f"{call.prompt} was told of {call.order}, which is none of its orders"
    charged = sum(one.charged for one in made)
    if call.text is None and call.error is None:
        yield f"{call.prompt} has neither an answer nor an error"
    elif call.text is None and charged:
        yield f"{call.prompt} ended with an error and was charged {charged}: {call.error}"
    elif call.text is not None and [texts[one.id] for one in made] != [call.text]:
        yield f"{call.prompt} was given another text"


def _seen(call: Asked, order: Order, texts: Mapping[str, str]) -> Seen:
    """The order as its buyer knows it; who was given an error knows nothing of it."""
    if call.text is None:
        return Seen(order.id, [(order.ended_us or 0, order.fee)], [order.state], texts[order.id])
    return Seen(order.id, [(call.acked_us, order.fee)], ["completed"], call.text)
