"""Rows that are written of orders at each of their steps; `herder.store.book` writes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from herder.domain.order import Order, State
from workers.wire import Outcome


class NewOrder(NamedTuple):
    """An order that was taken, as it begins; the fields are columns.

    Attributes:
        rank: its place in the book.
        prompt_fee, fee_per_token: the rates that it has for good.
        bid_factor: a fraction as text.
        fingerprint: of the call, where that came with an idempotency key.
    """

    id: str
    account: str
    model: str
    rank: int
    fee: int
    needed: int
    prompt_fee: int
    fee_per_token: int
    charge_unused: bool
    bid_factor: str
    automatic: bool
    words: int
    tokens: int
    reference: str | None
    idempotency_key: str | None
    fingerprint: str | None
    api_key: str | None
    message: str | None
    hold_id: str
    start_by_us: int | None
    run_limit_s: int | None
    submitted_us: int


class Subject(NamedTuple):
    """The subject of an event.

    Attributes:
        attempt: the order's, at that time.
        instance: the worker that had it then.
        detail: what else is to be known.
    """

    order_id: str
    attempt: int = 0
    instance: str | None = None
    detail: str | None = None


class DispatchedRow(NamedTuple):
    """An order is sent out: a new attempt.

    Attributes:
        seq: the order's number.
        instance: the worker that it is sent to; nobody else may claim it.
        run_limit_s: how long it may run.
        dispatched_us: the time.
        deadline_heard_s: when its claim runs out, on the listening clock.
    """

    seq: int
    instance: str
    nonce: str
    run_limit_s: int
    dispatched_us: int
    deadline_heard_s: int


class BoundRow(NamedTuple):
    """A worker showed up with an attempt, which is running there from now on.

    Attributes:
        seq: the order's number.
        instance, worker, weights: who has it.
        began_us: when it began, unless it had begun before.
        tried: 1 where no worker had this attempt before, else 0.
        deadline_heard_s: when its lease runs out, on the listening clock.
        overdue_heard_s: when it is ended whatever its worker says, unless that was set before.
    """

    seq: int
    instance: str
    worker: str
    weights: str
    began_us: int
    tried: int
    deadline_heard_s: int
    overdue_heard_s: int


class RenewedRow(NamedTuple):
    """A worker named an attempt again, whose lease runs out then, on the listening clock."""

    seq: int
    deadline_heard_s: int


class RequeuedRow(NamedTuple):
    """An order waits again.

    Attributes:
        seq: the order's number.
        still_open: whether a late answer of its attempt still counts.
        tries, dispatches: as they count from now on.
        begun: whether a worker ever began it.
        instance, worker, weights: whom its attempt was sent to, and who claimed it, if anybody did.
    """

    seq: int
    still_open: bool
    tries: int
    dispatches: int
    begun: bool
    instance: str | None
    worker: str | None
    weights: str | None


class EndedRow(NamedTuple):
    """An order ends, and stands so then; but for its number, the fields are columns."""

    seq: int
    state: State
    instance: str | None
    worker: str | None
    weights: str | None
    started_us: int | None
    tries: int
    ended_us: int | None
    finish_reason: str | None
    prompt_tokens: int
    generated: int
    charged: int
    returned: int
    failure: dict[str, object] | None

    @classmethod
    def of(cls, ended: Order) -> EndedRow:
        """Take it from an order as it ended."""
        return cls(
            ended.seq,
            ended.state,
            ended.instance,
            ended.worker,
            ended.weights,
            ended.started_us,
            ended.tries,
            ended.ended_us,
            ended.finish_reason,
            ended.prompt_tokens,
            ended.generated,
            ended.charged,
            ended.returned,
            ended.failure,
        )

    @classmethod
    def from_json(cls, seq: int, stored: Mapping[str, Any]) -> EndedRow:
        """Read it as it was stored, be it by a newer or an older herder.

        Args:
            seq: the order's number, which is not stored.
            stored: the other fields.

        Raises:
            ValueError: it does not say how the order was to end.
        """
        missing = [name for name in cls._fields[1:] if name not in stored]
        if missing:
            raise ValueError(f"{', '.join(missing)} are missing")
        known = {name: stored[name] for name in cls._fields[1:]}
        return cls(**{**known, "seq": seq, "state": State(known["state"])})

    def to_json(self) -> dict[str, Any]:
        """Return it as it is stored."""
        return {name: value for name, value in self._asdict().items() if name != "seq"}

    def applied_to(self, order: Order) -> Order:
        """Return the order as it stands once it has ended so."""
        return replace(order, attempt_open=False, **self._asdict())


class AnswerRow(NamedTuple):
    """The text that an order ended with; but for the order, the fields are columns.

    Attributes:
        which: the order's id.
        answer: what it is answered with.
        reasoning: what the model thought before.
        reasoning_tokens: the generated tokens that went into that.
    """

    which: str
    answer: str
    reasoning: str | None
    reasoning_tokens: int

    @classmethod
    def of(cls, order_id: str, outcome: Outcome, generated: int) -> AnswerRow:
        """Take it from the part of an outcome that counts.

        Args:
            order_id: the order's.
            outcome: its text, reasoning first.
            generated: the tokens that count.
        """
        text, cut = outcome.text, outcome.reasoning
        tokens = min(outcome.reasoning_tokens, generated)
        return cls(order_id, text[cut:], text[:cut] or None, tokens)


class RankedRow(NamedTuple):
    """An order has another rank.

    Attributes:
        seq: the order's number.
        fee: as the rank was worked out for; an order that has another by now keeps its rank.
    """

    seq: int
    fee: int
    rank: int
