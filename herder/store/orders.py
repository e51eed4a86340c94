"""SQL about orders: what was asked, where it stands, what happened to it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from pydantic import ValidationError
from sqlalchemy import (
    Connection,
    Row,
    Text,
    bindparam,
    cast,
    delete,
    exists,
    func,
    insert,
    select,
    update,
)

from herder.db.tables import event, order_text, orders
from herder.domain.notes import NO_NOTES, Notes
from herder.domain.order import STOPPED, Order, Prompt, State
from herder.domain.pricing import Rates
from herder.store.kept import to_text
from herder.store.steps import NewOrder, Subject
from workers.transport.event_log import EventLog
from workers.wire import ChatMessage, Sampling

_log = EventLog("herder.store.orders")


class UnreadableRequest(ValueError):
    """Raised when this herder cannot read what an order asks.

    Attributes:
        field: the name of the field that is out of bounds, if it is one.
    """

    def __init__(self, field: str | None) -> None:
        super().__init__(field)
        self.field = field


_ASKED_FOR = ("special", "continues")
"""Flags of a prompt that are stored only where they are set."""
_TEMPLATE_ARGS = "template_args"
FIT_TOKENS = "fit_tokens"


@dataclass(frozen=True, slots=True)
class StoredRequest:
    """The model's input, kept apart from the order, whose row is rewritten at each step."""

    prompt: Prompt
    stop: tuple[str, ...]
    sampling: Sampling
    fit_tokens: bool = False
    """The tokens are the herd's to say: the worker cuts them to what the prompt leaves."""

    def to_json(self) -> dict[str, Any]:
        """Return the request as it is stored."""
        stored: dict[str, Any] = {"raw": self.prompt.raw, "stop": list(self.stop)}
        stored |= {name: True for name in _ASKED_FOR if getattr(self.prompt, name)}
        if self.prompt.messages is None:
            stored["prompt"] = self.prompt.text
        else:
            stored["messages"] = [turn.model_dump() for turn in self.prompt.messages]
        stored["sampling"] = self.sampling.model_dump(exclude_defaults=True, mode="json")
        if self.prompt.template_args:
            stored[_TEMPLATE_ARGS] = dict(self.prompt.template_args)
        if self.fit_tokens:
            stored[FIT_TOKENS] = True
        return stored

    @classmethod
    def from_text(cls, stored: str | None) -> StoredRequest:
        """Read a request as it was stored, be it by a newer or an older herder.

        What this one does not know is left out, and what it could leave out may be missing.

        Args:
            stored: JSON; None where there is none.

        Raises:
            UnreadableRequest: it is not a request, or not one that a worker would take.
        """
        try:
            return cls._from_json(json.loads(stored or ""))
        except ValidationError as error:
            raise UnreadableRequest(field_of(error)) from None
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            # The error's own text would quote the request.
            raise UnreadableRequest(None) from None

    @classmethod
    def _from_json(cls, stored: dict[str, Any]) -> StoredRequest:
        turns = stored.get("messages")
        messages = None
        if turns is not None:
            messages = tuple(ChatMessage(role=one["role"], content=one["content"]) for one in turns)
        prompt = stored.get("prompt")
        if (prompt is None) == (messages is None) or not isinstance(prompt, str | None):
            raise ValueError("it asks nothing, or two things")
        stop = stored.get("stop", [])
        if not isinstance(stop, list) or not all(isinstance(one, str) for one in stop):
            raise ValueError("the stop strings are not a list of texts")
        return cls(
            Prompt(
                prompt,
                messages,
                bool(stored.get("raw", False)),
                **{name: bool(stored.get(name, False)) for name in _ASKED_FOR},
                template_args=dict(stored.get(_TEMPLATE_ARGS) or {}),
            ),
            tuple(stop),
            _sampling(stored.get("sampling", {})),
            bool(stored.get(FIT_TOKENS, False)),
        )


def _sampling(stored: dict[str, Any]) -> Sampling:
    known = {name: value for name, value in stored.items() if name in Sampling.model_fields}
    if len(known) < len(stored):
        _log.warning("sampling_not_known_here", names=sorted(stored.keys() - known.keys()))
    return Sampling.model_validate(known)


def field_of(error: ValidationError) -> str | None:
    """Return the name of the field that is out of bounds, without what stands in it."""
    where = error.errors(include_input=False, include_url=False, include_context=False)[0]["loc"]
    return next((str(one) for one in where if isinstance(one, str)), None)


