"""The shapes of requests and answers; what `herder.types` has is answered as it is.

What the values may be is order intake's to say.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr
from pydantic.config import JsonDict

from herder.domain.parsing import MAX_REFERENCE_CHARS
from herder.gateway.schemas.template_args import TemplateFields
from herder.interface import CountOptions, OrderCall, QuoteCall
from herder.types import Place, Receipt, Usage
from herder.web.shapes import Must, Refused
from workers.wire import (
    MAX_MESSAGES,
    MAX_RUN_LIMIT_S,
    MAX_STOP_CHARS,
    MAX_STOPS,
    MAX_TOKENS,
    Sampling,
)

Winston = Annotated[StrictInt, Field(ge=1, description="Whole winston.")]
BASE_OR_WINSTON = (
    "The fee in whole winston; `base` for exactly what is needed, whatever others paid; automatic "
    "if left out."
)
Fee = Annotated[
    Winston | Literal["base"] | None,
    Must('a whole number of winston of at least 1, or "base"'),
    Field(description=BASE_OR_WINSTON),
]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Real = Annotated[Number | None, Must("a number")]
Whole = Annotated[StrictInt | None, Must("a whole number")]
Text = Annotated[StrictStr | None, Must("text")]
Multiplier = Annotated[
    Number | StrictStr | None,
    Must("a number"),
    Field(description="A factor on the fee; in receipts, it is `bid_factor`."),
]


def _shown(**schema: Any) -> Any:
    """Bounds that order intake keeps, for those who read the document."""
    return Field(None, json_schema_extra=schema)


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Message(_Body):
    """A turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: StrictStr


_PROMPTED: JsonDict = {
    "oneOf": [
        {"required": ["prompt"], "properties": {"prompt": {"type": "string"}}},
        {"required": ["messages"], "properties": {"messages": {"type": "array"}}},
    ],
    "examples": [{"prompt": "What is a llama?", "tokens": 20}],
}


_BOUNDS = Sampling.model_json_schema()["properties"]
_KEPT = (
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "maxLength",
    "maxProperties",
    "minItems",
    "maxItems",
)


def _bounded(name: str, **schema: Any) -> Any:
    """Show the bounds that workers hold a sampling parameter to."""
    told = {**_BOUNDS[name], **_BOUNDS[name].get("anyOf", [{}])[0]}
    return _shown(**{one: told[one] for one in _KEPT if one in told}, **schema)


class SamplingFields(BaseModel):
    """The sampling parameters that every route takes by these names."""

    temperature: Real = _bounded("temperature")
    top_p: Real = _bounded("top_p")
    top_k: Whole = _bounded("top_k")
    min_p: Real = _bounded("min_p")
    repeat_penalty: Real = _bounded("repeat_penalty")
    frequency_penalty: Real = _bounded("frequency_penalty")
    presence_penalty: Real = _bounded("presence_penalty")
    seed: Whole = _bounded("seed")
    ignore_eos: Annotated[StrictBool | None, Must("true or false")] = _bounded(
        "ignore_eos",
        description="Go on where the model would end, until the tokens are there or a stop string "
        "comes; not beside a form that the answer must have.",
    )
    grammar: Text = _bounded("grammar")


class SamplingBody(_Body, SamplingFields):
    """The sampling parameters; the herd's defaults apply to those left out."""

    logit_bias: Annotated[
        dict[str, Number] | None, Refused("must map token numbers to numbers")
    ] = _bounded("logit_bias", propertyNames={"pattern": "^[0-9]{1,9}$"})
    json_schema: Text = _bounded("json_schema")
    regex: Text = _bounded("regex")
    choice: Annotated[list[StrictStr] | None, Must("a list of texts")] = _bounded(
        "choice", description="Texts of which the answer is one."
    )


class _AskedBody(_Body):
    """The content of an order, or of a quote of one."""

    model_config = ConfigDict(json_schema_extra=_PROMPTED)

    prompt: StrictStr | None = _shown(minLength=1)
    messages: list[Message] | None = _shown(minItems=1, maxItems=MAX_MESSAGES)
    tokens: Annotated[StrictInt, Field(json_schema_extra={"minimum": 1, "maximum": MAX_TOKENS})]
    fee: Fee = None
    multiplier: Multiplier = None
    max_fee: Winston | None = None
    model: StrictStr | None = None

    def _others(self) -> dict[str, Any]:
        return self.model_dump(exclude={"prompt", "tokens"}, exclude_none=True)


_SPECIAL = "Of a raw prompt: what is written as a control token is that token."
_CONTINUES = "Continue the last message, which must be the assistant's."


