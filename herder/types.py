"""Quotes, info, receipts and results for clients. Plain data, safe to print or dump.

Amounts are integer winston; multipliers are decimals as text, since a float is no money,
rounded up where they do not end.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    pass


PLACE_COUNTED = 1000
"""The last place in a queue that is counted exactly: counting a million rows for each caller would
make the book slower as it grows."""

PLACE_UNKNOWN = PLACE_COUNTED + 2
"""The place of an order that has more than that before it, while nobody has counted how many."""

MULTIPLIER = (
    "fee / needed, as a decimal, rounded up in its sixth place: what the order offers for each "
    "winston that it needs. The highest is served first, and what is delivered is charged at it."
)
BID_FACTOR = (
    "The `multiplier` that the call gave: a factor on its fee, or on the automatic one; 1 where it "
    "gave none."
)
"""The descriptions of a receipt's fields in /openapi.json."""


@dataclass(frozen=True, slots=True)
class Rate:
    """A model's rates in winston."""

    prompt_fee: int
    fee_per_token: int


@dataclass(frozen=True, slots=True)
class Bid:
    """A bid, and what it would buy now; amounts in winston.

    Attributes:
        multiplier: `fee / needed`.
        place, place_exact, wait_s: as those of `Quote`.
    """

    fee: int
    multiplier: str
    place: int
    place_exact: bool
    wait_s: int | None


@dataclass(frozen=True, slots=True)
class Quote:
    """A quote: what an order would need, cost and wait for now.

    Attributes:
        fee: in winston: the automatic one, or the one that was named, times the multiplier.
        multiplier: `fee / needed`.
        place: 1 for the head of the queue.
        place_exact: False where the queue is too long to be counted for one caller: then the place
            is an estimate, or `PLACE_UNKNOWN` where all that is known is that it is no better.
        wait_s: seconds until it would start, or None while nothing measured says.
        waiting_for_workers: no worker of this model is alive.
        curve: what other fees would buy.
        expires: until when `quote` holds (RFC 3339).
        quote: the quote, signed: an order of this account, model, words and tokens that names it
            has these rates, and pays this fee if it names none. Place and wait it does not promise.
    """

    account: str
    model: str
    words: int
    tokens: int
    rates: Rate
    needed: int
    fee: int
    multiplier: str
    place: int
    place_exact: bool
    wait_s: int | None
    waiting_for_workers: bool
    curve: list[Bid]
    expires: str
    quote: str

    def to_dict(self) -> dict[str, Any]:
        """Return the quote as JSON would have it."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class TokenCount:
    """The tokens of a prompt, counted by a worker that has the model.

    Attributes:
        prompt_tokens: of the prompt with the model's chat template, unless it is raw.
        context: tokens that one order may have, prompt and answer together.
    """

    model: str
    prompt_tokens: int
    context: int

    def to_dict(self) -> dict[str, Any]:
        """Return the count as JSON would have it."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Place:
    """The place of an order in the queue now; fields as those of `Quote`."""

    place: int
    place_exact: bool
    wait_s: int | None
    waiting_for_workers: bool


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model as the herd offers it now.

    Attributes:
        last_multiplier: of the order that started last, as far as it still counts; a decimal,
            rounded up in its ninth place, so that who offers it is not outbid by it.
        queue_length_exact: False where the length is an estimate, and at least `PLACE_COUNTED` + 1.
        wait_s: as in a quote, for an order behind all that wait.
    """

    name: str
    rates: Rate
    last_multiplier: str
    queue_length: int
    queue_length_exact: bool
    context: int | None
    workers: int
    slots: int
    free_slots: int
    weights: list[str]
    wait_s: int | None


@dataclass(frozen=True, slots=True)
class Info:
    """The herd's name, models, queues and workers.

    The original's Info answered name, version, rates, last multiplier and queue length; the
    herd, the models and the wait to expect are ours.
    """

    name: str
    version: str
    default_model: str
    models: list[ModelInfo]

    @property
    def model(self) -> ModelInfo:
        """The default model."""
        return next(model for model in self.models if model.name == self.default_model)

    def to_dict(self) -> dict[str, Any]:
        """Return the answer as JSON would have it."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as the model counted them.

    Attributes:
        generated: all that were generated and are charged.
        reasoning_tokens: those of them that went into reasoning.
    """

    prompt_tokens: int
    generated: int
    reasoning_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Receipt:
    """A receipt: what an order cost and why; amounts in winston, times in milliseconds.

    Attributes:
        multiplier: `fee / needed`, as a decimal: what it offered for each winston that it needed.
            It ranked the order, and for each winston of what was delivered it was charged.
        bid_factor: the `multiplier` that the call gave: a factor on its fee, or on the automatic
            one. 1 where it gave none.
        automatic: whether the herd chose the fee before that factor.
        held: what is still held; 0 once the order ended.
        refunded: what an operator gave back later.
        attempts: how often it was given to a worker.
        weights: what the worker did to the model's weights.
        waited_ms: from submission to its start on a worker.
        took_ms: from that start to its end.
    """

    order: str
    account: str
    model: str
    state: str
    needed: int
    fee: int
    multiplier: str = field(metadata={"description": MULTIPLIER})
    bid_factor: str = field(metadata={"description": BID_FACTOR})
    automatic: bool
    rates: Rate
    words: int
    tokens: int
    generated: int
    charged: int
    returned: int
    held: int
    refunded: int
    attempts: int
    worker: str | None
    weights: str | None
    reference: str | None
    submitted_us: int
    waited_ms: int | None
    took_ms: int | None
    failure: dict[str, object] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the receipt as JSON would have it."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Result:
    """An order's answer.

    Attributes:
        text: the answer; partial where the order did not complete.
        finish_reason: `stop`, `length`, `deadline` or `cancelled`; None where nothing ran.
        text_deleted: the text is empty because it was deleted since.
        metadata: what the caller noted with the order; deleted with its text.
        request_id: `X-Request-Id` of the call that the order was taken by; deleted likewise.
        reasoning: what the model thought before its answer; deleted with that.
    """

    order: str
    text: str
    finish_reason: str | None
    usage: Usage
    receipt: Receipt
    reference: str | None = None
    text_deleted: bool = False
    metadata: dict[str, str] | None = None
    request_id: str | None = None
    reasoning: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON would have it."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class NamedBalance:
    """An account with what it has, in winston."""

    account: str
    posted: int
    held: int
    available: int


@dataclass(frozen=True, slots=True)
class StatementEntry:
    """An entry of an account's statement, seen from its side, in winston.

    Attributes:
        seq: its place: the cursor for the next page.
        transfer: the id of the transfer behind it.
        at_us: when, in microseconds since the epoch.
        kind: `deposit`, `grant`, `withdrawal`, `sent`, `received`, `hold`, `charge`, `release` or
            `refund`.
        amount: what it changed of what the account has.
        held: what it changed of what of that is held.
        order: the order that it was for.
        counterparty: of `sent` and `received`: the other account.
        period: of a grant: the day, week or month that it is for.
        note: the operator's words.
    """

    seq: int
    transfer: str
    at_us: int
    kind: str
    amount: int
    held: int
    order: str | None
    counterparty: str | None
    period: str | None
    note: str | None
