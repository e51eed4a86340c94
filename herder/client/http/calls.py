"""The requests of a client to a gateway, and their answers. Pure: no connection, no clock."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache, wraps
from typing import Any, TypeVar

from httpx_sse import ServerSentEvent
from pydantic import TypeAdapter

from herder import errors
from herder.interface import OrderCall, QuoteCall, QuoteOptions
from herder.types import (
    Info,
    NamedBalance,
    Quote,
    Receipt,
    Result,
    StatementEntry,
)

PAGE = 100
"""The most that a gateway lists in one answer."""
ANSWER_S = 30.0
"""Seconds that an answer may take."""
MAX_CURSOR_CHARS = 64
WAIT_S = 30
"""How long a line is held for an order's end before it is asked for anew."""
HOT_S = 0.1
"""A gateway that holds no lines is asked again no sooner, in seconds."""
ENDED = {"completed", "failed", "cancelled", "expired"}
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Call:
    """A request: what it is, and whether sending it twice does what sending it once does."""

    method: str
    path: str
    body: dict[str, Any] | None = None
    headers: Mapping[str, str] | None = None
    query: Mapping[str, str | int] | None = None


def order_call(prompt: str | None, tokens: int | None, given: OrderCall, key: object) -> Call:
    """Return a submission; `key` makes it one order however often it is sent.

    Args:
        prompt: the text, or None where there are messages.
        tokens: the most tokens to generate.
        given: the rest.
        key: the idempotency key.

    Raises:
        InvalidKey: the key cannot travel in a header.
    """
    if not isinstance(key, str) or not re.fullmatch(r"[!-~]([ -~]*[!-~])?", key):
        raise errors.InvalidKey("Over HTTP an idempotency_key must be printable ASCII characters.")
    body = _asked(prompt, tokens, given)
    asked = given.get("sampling", {})
    sampling = {name: value for name, value in asked.items() if value is not None}
    if bias := asked.get("logit_bias"):
        sampling["logit_bias"] = {str(token): value for token, value in bias.items()}
    if sampling:
        body["sampling"] = sampling
    return Call("POST", "/v1/orders", body, {"Idempotency-Key": key})


def of_order(
    method: str, order_id: str, rest: str = "", body: dict[str, Any] | None = None
) -> Call:
    """Return a call about an order.

    Raises:
        OrderNotFound: the id is not valid, so it is not put into a path.
    """
    if not re.fullmatch(r"[0-9A-Za-z-]{1,64}", order_id):
        raise errors.OrderNotFound(errors.shown(order_id))
    return Call(method, f"/v1/orders/{order_id}{rest}", body)


def quote_call(prompt: str | None, tokens: int | None, given: QuoteCall | QuoteOptions) -> Call:
    """Return a question for the price."""
    return Call("POST", "/v1/quotes", _asked(prompt, tokens, given))


def _asked(
    prompt: str | None, tokens: int | None, given: OrderCall | QuoteCall | QuoteOptions
) -> dict[str, Any]:
    if given.get("account") is not None:
        raise errors.InvalidRequest("The account is always that of the API key; leave account out.")
    ours = {"sampling", "account", "idempotency_key"}
    body: dict[str, Any] = {
        name: value for name, value in given.items() if name not in ours and value is not None
    }
    if isinstance(start_by := body.get("start_by"), datetime):
        body["start_by"] = start_by.isoformat()
    if "stop" in body and not isinstance(body["stop"], str):
        body["stop"] = list(body["stop"])
    if not body.get("raw", True):
        del body["raw"]
    if prompt is not None:
        body["prompt"] = prompt
    return body | {"tokens": tokens}


def held_s(left_s: float | None) -> int:
    """Seconds to hold a line for, of those that a caller has left; None: any number."""
    return WAIT_S if left_s is None else max(0, min(WAIT_S, math.ceil(left_s)))


# What comes back

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def decoded(content: bytes) -> Any:
    """Return an answer's JSON.

    Raises:
        SetupError: the answer is not in this form.
    """
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        raise _no_answer() from None


def require_events(headers: Mapping[str, str]) -> None:
    """Refuse an answer that is not a stream of events.

    Raises:
        SetupError: it is something else.
    """
    if not headers.get("content-type", "").startswith("text/event-stream"):
        raise _no_answer()