def _rates(row: Row[Any]) -> Rates:
    """Return the rates of an order; where they cannot be read, those that charge the least."""
    try:
        return Rates(row.prompt_fee, row.fee_per_token)
    except (ValueError, TypeError):
        _log.error("rates_unreadable", order=row.id)
        return Rates(1, 0)


def to_order(row: Row[Any]) -> Order:
    """Return a row of `orders` as the order that it is."""
    return Order(
        id=row.id,
        seq=row.seq,
        account=row.account,
        model=row.model,
        state=State(row.state),
        rank=row.rank,
        fee=row.fee,
        needed=row.needed,
        rates=_rates(row),
        charge_unused=row.charge_unused,
        bid_factor=row.bid_factor,
        automatic=row.automatic,
        words=row.words,
        tokens=row.tokens,
        reference=row.reference,
        hold_id=row.hold_id,
        holds=row.holds,
        start_by_us=row.start_by_us,
        run_limit_s=row.run_limit_s,
        submitted_us=row.submitted_us,
        attempt=row.attempt,
        nonce=row.nonce,
        attempt_open=row.attempt_open,
        dispatched_us=row.dispatched_us,
        instance=row.instance,
        worker=row.worker,
        weights=row.weights,
        started_us=row.started_us,
        begun=row.begun,
        call_off=row.call_off,
        deadline_heard_s=row.deadline_heard_s,
        overdue_heard_s=row.overdue_heard_s,
        tries=row.tries,
        dispatches=row.dispatches,
        ended_us=row.ended_us,
        finish_reason=row.finish_reason,
        prompt_tokens=row.prompt_tokens,
        generated=row.generated,
        charged=row.charged,
        returned=row.returned,
        refunded=row.refunded,
        failure=row.failure,
        api_key=row.api_key,
        message=row.message,
    )


_INSERT_ORDER = insert(orders).returning(orders)
_INSERT_TEXT = insert(order_text)
_INSERT_EVENT = insert(event)


def insert_order(
    connection: Connection, new: NewOrder, request: StoredRequest, notes: Notes = NO_NOTES
) -> Order:
    """Write a new order, what it asks and what is noted; its number says when it came."""
    order = to_order(
        connection.execute(_INSERT_ORDER, {**new._asdict(), "state": State.QUEUED.value}).one()
    )
    row = {"order_id": order.id, "request": request.to_json(), "notes": to_text(notes)}
    connection.execute(_INSERT_TEXT, row)
    return order


def add_events(connection: Connection, kind: str, at_us: int, subjects: Sequence[Subject]) -> None:
    """Write down what happened to orders."""
    if subjects:
        event_of_all = {"kind": kind, "at_us": at_us}
        connection.execute(_INSERT_EVENT, [one._asdict() | event_of_all for one in subjects])


MAX_IDS = 5000
"""Parameters of one statement at most: PostgreSQL takes 65,535, SQLite 32,766."""

_BY_ID = select(orders).where(orders.c.id == bindparam("id"))
_BY_IDS = select(orders).where(orders.c.id.in_(bindparam("ids", expanding=True)))
_LOCK_BY_IDS = _BY_IDS.order_by(orders.c.id).with_for_update()
_BY_KEY = select(orders).where(
    orders.c.account == bindparam("account"), orders.c.idempotency_key == bindparam("key")
)


def get_order(connection: Connection, order_id: str) -> Order | None:
    """Return an order by its id."""
    row = connection.execute(_BY_ID, {"id": order_id}).one_or_none()
    return None if row is None else to_order(row)


def get_orders(
    connection: Connection, ids: Iterable[str], *, lock: bool = False
) -> dict[str, Order]:
    """Several orders, by id; the unknown ones are left out.

    Args:
        connection: the transaction.
        ids: which.
        lock: keep others from changing them until it ends. Locks go by id, always; on SQLite the
            write lock is all of them.
    """
    wanted = sorted(set(ids))
    if not wanted:
        return {}
    query = _LOCK_BY_IDS if lock else _BY_IDS
    found: dict[str, Order] = {}
    for start in range(0, len(wanted), MAX_IDS):
        rows = connection.execute(query, {"ids": wanted[start : start + MAX_IDS]})
        found |= {row.id: to_order(row) for row in rows}
    return found


_STOPPED_OF = select(orders.c.id).where(
    orders.c.id.in_(bindparam("ids", expanding=True)), orders.c.state.in_(sorted(STOPPED))
)


