"""What must be true of a herd after everything that was done to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import select
from support.running import RunningHerd

from herder.orders import Order, State
from herder.pricing import rank
from herder.store import orders as order_sql
from herder.tables import event, order_text, orders
from tests.chaos.clients import Seen
from tests.chaos.world import SETTINGS

ENDS = {state.value for state in State if state.ended}
LEAVES = {"dispatched", "started", *ENDS}
"""Events after which an order no longer waits for its first dispatch."""

MARGIN_US = {"sqlite": 0, "postgresql": 1_000_000}
"""How long before a dispatch's time a submission must be known, to have been known when it began.

On SQLite a dispatch holds the write lock when it reads the clock. On PostgreSQL others commit
between its choice and that.
"""


def judge(herd: RunningHerd, seen: Sequence[Seen]) -> dict[str, int]:
    """Everything that must be true when all is over; returns how many orders ended how."""
    with herd.database.read() as connection:
        dialect = connection.dialect.name
        found = [order_sql.to_order(row) for row in connection.execute(select(orders))]
        events = list(connection.execute(select(event).order_by(event.c.seq)))
        texts = {
            row.order_id: row.answer
            for row in connection.execute(select(order_text.c.order_id, order_text.c.answer))
        }
    by_id = {order.id: order for order in found}
    assert set(by_id) == {one.id for one in seen}, "orders that nobody had accepted"
    _ended_once(found, events)
    for one in seen:
        assert one.final == by_id[one.id].state.value, f"{one.id}: its client was told {one.final}"
    for order in found:
        assert order.tries <= int(SETTINGS["HERD_MAX_ATTEMPTS"]), (
            f"{order.id} was tried {order.tries} times"
        )
        assert order.dispatches <= herd.settings.max_dispatches, f"{order.id} was sent too often"
        if order.charged:
            assert texts[order.id], f"{order.id} was charged and has no text"
        if order.state is State.FAILED:
            code = (order.failure or {}).get("code")
            assert code == "too_many_attempts", f"{order.id} failed of {code}"
    inversions = list(_inversions(by_id, events, seen, MARGIN_US[dialect]))
    assert not inversions, inversions[:5]
    herd.check()
    return dict(Counter(order.state.value for order in found))


def _ended_once(found: Iterable[Order], events: Iterable[Any]) -> None:
    ends: dict[str, list[str]] = {}
    for one in events:
        if one.kind in ENDS:
            ends.setdefault(one.order_id, []).append(one.kind)
        elif one.kind != "refunded":
            assert one.order_id not in ends, f"{one.order_id} {one.kind} after its end"
    for order in found:
        assert ends.get(order.id) == [order.state.value], f"{order.id}: {ends.get(order.id)}"


def _inversions(
    by_id: dict[str, Order], events: Iterable[Any], seen: Iterable[Seen], margin_us: int
) -> Iterable[str]:
    """Dispatches past a better order that had been accepted and waited.

    A bid only ever rises: the better one is judged by what it offered at first, the other by what
    it offered at last. Only an order's first wait counts: when it came back is not known exactly.
    """
    waits: dict[str, Seen] = {one.id: one for one in seen}
    left: dict[str, Any] = {}
    sent = []
    for one in events:
        if one.kind == "dispatched":
            sent.append(one)
        if one.kind in LEAVES:
            left.setdefault(one.order_id, one)
    for dispatch in sent:
        chosen = by_id[dispatch.order_id]
        for better in waits.values():
            order, leaving = by_id[better.id], left[better.id]
            first = rank(better.receipt.fee, order.needed)
            if (
                better.acked_us <= dispatch.at_us - margin_us
                and leaving.at_us > dispatch.at_us
                and leaving.seq > dispatch.seq
                and order.model == chosen.model
                and (first > chosen.rank or (first == chosen.rank and order.seq < chosen.seq))
            ):
                yield f"{chosen.id} went before {order.id}"