def _no_answer() -> errors.SetupError:
    return errors.SetupError(
        "The server that answered is not a herd's gateway; is the address right?"
    )


def _shaped(read: Callable[[Any], T]) -> Callable[[Any], T]:
    """Have an answer of another form told as what it is."""

    @wraps(read)
    def read_safely(found: Any) -> T:
        try:
            return read(found)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
            raise _no_answer() from None

    return read_safely


@cache
def _reader_of(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _built(kind: type[T], found: Mapping[str, Any], **more: Any) -> T:
    """Plain data as its class; what a newer gateway sends beside it is left out.

    Raises:
        ValueError: something is missing, or of another type.
    """
    hashable: Any = kind
    built: T = _reader_of(hashable).validate_python({**found, **more})
    return built


@_shaped
def receipt_of(found: Mapping[str, Any]) -> Receipt:
    """Return a receipt."""
    return _built(Receipt, found)


@_shaped
def result_of(found: Mapping[str, Any]) -> Result:
    """Return an order's answer, of `GET /v1/orders/{id}`."""
    receipt = receipt_of(found["receipt"])
    text = found["text"] or ""
    if not isinstance(text, str):
        raise TypeError("no text")
    result = _built(
        Result,
        found,
        order=found["id"],
        text="",
        usage=found["usage"] or {"prompt_tokens": 0, "generated": 0},
        receipt=receipt,
        reference=receipt.reference,
    )
    return replace(result, text=text)  # which pydantic would refuse for a lone surrogate


@_shaped
def quote_of(found: Mapping[str, Any]) -> Quote:
    """Return a quote."""
    return _built(Quote, found)


@_shaped
def info_of(found: Mapping[str, Any]) -> Info:
    """Return what serves there."""
    return _built(Info, found)


@_shaped
def taken_of(found: Mapping[str, Any]) -> Receipt:
    """Return the receipt of an order that was taken, of `POST /v1/orders`."""
    return receipt_of(found["receipt"])


@_shaped
def orders_of(found: Mapping[str, Any]) -> tuple[list[Receipt], str | None]:
    """Return a page of orders, and the cursor of the next one, if there is one."""
    orders = [receipt_of(one) for one in found["orders"]]
    # A page with nothing on it is the last, whatever it says: else there may be no end of them.
    return orders, _built_cursor(found["next"]) if orders else None


@_shaped
def balance_of(found: Mapping[str, Any]) -> NamedBalance:
    """Return an account's balance."""
    return _built(NamedBalance, found)


@_shaped
def statement_of(found: Mapping[str, Any]) -> tuple[list[StatementEntry], int | None]:
    """Return a page of a statement, and the cursor of the next one, if there is one."""
    entries = [_built(StatementEntry, one, at_us=_us_of(one["at"])) for one in found["entries"]]
    after = found["next"] if entries else None
    if after is not None and type(after) is not int:
        raise TypeError("no cursor")
    return entries, after


def _built_cursor(found: object) -> str | None:
    if found is not None and (not isinstance(found, str) or len(found) > MAX_CURSOR_CHARS):
        raise TypeError("no cursor")
    return found


def _us_of(moment: str) -> int:
    return (datetime.fromisoformat(moment) - _EPOCH) // timedelta(microseconds=1)


class TextOf:
    """The text of an order's events, and where a reader who was cut off goes on."""

    def __init__(self, order_id: str) -> None:
        self._order = order_id
        self._shown = 0
        self.last: str | None = None
        self.ended = False

    def take(self, event: ServerSentEvent) -> str:
        """Return the text that an event brings; often none.

        Raises:
            StreamRestarted: what was shown counts for nothing.
            SetupError: it is not an event of a gateway.
        """
        if event.event == "text":
            text = _text_of(decoded(event.data.encode("utf-8", "replace")))
            self._shown += len(text)
            # It is sent back in a header.
            self.last = event.id if re.fullmatch(r"[!-~]{1,64}", event.id) else None
            return text
        if event.event == "restart":
            raise errors.StreamRestarted(self._order, self._shown)
        self.ended = self.ended or event.event == "receipt"
        return ""


@_shaped
def _text_of(found: Any) -> str:
    text = found["text"]
    if not isinstance(text, str):
        raise TypeError("no text")
    return text
