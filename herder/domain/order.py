"""The order: its states, the legal steps between them, and what a client may ask for. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from fractions import Fraction
from typing import Literal

from herder.domain.fitting import TokenWish
from herder.domain.notes import NO_NOTES, Notes
from herder.domain.pricing import Rates
from herder.domain.quote_terms import Terms
from workers.wire import AttemptRef, ChatMessage, Sampling, TemplateArg


class State(StrEnum):
    """The state of an order."""

    QUEUED = "queued"
    DISPATCHED = "dispatched"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    SET_ASIDE = "set_aside"
    """It cannot be ended: an operator decides, and its fee stays held (`orders.set_aside`)."""

    @property
    def ended(self) -> bool:
        """Whether this is for ever: an order ends exactly once."""
        return self in ENDED

    @property
    def stopped(self) -> bool:
        """Whether nothing more happens by itself: it has ended, or an operator has to decide."""
        return self in STOPPED


ENDED = frozenset({State.COMPLETED, State.FAILED, State.CANCELLED, State.EXPIRED})
STOPPED = ENDED | {State.SET_ASIDE}
"""Whoever waits for an order is told now: the next step may be days away, or never come."""

WAITING = frozenset({State.QUEUED, State.DISPATCHED})

STEPS: dict[State, frozenset[State]] = {
    State.QUEUED: frozenset({State.DISPATCHED, State.RUNNING}) | ENDED,
    State.DISPATCHED: frozenset({State.QUEUED, State.RUNNING}) | ENDED,
    State.RUNNING: frozenset({State.QUEUED}) | ENDED,
    State.SET_ASIDE: frozenset({State.QUEUED}) | ENDED,
    **{state: frozenset() for state in ENDED},
}
"""The legal steps. `queued` to `running`, or to an end, is a late beat or answer of an attempt
that lapsed and was not dispatched again. Whatever has not ended may be set aside as well."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """The input of the model: either a text or the messages of a conversation."""

    text: str | None
    messages: tuple[ChatMessage, ...] | None = None
    raw: bool = False
    """True: the text reaches the model as it is, without its chat template."""
    special: bool = False
    """True, of a raw text: what is written in it as a control token is that token."""
    continues: bool = False
    """True: the answer continues the last of the messages, which is the assistant's."""

    template_args: Mapping[str, TemplateArg] = field(default_factory=dict, hash=False)
    """Variables that the caller sets for the model's chat template."""

    @property
    def counted(self) -> str:
        """What words are counted in: the text, or the contents joined by newlines."""
        if self.messages is not None:
            return "\n".join(message.content for message in self.messages)
        return self.text or ""


DEFAULT_SAMPLING = Sampling()


@dataclass(frozen=True, slots=True)
class OrderRequest:
    """A client's call, parsed: whatever stands here is within its bounds.

    Attributes:
        tokens: the most tokens to generate; where there is a `wish`, the most that fit.
        fee: winston offered; `base` for what it needs, whatever others paid; None for the automatic
            fee.
        bid_factor: the call's `multiplier`: a factor on the fee.
        max_fee: winston above which the call is refused, or None.
        model: its name, or None for the herd's default.
        start_by_us: when it has to have begun, in microseconds since the epoch, or None.
        run_limit_s: the longest run in seconds, or None for ten times what the tokens take.
    """

    account: str
    prompt: Prompt
    tokens: int
    fee: int | Literal["base"] | None = None
    bid_factor: Fraction = Fraction(1)
    max_fee: int | None = None
    model: str | None = None
    stop: tuple[str, ...] = ()
    sampling: Sampling = DEFAULT_SAMPLING
    reference: str | None = None
    idempotency_key: str | None = None
    start_by_us: int | None = None
    run_limit_s: int | None = None
    api_key: str | None = None
    """The id of the API key that it was bought with; None for a program on the herder's machine."""
    quote: Terms | None = None
    """The quote that it names, whose signature was checked; `quote_terms` says what it does."""
    message: str | None = None
    """The id of the message that it came by, which its end answers."""
    wish: TokenWish | None = None
    """The number of tokens that is cut to what fits; None: `tokens`, and no other number."""
    notes: Notes = NO_NOTES
    """The notes that come with it; they change nothing about it."""


@dataclass(frozen=True, slots=True)
class Order:
    """One paid prompt as it stands in the database; amounts in winston, times in microseconds.

    `bid_factor` is a fraction as text: it is only shown, and parsing it for each step of an order
    was a tenth of a herder's time.
    """

    id: str
    seq: int
    account: str
    model: str
    state: State
    rank: int
    fee: int
    needed: int
    rates: Rates
    charge_unused: bool
    bid_factor: str
    automatic: bool
    words: int
    tokens: int
    reference: str | None
    hold_id: str
    holds: int
    """The number of its holds so far: a re-bid places a new one."""
    start_by_us: int | None
    run_limit_s: int | None
    submitted_us: int
    attempt: int
    nonce: str | None
    attempt_open: bool
    """True while the current attempt may still answer."""
    dispatched_us: int | None
    instance: str | None
    """The worker instance that the current attempt was sent to, and that alone may claim it; None
    for one that a herder of before this rule sent to any worker."""
    worker: str | None
    """The name of the worker that claimed the current attempt; None while nobody has."""
    weights: str | None
    started_us: int | None
    begun: bool
    """True once a worker has begun it; then `start_by_us` no longer ends it."""
    call_off: str | None
    """The reason for which the running attempt is to stop: `cancelled` or `deadline`."""
    deadline_heard_s: int | None
    """The end of its claim or lease, on the listening clock."""
    overdue_heard_s: int | None
    """The time at which it is ended whatever its worker says, on the listening clock."""
    tries: int
    dispatches: int
    ended_us: int | None
    finish_reason: str | None
    prompt_tokens: int
    generated: int
    charged: int
    returned: int
    refunded: int
    failure: dict[str, object] | None
    api_key: str | None = None
    """The id of the API key that it was bought with."""
    message: str | None = None
    """The id of the message that it came by."""

    @property
    def multiplier(self) -> Fraction:
        """What it offers for each winston that it needs."""
        return Fraction(self.fee, self.needed)

    @property
    def waits(self) -> bool:
        """Whether no worker has it: then cancelling it charges nothing."""
        return self.state in WAITING

    @property
    def held(self) -> int:
        """What is still held of its money, in winston."""
        return 0 if self.state.ended else self.fee

    @property
    def current(self) -> AttemptRef | None:
        """The current attempt, as messages name it; None before the first."""
        if self.nonce is None:
            return None
        return AttemptRef(order=self.id, attempt=self.attempt, nonce=self.nonce)