def stopped_of(connection: Connection, ids: Iterable[str]) -> set[str]:
    """Return those of some orders that have ended, or are set aside.

    The rest of them may be in whatever form.
    """
    return set(connection.execute(_STOPPED_OF, {"ids": sorted(set(ids))}).scalars())


def find_by_key(connection: Connection, account: str, key: str) -> tuple[Order, str] | None:
    """Return an account's order under an idempotency key, and the call's fingerprint."""
    row = connection.execute(_BY_KEY, {"account": account, "key": key}).one_or_none()
    return None if row is None else (to_order(row), str(row.fingerprint))


_RELEASE_KEY = (
    update(orders)
    .where(orders.c.id == bindparam("which"))
    .values(idempotency_key=None, fingerprint=None)
)


def release_key(connection: Connection, order_id: str) -> None:
    """Let the idempotency key of an order buy again. Its row is locked."""
    connection.execute(_RELEASE_KEY, {"which": order_id})


def add_refund(connection: Connection, order_id: str, amount: int) -> None:
    """Note on an order what an operator gave back of its charge, in winston."""
    connection.execute(
        update(orders).where(orders.c.id == order_id).values(refunded=orders.c.refunded + amount)
    )


def list_orders(
    connection: Connection,
    *,
    account: str | None = None,
    state: State | None = None,
    before_seq: int | None = None,
    limit: int = 100,
) -> list[Order]:
    """Orders, the newest first, a page at a time."""
    query = select(orders).order_by(orders.c.seq.desc()).limit(limit)
    if account is not None:
        query = query.where(orders.c.account == account)
    if state is not None:
        query = query.where(orders.c.state == state)
    if before_seq is not None:
        query = query.where(orders.c.seq < before_seq)
    return [to_order(row) for row in connection.execute(query)]


# As text: the database's driver would parse it, and one row that it cannot parse would be all.
REQUEST = cast(order_text.c.request, Text).label("request")

_ANSWER_OF = select(order_text.c.answer).where(order_text.c.order_id == bindparam("id"))


def get_answer(connection: Connection, order_id: str) -> str | None:
    """Return the text that an order ended with, possibly empty; None if it was deleted."""
    row = connection.execute(_ANSWER_OF, {"id": order_id}).one_or_none()
    return None if row is None else str(row.answer or "")


class TextOf(NamedTuple):
    """An order as who deletes old texts looks at it; `ended_us` is None before its end."""

    seq: int
    id: str
    submitted_us: int
    ended_us: int | None
    has_text: bool


_TEXTS_AFTER = (
    select(
        orders.c.seq,
        orders.c.id,
        orders.c.submitted_us,
        orders.c.ended_us,
        order_text.c.order_id.is_not(None).label("has_text"),
    )
    .join_from(orders, order_text, order_text.c.order_id == orders.c.id, isouter=True)
    .where(orders.c.seq > bindparam("after"))
    .order_by(orders.c.seq)
    .limit(bindparam("limit"))
)


_TEXTS_OF_AFTER = _TEXTS_AFTER.where(orders.c.account == bindparam("account"))


def texts_after(
    connection: Connection, seq: int, limit: int, *, account: str | None = None
) -> list[TextOf]:
    """Return orders after one, in the order of their numbers, and whether they have a text.

    Args:
        connection: a transaction.
        seq: the number of the order behind which to begin.
        limit: how many at most.
        account: only this account's.
    """
    values = {"after": seq, "limit": limit}
    if account is None:
        rows = connection.execute(_TEXTS_AFTER, values)
    else:
        rows = connection.execute(_TEXTS_OF_AFTER, {**values, "account": account})
    return [TextOf._make(row) for row in rows]


def delete_texts(connection: Connection, ids: Iterable[str]) -> None:
    """Forget prompts and texts; the orders, their receipts and transfers stay."""
    connection.execute(delete(order_text).where(order_text.c.order_id.in_(sorted(ids))))


_DISPATCHED_EVENT = (
    select(func.max(event.c.seq))
    .where(event.c.order_id == bindparam("which"), event.c.kind == "dispatched")
    .scalar_subquery()
)
_FLOWED = select(
    exists().where(
        event.c.seq > _DISPATCHED_EVENT,
        event.c.kind.in_(["started", State.COMPLETED.value]),
    )
)


def messages_flowed_since_dispatch(connection: Connection, order_id: str) -> bool:
    """Return whether any worker began or finished anything after this order was last sent out.

    If none did, the broker lost more than this order's message, or nobody was there to take it.
    """
    return bool(connection.execute(_FLOWED, {"which": order_id}).scalar_one())
