"""What a client sends to a gateway, and what comes back. Pure: no connection, no clock."""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from functools import wraps
from typing import Any, TypedDict, TypeVar

from herder import errors
from herder.receipts import (
    Bid,
    Info,
    ModelInfo,
    NamedBalance,
    Quote,
    Rate,
    Receipt,
    Result,
    StatementEntry,
    Usage,
)
from herder.remote.failures import PASSING

TRIES = 6
"""Times that a call is sent before its failure is told: some five seconds."""
PAGE = 100
"""The most that a gateway lists in one answer."""
STREAM_TRIES = 9
"""Times in a row that a stream may break and bring nothing: most of a minute."""
LONGEST_PAUSE_S = 20.0
ANSWER_S = 30.0
"""Seconds that an answer may take."""
WAIT_S = 30
"""How long a line is held for an order's end before it is asked for anew."""
ENDED = {"completed", "failed", "cancelled", "expired"}
T = TypeVar("T")


class CallOptions(TypedDict, total=False):
    """What `submit` takes beside prompt and tokens; see `herder.submit`."""

    fee: int | None
    multiplier: float | str | None
    max_fee: int | None
    model: str | None
    messages: Sequence[dict[str, str]] | None
    raw: bool
    stop: str | Sequence[str] | None
    temperature: float | None
    top_p: float | None
    top_k: int | None
    min_p: float | None
    repeat_penalty: float | None
    frequency_penalty: float | None
    presence_penalty: float | None
    seed: int | None
    logit_bias: dict[int, float] | None
    grammar: str | None
    json_schema: str | None
    reference: str | None
    idempotency_key: str | None
    start_by: datetime | str | None
    run_limit_s: int | None
    quote: str | None


class QuoteOptions(TypedDict, total=False):
    """What `quote` takes beside prompt and tokens; see `herder.quote`."""

    fee: int | None
    multiplier: float | str | None
    max_fee: int | None
    model: str | None
    messages: Sequence[dict[str, str]] | None
    bids: Sequence[Mapping[str, int | float | str]] | None


SAMPLING = (
    *("temperature", "top_p", "top_k", "min_p", "repeat_penalty", "frequency_penalty"),
    *("presence_penalty", "seed", "logit_bias", "grammar", "json_schema"),
)


@dataclass(frozen=True, slots=True)
class Call:
    """A request: what it is, and whether sending it twice does what sending it once does."""

    method: str
    path: str
    body: dict[str, Any] | None = None
    headers: Mapping[str, str] | None = None
    query: Mapping[str, str | int] | None = None


def order_call(prompt: object, tokens: object, given: Mapping[str, Any], key: str) -> Call:
    """A submission; `key` makes it one order however often it is sent.

    Args:
        prompt: the text, or None where there are messages.
        tokens: the most tokens to generate.
        given: the rest, by the names of `herder.submit`; sampling beside or under `sampling`.
        key: the idempotency key.
    """
    body = _asked(prompt, tokens, given)
    sampling = {**given.get("sampling", {}), **{n: given[n] for n in SAMPLING if n in given}}
    sampling = {name: value for name, value in sampling.items() if value is not None}
    if bias := sampling.get("logit_bias"):
        sampling["logit_bias"] = {str(token): value for token, value in bias.items()}
    if sampling:
        body["sampling"] = sampling
    return Call("POST", "/v1/orders", body, {"Idempotency-Key": key})


def of_order(
    method: str, order_id: str, rest: str = "", body: dict[str, Any] | None = None
) -> Call:
    """A call about an order.

    Raises:
        OrderNotFound: no order is called so; what is no id is not put into a path.
    """
    if not re.fullmatch(r"[0-9A-Za-z-]{1,64}", order_id):
        raise errors.OrderNotFound(errors.shown(order_id))
    return Call(method, f"/v1/orders/{order_id}{rest}", body)


def quote_call(prompt: object, tokens: object, given: Mapping[str, Any]) -> Call:
    """A question for the price."""
    return Call("POST", "/v1/quotes", _asked(prompt, tokens, given))


def _asked(prompt: object, tokens: object, given: Mapping[str, Any]) -> dict[str, Any]:
    if given.get("account") is not None:
        raise errors.InvalidRequest("The account is that of the API key; leave account out.")
    ours = {"sampling", "account", "idempotency_key", *SAMPLING}
    body = {name: value for name, value in given.items() if name not in ours and value is not None}
    if isinstance(start_by := body.get("start_by"), datetime):
        body["start_by"] = start_by.isoformat()
    if "stop" in body and not isinstance(body["stop"], str):
        body["stop"] = list(body["stop"])
    if not body.get("raw", True):
        del body["raw"]
    if prompt is not None:
        body["prompt"] = prompt
    return body | {"tokens": tokens}


def pause_s(tried: int, retry_after: str | None, chance: random.Random) -> float:
    """How long to wait before the next try, in seconds: as told, else longer each time.

    Args:
        tried: how often the call was sent.
        retry_after: the answer's header.
        chance: spreads clients that failed together.
    """
    if retry_after is not None and retry_after.isdigit():
        return min(LONGEST_PAUSE_S, float(retry_after))
    return float(min(LONGEST_PAUSE_S, 0.1 * 2**tried) * chance.uniform(0.5, 1.0))


