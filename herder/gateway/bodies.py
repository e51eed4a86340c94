"""The shapes of requests and answers. What the values may be is the desk's to say."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr

Winston = Annotated[StrictInt, Field(ge=1, description="Whole winston.")]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Message(_Body):
    """A turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: StrictStr


class SamplingBody(_Body):
    """How tokens are chosen; what is left out is as the herd has it."""

    temperature: Number | None = None
    top_p: Number | None = None
    top_k: StrictInt | None = None
    min_p: Number | None = None
    repeat_penalty: Number | None = None
    frequency_penalty: Number | None = None
    presence_penalty: Number | None = None
    seed: StrictInt | None = None
    logit_bias: dict[str, Number] | None = None
    grammar: StrictStr | None = None
    json_schema: StrictStr | None = None


class QuoteBody(_Body):
    """What an order would be."""

    prompt: StrictStr | None = None
    messages: list[Message] | None = None
    tokens: StrictInt
    fee: Winston | None = None
    multiplier: Number | StrictStr | None = None
    max_fee: Winston | None = None
    model: StrictStr | None = None


class OrderBody(QuoteBody):
    """An order."""

    raw: StrictBool = False
    stop: StrictStr | list[StrictStr] | None = None
    sampling: SamplingBody | None = None
    reference: StrictStr | None = None
    start_by: StrictStr | None = Field(None, description="A time with its zone (RFC 3339).")
    run_limit_s: StrictInt | None = None


class RebidBody(_Body):
    """A new bid for an order that is queued."""

    fee: Winston


class RatesAnswer(BaseModel):
    """A model's rates in winston."""

    prompt_fee: int
    fee_per_token: int


class PlaceAnswer(BaseModel):
    """Where an order stands in the queue."""

    place: int
    place_exact: bool
    wait_s: int | None
    waiting_for_workers: bool


class ReceiptAnswer(BaseModel):
    """What an order costs and why; winston, milliseconds."""

    order: str
    account: str
    model: str
    state: Literal["queued", "dispatched", "running", "completed", "failed", "cancelled", "expired"]
    needed: int
    fee: int
    multiplier: str
    bid_factor: str
    automatic: bool
    rates: RatesAnswer
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
    failure: dict[str, Any] | None


class UsageAnswer(BaseModel):
    """Tokens as the model counted them."""

    prompt_tokens: int
    generated: int


class OrderAnswer(BaseModel):
    """An order as it stands: its receipt, its place while it is queued, its text once it ended."""

    id: str
    state: str
    receipt: ReceiptAnswer
    queue: PlaceAnswer | None
    text: str | None
    text_deleted: bool
    finish_reason: str | None
    usage: UsageAnswer | None


class OrdersAnswer(BaseModel):
    """A page of orders, the newest first; `next` is the cursor of the page after it."""

    orders: list[ReceiptAnswer]
    next: str | None


class QuoteAnswer(PlaceAnswer):
    """What an order would need, pay and wait for, as it would stand now; nothing is held."""

    account: str
    model: str
    words: int
    tokens: int
    rates: RatesAnswer
    needed: int
    fee: int
    multiplier: str


class AccountAnswer(BaseModel):
    """An account's money, and what the key that asks may still spend of it."""

    account: str
    posted: int
    held: int
    available: int
    key: dict[str, Any]


class EntryAnswer(BaseModel):
    """One entry of a statement."""

    seq: int
    at: datetime
    kind: str
    amount: int
    held: int
    order: str | None


class StatementAnswer(BaseModel):
    """Entries, oldest first; `next` is the cursor of the page after it."""

    entries: list[EntryAnswer]
    next: int | None
