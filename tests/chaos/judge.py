"""What must be true of a herd after everything that was done to it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select, text

from herder.accounts.accounts import open_ledger
from herder.db.database import Database
from herder.db.tables import event, order_text, orders
from herder.domain.order import Order, State
from herder.domain.pricing import charge, rank
from herder.store import orders as order_sql
from tests.chaos.clients import Seen
from tests.support.house import check_money

ENDS = {state.value for state in State if state.ended}
WAITS = {"submitted", "lapsed", "handed_back", "attempt_failed"}
"""Events after which an order waits."""
WAITS_NO_MORE = {"dispatched", "started", *ENDS}
AFTERWARDS = {"refunded"}
"""Events that an order may have after its end."""


@dataclass(frozen=True)
class Story:
    """All that the database and the clients have to tell.

    Attributes:
        texts: the stored answers, by order.
        accounts: the ledger's, those that stand for the outside left out.
        serial: whether the events stand in the order in which they were committed.
    """

    orders: dict[str, Order]
    events: Sequence[Any]
    texts: dict[str, str | None]
    accounts: Sequence[Any]
    seen: Sequence[Seen]
    serial: bool


def judge(database: Database, seen: Sequence[Seen], *, max_attempts: int) -> dict[str, int]:
    """Everything that must be true when all is over; returns how many orders ended how."""
    with database.read() as connection:
        story = _read(connection, seen)
    faults = [
        *_accepted(story),
        *_ended_once(story),
        *_told(story),
        *_paid_for(story),
        *_undelivered(story),
        *_tried(story, max_attempts),
        *_balanced(story),
        *_inversions_acknowledged(story),
        *(_inversions_committed(story) if story.serial else ()),
    ]
    assert not faults, "\n".join(faults[:20])
    check_money(database, open_ledger())
    return dict(Counter(order.state.value for order in story.orders.values()))


def _read(connection: Connection, seen: Sequence[Seen]) -> Story:
    found = [order_sql.to_order(row) for row in connection.execute(select(orders))]
    answers = select(order_text.c.order_id, order_text.c.answer)
    accounts = text("SELECT * FROM ledger_account WHERE allow_overdraft = 0")
    return Story(
        {order.id: order for order in found},
        list(connection.execute(select(event).order_by(event.c.seq))),
        {row.order_id: row.answer for row in connection.execute(answers)},
        list(connection.execute(accounts)),
        seen,
        serial=connection.dialect.name == "sqlite",
    )


def _accepted(story: Story) -> Iterator[str]:
    """What the clients think was accepted is what was."""
    accepted = {one.id for one in story.seen}
    yield from (f"{one} is nobody's" for one in story.orders.keys() - accepted)
    yield from (f"{one} was accepted and is lost" for one in accepted - story.orders.keys())


def _ended_once(story: Story) -> Iterator[str]:
    ends: dict[str, list[str]] = defaultdict(list)
    for one in story.events:
        if one.kind in ENDS:
            ends[one.order_id].append(one.kind)
        elif one.kind not in AFTERWARDS and one.order_id in ends:
            yield f"{one.order_id} {one.kind} after its end"
    for order in story.orders.values():
        if ends[order.id] != [order.state.value]:
            yield f"{order.id} is {order.state.value} and ended {ends[order.id]}"


def _told(story: Story) -> Iterator[str]:
    """Every client was told the one end of its order, whenever it asked, and given its text."""
    for one in story.seen:
        order = story.orders.get(one.id)
        if order is None:
            continue  # said already
        if set(one.told) != {order.state.value}:
            yield f"{one.id} is {order.state.value} and its client was told {one.told}"
        if one.text != (story.texts[one.id] or ""):
            yield f"{one.id}: its client was given another text"
        if order.fee < one.bids[-1][1]:
            yield f"{one.id} offers {order.fee}, and {one.bids[-1][1]} was acknowledged"


def _paid_for(story: Story) -> Iterator[str]:
    """What was charged is what the stored text comes to: of these models each token is a word."""
    for order in story.orders.values():
        stored = story.texts[order.id] or ""
        if order.charged and not stored:
            yield f"{order.id} was charged and has no text"
        if len(stored.split()) != order.generated:
            yield f"{order.id} has {len(stored.split())} words and paid for {order.generated}"
        delivered = order.generated > 0 and order.state is not State.FAILED
        due = charge(order.fee, order.needed, order.rates, order.words, order.generated)
        if order.charged != (due if delivered else 0):
            yield f"{order.id} was charged {order.charged}, and {due} were due"


def _undelivered(story: Story) -> Iterator[str]:
    """What nobody was given is not charged: these clients cancel orders whose text nobody reads."""
    for order in story.orders.values():
        if order.state is State.CANCELLED and (order.charged or story.texts[order.id]):
            yield f"{order.id} was cancelled, read by nobody, and charged {order.charged}"
        if order.call_off == "cancelled" and order.state is State.COMPLETED:
            yield f"{order.id} was cancelled, read by nobody, and counts as completed"


def _tried(story: Story, max_attempts: int) -> Iterator[str]:
    """Nothing is wrong with any order: none is given up but for all the deaths it saw."""
    for order in story.orders.values():
        if order.tries > max_attempts:
            yield f"{order.id} was tried {order.tries} times"
        code = (order.failure or {}).get("code")
        if order.state is State.FAILED and code != "too_many_attempts":
            yield f"{order.id} failed of {code}"


def _balanced(story: Story) -> Iterator[str]:
    """No account is negative and none has anything held; revenue is what orders were charged."""
    revenue = 0
    for one in story.accounts:
        if one.credits_posted - one.debits_posted - one.debits_pending < 0:
            yield f"account {one.id} is negative"
        if one.debits_pending or one.credits_pending:
            yield f"account {one.id} has a hold left"
        if one.id.startswith("revenue:"):
            revenue += one.credits_posted - one.debits_posted
    charged = sum(order.charged for order in story.orders.values())
    if revenue != charged:
        yield f"{charged} winston were charged, and {revenue} earned"


def _inversions_acknowledged(story: Story) -> Iterator[str]:
    """Dispatches past a better order whose bid was acknowledged before they began.

    A dispatch is timed before it chooses. Only an order's first wait counts: when it came back is
    acknowledged to nobody.
    """
    bids = _bids(story)
    left: dict[str, Any] = {}
    for one in story.events:
        if one.kind in WAITS_NO_MORE:
            left.setdefault(one.order_id, one)
    known = (one for one in story.seen if one.id in left and one.id in story.orders)
    to_come = sorted(known, key=lambda one: one.bids[0], reverse=True)
    waits: list[Seen] = []
    dispatches = [
        one for one in story.events if one.kind == "dispatched" and one.order_id in story.orders
    ]
    for dispatch in sorted(dispatches, key=lambda one: int(one.at_us)):
        while to_come and to_come[-1].bids[0][0] < dispatch.at_us:
            waits.append(to_come.pop())
        waits = [one for one in waits if left[one.id].at_us > dispatch.at_us]
        mine = _place(story.orders[dispatch.order_id], bids, dispatch)
        for one in waits:
            better = story.orders[one.id]
            fee = max(fee for acked_us, fee in one.bids if acked_us < dispatch.at_us)
            if (
                left[one.id].seq > dispatch.seq
                and (-rank(fee, better.needed), better.seq) < mine
                and _may_begin(better, dispatch)
            ):
                yield f"{dispatch.order_id} went before {one.id}, which was acknowledged"


def _inversions_committed(story: Story) -> Iterator[str]:
    """Dispatches past any better order that waited, where events stand as they were committed."""
    bids = _bids(story)
    waits: set[str] = set()
    for one in story.events:
        if one.order_id not in story.orders:
            continue  # said already
        if one.kind == "dispatched":
            mine = _place(story.orders[one.order_id], bids, one)
            for better in (story.orders[order_id] for order_id in waits):
                if _place(better, bids, one) < mine and _may_begin(better, one):
                    yield f"{one.order_id} went before {better.id}, which waited"
        if one.kind in WAITS:
            waits.add(one.order_id)
        elif one.kind in WAITS_NO_MORE:
            waits.discard(one.order_id)


def _bids(story: Story) -> dict[str, list[tuple[int, int]]]:
    """(event, fee) of each bid of each order, as they were committed."""
    first = {order.id: order.fee for order in story.orders.values()}
    bids: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for one in story.events:
        if one.kind == "rebid":
            old, _, new = one.detail.partition(" to ")
            if not bids[one.order_id]:
                first[one.order_id] = int(old)
            bids[one.order_id].append((one.seq, int(new)))
    return {order_id: [(0, fee), *bids[order_id]] for order_id, fee in first.items()}


def _place(order: Order, bids: dict[str, list[tuple[int, int]]], at: Any) -> tuple[int, int]:
    """The place of an order at an event, by the bids that came before: lower first."""
    fee = max(fee for seq, fee in bids[order.id] if seq < at.seq)
    return -rank(fee, order.needed), order.seq


def _may_begin(order: Order, dispatch: Any) -> bool:
    """Whether it was not too late for an order when another was dispatched."""
    return order.start_by_us is None or order.start_by_us >= dispatch.at_us