def held_s(left_s: float | None) -> int:
    """Seconds to hold a line for, of those that a caller has left; None: any number."""
    return WAIT_S if left_s is None else max(0, min(WAIT_S, math.ceil(left_s)))


def passes(status: int, tried: int) -> bool:
    """Whether a call that was answered so is sent again."""
    return tried < TRIES and status in PASSING


# What comes back

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def decoded(content: bytes) -> Any:
    """An answer's JSON.

    Raises:
        SetupError: it is none.
    """
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        raise _no_answer() from None


def require_events(headers: Mapping[str, str]) -> None:
    """Refuse an answer that is no stream of events.

    Raises:
        SetupError: it is something else.
    """
    if not headers.get("content-type", "").startswith("text/event-stream"):
        raise _no_answer()


def _no_answer() -> errors.SetupError:
    return errors.SetupError(
        "What answers there is no herd's gateway: it answers in another form; is the address right?"
    )


def _shaped(read: Callable[[Any], T]) -> Callable[[Any], T]:
    """Have an answer of another form told as what it is."""

    @wraps(read)
    def read_safely(found: Any) -> T:
        try:
            return read(found)
        except (KeyError, TypeError, ValueError, AttributeError):
            raise _no_answer() from None

    return read_safely


def _built(kind: type[T], found: Mapping[str, Any], **more: Any) -> T:
    """Plain data as its class; what a newer gateway sends beside it is left out."""
    names = {one.name for one in fields(kind)}  # type: ignore[arg-type]
    return kind(
        **{name: found[name] for name in names if name in found and name not in more}, **more
    )


@_shaped
def receipt_of(found: Mapping[str, Any]) -> Receipt:
    """A receipt."""
    return _built(Receipt, found, rates=Rate(**found["rates"]))


@_shaped
def result_of(found: Mapping[str, Any]) -> Result:
    """An order's answer, of `GET /v1/orders/{id}`."""
    receipt = receipt_of(found["receipt"])
    usage = found["usage"] or {"prompt_tokens": 0, "generated": 0}
    return Result(
        order=found["id"],
        text=found["text"] or "",
        finish_reason=found["finish_reason"],
        usage=Usage(usage["prompt_tokens"], usage["generated"]),
        receipt=receipt,
        reference=receipt.reference,
        text_deleted=found["text_deleted"],
    )


@_shaped
def quote_of(found: Mapping[str, Any]) -> Quote:
    """A quote."""
    curve = [_built(Bid, one) for one in found["curve"]]
    return _built(Quote, found, rates=Rate(**found["rates"]), curve=curve)


@_shaped
def info_of(found: Mapping[str, Any]) -> Info:
    """What serves there."""
    models = [_built(ModelInfo, one, rates=Rate(**one["rates"])) for one in found["models"]]
    return _built(Info, found, models=models)


@_shaped
def taken_of(found: Mapping[str, Any]) -> Receipt:
    """The receipt of an order that was taken, of `POST /v1/orders`."""
    return receipt_of(found["receipt"])


@_shaped
def orders_of(found: Mapping[str, Any]) -> tuple[list[Receipt], str | None]:
    """A page of orders, and the cursor of the next one."""
    return [receipt_of(one) for one in found["orders"]], found["next"]


@_shaped
def balance_of(found: Mapping[str, Any]) -> NamedBalance:
    """What an account has."""
    return _built(NamedBalance, found)


@_shaped
def statement_of(found: Mapping[str, Any]) -> tuple[list[StatementEntry], int | None]:
    """A page of a statement, and the cursor of the next one."""
    entries = [_built(StatementEntry, one, at_us=_us_of(one["at"])) for one in found["entries"]]
    return entries, found["next"]


def _us_of(moment: str) -> int:
    return (datetime.fromisoformat(moment) - _EPOCH) // timedelta(microseconds=1)


# Server-sent events


@dataclass(frozen=True, slots=True)
class Event:
    """A server-sent event."""

    kind: str
    data: Any
    id: str | None


class EventReader:
    """Lines to events (WHATWG HTML, 9.2.6)."""

    def __init__(self) -> None:
        self._kind = "message"
        self._data: list[str] = []
        self._id: str | None = None

    def take(self, line: str) -> Iterator[Event]:
        """One line; gives the event that it ends, if it does."""
        if not line:
            if self._data:
                yield Event(self._kind, decoded("\n".join(self._data).encode()), self._id)
            self.__init__()  # type: ignore[misc]
            return
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            self._kind = value
        elif name == "data":
            self._data.append(value)
        elif name == "id":
            self._id = value


class TextOf:
    """The text of an order's events, and where a reader who was cut off goes on."""

    def __init__(self, order_id: str) -> None:
        self._order = order_id
        self._shown = 0
        self.last: str | None = None
        self.ended = False

    def take(self, event: Event) -> str:
        """The text that an event brings; often none.

        Raises:
            StreamRestarted: what was shown counts for nothing.
        """
        if event.kind == "text":
            text = str(event.data["text"])
            self._shown += len(text)
            self.last = event.id
            return text
        if event.kind == "restart":
            raise errors.StreamRestarted(self._order, self._shown)
        self.ended = self.ended or event.kind == "receipt"
        return ""
