"""SQL about the book and the attempts: how orders go out and come back."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import (
    Connection,
    Row,
    and_,
    bindparam,
    func,
    or_,
    select,
    update,
)

from herder.db.tables import (
    IS_OUT,
    IS_QUEUED,
    MAY_EXPIRE,
    in_state,
    order_text,
    orders,
    set_aside,
)
from herder.domain.order import Order, State
from herder.domain.pricing import RANK_CAP
from herder.store.orders import MAX_IDS, get_orders, to_order
from herder.store.rows import Each, given
from herder.store.steps import (
    AnswerRow,
    BoundRow,
    DispatchedRow,
    EndedRow,
    RankedRow,
    RenewedRow,
    RequeuedRow,
)
from herder.types import PLACE_COUNTED

_QUEUED = and_(orders.c.model == bindparam("model"), IS_QUEUED)
# In the book's order even where any would do: else PostgreSQL, where it believes that most orders
# wait, looks for one that does through all that have ended.
_BY_RANK = (orders.c.rank.desc(), orders.c.seq)
_WAITS = select(orders.c.seq).where(_QUEUED).order_by(*_BY_RANK).limit(1)
_BEST = (
    select(orders)
    .where(
        _QUEUED,
        # What was to have begun by now is about to expire.
        or_(
            orders.c.start_by_us.is_(None),
            orders.c.start_by_us >= bindparam("now_us"),
            orders.c.begun,
        ),
    )
    .order_by(*_BY_RANK)
    .limit(bindparam("limit"))
)
_COUNTED = select(orders.c.tokens).where(_QUEUED).order_by(*_BY_RANK).limit(PLACE_COUNTED + 1)
# A range of the index: an OR of two conditions would be looked for through the whole book.
_AHEAD = _COUNTED.where(orders.c.rank >= bindparam("rank"))
_BETWEEN = (
    select(orders.c.tokens)
    .where(_QUEUED, orders.c.rank >= bindparam("rank"), orders.c.rank < bindparam("below"))
    .order_by(*_BY_RANK)
    .limit(bindparam("most"))
    .subquery()
)
_COUNT_BETWEEN = select(func.count(), func.coalesce(func.sum(_BETWEEN.c.tokens), 0))
_RANKED = _AHEAD.add_columns(orders.c.rank, orders.c.seq).subquery()
_AHEAD_OF = select(func.count(), func.coalesce(func.sum(_RANKED.c.tokens), 0)).where(
    or_(_RANKED.c.rank > bindparam("rank"), _RANKED.c.seq < bindparam("seq"))
)
_WAITING = _COUNTED.subquery()
_LENGTH = select(func.count(), func.coalesce(func.sum(_WAITING.c.tokens), 0))
_TOKENS_OUT = select(func.coalesce(func.sum(orders.c.tokens), 0)).where(
    orders.c.model == bindparam("model"), IS_OUT
)


def anything_waits(connection: Connection, model_name: str) -> bool:
    """Return whether any order of the model is queued."""
    return connection.execute(_WAITS, {"model": model_name}).one_or_none() is not None


def best(connection: Connection, model_name: str, limit: int, now_us: int) -> list[Order]:
    """Return the best-ranked orders that wait and may still begin, earliest first among equals."""
    rows = connection.execute(_BEST, {"model": model_name, "limit": limit, "now_us": now_us})
    found = [to_order(row) for row in rows]
    if connection.dialect.name == "sqlite":
        return found
    # Elsewhere one of them may be cancelled or re-bid this moment: locked, they are looked at anew.
    fresh = get_orders(connection, (order.id for order in found), lock=True)
    locked = [fresh[order.id] for order in found]
    return [order for order in locked if order.state is State.QUEUED]


def queue_length(connection: Connection, model_name: str) -> tuple[int, int]:
    """(orders, tokens) that wait for a model, counted up to `PLACE_COUNTED` + 1 orders."""
    row = connection.execute(_LENGTH, {"model": model_name}).one()
    return int(row[0]), int(row[1])


def tokens_out(connection: Connection, model_name: str) -> int:
    """Tokens asked for by the orders that are out with the herd."""
    return int(connection.execute(_TOKENS_OUT, {"model": model_name}).scalar_one())


def ahead(
    connection: Connection,
    model_name: str,
    rank: int,
    *,
    below: int = RANK_CAP + 1,
    most: int = PLACE_COUNTED + 1,
) -> tuple[int, int]:
    """(orders, tokens) that would be served before one of this rank that came now.

    Whatever waits at the same rank came earlier.

    Args:
        connection: the transaction.
        model_name: the model whose book it is.
        rank: the order's.
        below: count only those of a lower rank than this: who counted that far goes on from there.
        most: count no further.
    """
    values = {"model": model_name, "rank": rank, "below": below, "most": most}
    row = connection.execute(_COUNT_BETWEEN, values).one()
    return int(row[0]), int(row[1])


def ahead_of(connection: Connection, order: Order) -> tuple[int, int]:
    """(orders, tokens) that would be served before one that waits; counted as `ahead` does."""
    values = {"model": order.model, "rank": order.rank, "seq": order.seq}
    row = connection.execute(_AHEAD_OF, values).one()
    return int(row[0]), int(row[1])


_DISPATCH = Each(
    DispatchedRow,
    update(orders)
    .where(orders.c.seq == given("seq"))
    .values(
        state=State.DISPATCHED.value,
        attempt=orders.c.attempt + 1,
        dispatches=orders.c.dispatches + 1,
        attempt_open=True,
        instance=given("instance"),
        worker=None,
        weights=None,
        started_us=None,
        overdue_heard_s=None,
        nonce=given("nonce"),
        run_limit_s=given("run_limit_s"),
        dispatched_us=given("dispatched_us"),
        deadline_heard_s=given("deadline_heard_s"),
    ),
)


def dispatch(connection: Connection, rows: Sequence[DispatchedRow]) -> None:
    """Send orders out: a new attempt each; the caller notes the message that is born from it."""
    _DISPATCH(connection, rows)


_BIND = Each(
    BoundRow,
    update(orders)
    .where(orders.c.seq == given("seq"))
    .values(
        state=State.RUNNING.value,
        instance=given("instance"),
        worker=given("worker"),
        weights=given("weights"),
        started_us=func.coalesce(orders.c.started_us, given("began_us")),
        tries=orders.c.tries + given("tried"),
        begun=True,
        deadline_heard_s=given("deadline_heard_s"),
        overdue_heard_s=func.coalesce(orders.c.overdue_heard_s, given("overdue_heard_s")),
    ),
)
_RENEW = Each(
    RenewedRow,
    update(orders)
    .where(orders.c.seq == given("seq"))
    .values(deadline_heard_s=given("deadline_heard_s")),
)
_REQUEUE = Each(
    RequeuedRow,
    update(orders)
    .where(orders.c.seq == given("seq"))
    .values(
        state=State.QUEUED.value,
        attempt_open=given("still_open"),
        tries=given("tries"),
        dispatches=given("dispatches"),
        begun=given("begun"),
        instance=given("instance"),
        worker=given("worker"),
        weights=given("weights"),
        deadline_heard_s=None,
        overdue_heard_s=None,
    ),
)
_END = Each(
    EndedRow,
    update(orders)
    .where(orders.c.seq == given("seq"))
    .values({name: given(name, orders.c[name]) for name in EndedRow._fields if name != "seq"})
    .values(attempt_open=False, deadline_heard_s=None, overdue_heard_s=None),
)
_ANSWER = (
    update(order_text)
    .where(order_text.c.order_id == bindparam("which"))
    .values(
        answer=bindparam("answer"),
        reasoning=bindparam("reasoning"),
        reasoning_tokens=bindparam("reasoning_tokens"),
    )
)
# A sum, which no index has: else PostgreSQL might look for the few through all that have ended.
_BY_SEQ = orders.c.seq + 0
_OVERDUE = (
    select(orders)
    .where(
        IS_OUT,
        in_state(State.RUNNING),
        orders.c.overdue_heard_s < bindparam("heard_s"),
        orders.c.seq > bindparam("after"),
    )
    .order_by(_BY_SEQ)
    .limit(bindparam("limit"))
)
_LATE = (
    select(orders)
    .where(
        MAY_EXPIRE,
        orders.c.start_by_us < bindparam("now_us"),
        orders.c.begun.is_(False),
        orders.c.call_off.is_(None),
        # A range of the index: an OR of two conditions would be looked for through all of it.
        orders.c.start_by_us >= bindparam("after_us"),
        or_(orders.c.start_by_us > bindparam("after_us"), orders.c.seq > bindparam("after")),
    )
    .order_by(orders.c.start_by_us, orders.c.seq)
    .limit(bindparam("limit"))
)
_CALL_OFF = (
    update(orders)
    .where(orders.c.seq == bindparam("which"))
    .values(call_off=bindparam("why"), overdue_heard_s=bindparam("overdue"))
)
_REBID = (
    update(orders)
    .where(orders.c.seq == bindparam("which"))
    .values(
        fee=bindparam("new_fee"),
        rank=bindparam("new_rank"),
        hold_id=bindparam("new_hold"),
        holds=orders.c.holds + 1,
        automatic=False,
        bid_factor="1",
    )
)
# Those that are out too, or set aside: they may come back, to the place that they would have.
_OPEN = (
    # In the book's order, which is that of its index.
    select(orders.c.seq).where(_QUEUED).order_by(*_BY_RANK),
    select(orders.c.seq).where(orders.c.model == bindparam("model"), IS_OUT),
)
_ASIDE = select(orders.c.seq).where(
    orders.c.model == bindparam("model"), orders.c.id.in_(bindparam("aside", expanding=True))
)
_TO_RANK = (
    select(orders.c.seq, orders.c.fee, orders.c.needed, orders.c.submitted_us)
    .where(
        orders.c.seq.in_(bindparam("seqs", expanding=True)),
        in_state(State.QUEUED, State.DISPATCHED, State.RUNNING, State.SET_ASIDE),
    )
    .order_by(orders.c.id)  # as all locks of orders go
)
# An order whose fee was raised meanwhile was ranked by that.
_RANK = Each(
    RankedRow,
    update(orders)
    .where(orders.c.seq == given("seq"), orders.c.fee == given("fee"))
    .values(rank=given("rank")),
)


def bind(connection: Connection, rows: Sequence[BoundRow]) -> None:
    """Bind attempts to the workers that claimed them: they are running from now on."""
    _BIND(connection, rows)


def renew(connection: Connection, rows: Sequence[RenewedRow]) -> None:
    """Renew the leases of attempts that their worker named again."""
    _RENEW(connection, rows)


def requeue(connection: Connection, rows: Sequence[RequeuedRow]) -> None:
    """Let orders wait again, in their old place: rank and number are as they were."""
    _REQUEUE(connection, rows)


def end(connection: Connection, rows: Sequence[EndedRow]) -> None:
    """End orders; the caller moves their money in the same transaction."""
    _END(connection, rows)


def write_answers(connection: Connection, rows: Sequence[AnswerRow]) -> None:
    """Keep the texts that orders ended with."""
    if rows:
        connection.execute(_ANSWER, [row._asdict() for row in rows])


def overdue(connection: Connection, heard_s: int, after: int, limit: int) -> list[Order]:
    """Orders that run beyond their limit, or were called off, and whose worker does not answer.

    By number, from after one of them on.
    """
    rows = connection.execute(_OVERDUE, {"heard_s": heard_s, "after": after, "limit": limit})
    return [to_order(row) for row in rows]


def late(connection: Connection, now_us: int, after: tuple[int, int], limit: int) -> list[Order]:
    """Orders that were to have begun by now, and have not, the longest overdue first.

    Args:
        connection: a transaction.
        now_us: the time.
        after: (`start_by_us`, number) of the order behind which to begin.
        limit: how many at most.
    """
    values = {"now_us": now_us, "after_us": after[0], "after": after[1], "limit": limit}
    rows = connection.execute(_LATE, values)
    return [to_order(row) for row in rows]


def call_off(connection: Connection, order: Order, why: str, overdue_heard_s: int) -> None:
    """Mark the running attempt to stop; in the end it is ended without its worker."""
    values = {"which": order.seq, "why": why, "overdue": overdue_heard_s}
    connection.execute(_CALL_OFF, values)


def rebid(connection: Connection, order: Order, fee: int, rank: int, hold_id: str) -> None:
    """Give a waiting order another fee, place and hold; the caller moves the money."""
    values = {"which": order.seq, "new_fee": fee, "new_rank": rank, "new_hold": hold_id}
    connection.execute(_REBID, values)


def open_seqs(connection: Connection, model_name: str) -> list[int]:
    """Return the numbers of a model's open orders, all as they stand at one moment.

    Args:
        connection: a transaction that only reads, and so sees one moment.
        model_name: the model.
    """
    aside = list(connection.execute(select(set_aside.c.order_id)).scalars())
    given = {"model": model_name}
    found = [connection.execute(query, given).scalars() for query in _OPEN]
    # In pieces: a statement takes only so many values.
    found += [
        connection.execute(_ASIDE, given | {"aside": aside[start : start + MAX_IDS]}).scalars()
        for start in range(0, len(aside), MAX_IDS)
    ]
    return [int(seq) for seqs in found for seq in seqs]


def to_rank(connection: Connection, seqs: Sequence[int]) -> Sequence[Row[int, int, int, int]]:
    """(seq, fee, needed, submitted_us) of those of some orders that are still open."""
    return connection.execute(_TO_RANK, {"seqs": list(seqs)}).all()


def rank_anew(connection: Connection, rows: Sequence[RankedRow]) -> None:
    """Give orders other ranks, in the order of `to_rank`.

    One that has another fee by now keeps the rank that it has.
    """
    _RANK(connection, rows)