class TokenizeBody(_Body, TemplateFields):
    """The prompt whose tokens are to be counted."""

    model_config = ConfigDict(json_schema_extra=_PROMPTED)

    prompt: StrictStr | None = _shown(minLength=1)
    messages: list[Message] | None = _shown(minItems=1, maxItems=MAX_MESSAGES)
    raw: StrictBool = Field(
        False, description="Count the prompt as it is, without the model's chat template."
    )
    special: StrictBool = Field(False, description=_SPECIAL)
    continue_final_message: StrictBool = Field(False, description=_CONTINUES)
    model: StrictStr | None = None

    def asked(self) -> CountOptions:
        """Return the call, without the prompt."""
        return cast(CountOptions, self.model_dump(exclude={"prompt"}, exclude_none=True))


class TokenizeAnswer(BaseModel):
    """The number of a prompt's tokens, in the names of vLLM's route; without the tokens."""

    model: str
    count: int
    max_model_len: int = Field(
        description="Tokens that one order may have, prompt and answer together."
    )


class BidBody(_Body):
    """A bid to be compared: a fee, or a multiplier of what the order needs."""

    fee: Winston | None = None
    multiplier: Multiplier = None


class QuoteBody(_AskedBody):
    """The order to quote, and at most 20 bids to compare; the usual ones by default."""

    bids: list[BidBody] | None = None

    def call(self) -> QuoteCall:
        """Return the call, without prompt and tokens."""
        return cast(QuoteCall, self._others())


class OrderBody(_AskedBody, TemplateFields):
    """An order."""

    quote: StrictStr | None = Field(
        None, description="The signed text of a quote that has not expired."
    )
    raw: StrictBool = Field(
        False, description="Send the prompt to the model as it is, without its chat template."
    )
    special: StrictBool = Field(False, description=_SPECIAL)
    continue_final_message: StrictBool = Field(False, description=_CONTINUES)
    stop: Annotated[StrictStr | list[StrictStr] | None, Must("text or a list of texts")] = _shown(
        minLength=1, maxLength=MAX_STOP_CHARS, maxItems=MAX_STOPS
    )
    sampling: SamplingBody | None = None
    reference: StrictStr | None = _shown(maxLength=MAX_REFERENCE_CHARS)
    start_by: StrictStr | None = Field(
        None,
        description="A time with its zone (RFC 3339).",
        json_schema_extra={"format": "date-time"},
    )
    run_limit_s: StrictInt | None = _shown(minimum=1, maximum=MAX_RUN_LIMIT_S)

    def call(self) -> OrderCall:
        """Return the call, without prompt and tokens."""
        return cast(OrderCall, self._others())


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
    reasoning: Annotated[
        str | None, Field(description="What the model thought before its answer, if it did.")
    ] = None
    text_deleted: bool = False
    finish_reason: str | None = None
    usage: Usage | None = None
    metadata: dict[str, str] | None = None
    request_id: str | None = None


class OrdersAnswer(BaseModel):
    """A page of orders, the newest first; `next` is the cursor of the page after it."""

    orders: list[Receipt]
    next: str | None


class KeyAnswer(BaseModel):
    """The rights of the API key that asks."""

    id: str
    scopes: list[str]
    max_fee: int | None
    spending_limit: int | None
    held: int
    charged: int


class AccountAnswer(BaseModel):
    """An account's money, and what the key that asks may still spend of it."""

    account: str
    posted: int
    held: int
    available: int
    key: KeyAnswer


class EntryAnswer(BaseModel):
    """One entry of a statement; fields as of `herder.types.StatementEntry`."""

    seq: int
    transfer: str
    at: datetime
    kind: str
    amount: int
    held: int
    order: str | None
    counterparty: str | None
    period: str | None = Field(description="The period of a grant: a day, a week or a month.")
    note: str | None


class StatementAnswer(BaseModel):
    """Entries, oldest first; `next` is the cursor of the page after it."""

    entries: list[EntryAnswer]
    next: int | None


class SentAnswer(BaseModel):
    """A message that was taken; its answer comes into the inbox, with `in_reply_to` its id."""

    id: str
    order: str | None = Field(
        description="The order that the message created, if it was a paid prompt."
    )


class MessageAnswer(BaseModel):
    """A message in the inbox."""

    seq: int
    at: datetime | None
    in_reply_to: str | None
    order: str | None
    tags: dict[str, str]
    text_deleted: bool = False


class InboxAnswer(BaseModel):
    """Messages, oldest first; `next` is the cursor of what comes after them, now or later."""

    messages: list[MessageAnswer]
    next: int
