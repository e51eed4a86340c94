"""The shapes of requests and answers; what `herder.receipts` has is answered as it is.

What the values may be is the desk's to say.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr

from herder.receipts import Place, Receipt, Usage

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


class _AskedBody(_Body):
    """What an order, or a quote of one, is about."""

    prompt: StrictStr | None = None
    messages: list[Message] | None = None
    tokens: StrictInt
    fee: Winston | None = None
    multiplier: Number | StrictStr | None = None
    max_fee: Winston | None = None
    model: StrictStr | None = None


class BidBody(_Body):
    """A bid to be compared: a fee, or a multiplier of what the order needs."""

    fee: Winston | None = None
    multiplier: Number | StrictStr | None = None


class QuoteBody(_AskedBody):
    """What an order would be, and the bids to be compared: at most 20; the usual ones if none."""

    bids: list[BidBody] | None = None


class OrderBody(_AskedBody):
    """An order."""

    quote: StrictStr | None = Field(None, description="The text of a quote that still holds.")
    raw: StrictBool = False
    stop: StrictStr | list[StrictStr] | None = None
    sampling: SamplingBody | None = None
    reference: StrictStr | None = None
    start_by: StrictStr | None = Field(None, description="A time with its zone (RFC 3339).")
    run_limit_s: StrictInt | None = None


class RebidBody(_Body):
    """A new bid for an order that is queued."""

    fee: Winston


class OrderAnswer(BaseModel):
    """An order as it stands: its receipt, its place while it is queued, its text once it ended."""

    id: str
    state: str
    receipt: Receipt
    queue: Place | None = None
    text: str | None = None
    text_deleted: bool = False
    finish_reason: str | None = None
    usage: Usage | None = None


class OrdersAnswer(BaseModel):
    """A page of orders, the newest first; `next` is the cursor of the page after it."""

    orders: list[Receipt]
    next: str | None


class AccountAnswer(BaseModel):
    """An account's money, and what the key that asks may still spend of it."""

    account: str
    posted: int
    held: int
    available: int
    key: dict[str, Any]


class EntryAnswer(BaseModel):
    """One entry of a statement; fields as of `herder.receipts.StatementEntry`."""

    seq: int
    transfer: str
    at: datetime
    kind: str
    amount: int
    held: int
    order: str | None
    counterparty: str | None
    note: str | None


class StatementAnswer(BaseModel):
    """Entries, oldest first; `next` is the cursor of the page after it."""

    entries: list[EntryAnswer]
    next: int | None
