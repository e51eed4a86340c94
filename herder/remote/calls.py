"""What a client sends to a gateway, and what comes back. Pure: no connection, no clock."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, TypedDict, TypeVar

from herder import errors
from herder.receipts import Bid, Info, ModelInfo, Quote, Rate, Receipt, Result, Usage

TRIES = 6
"""Times that a call is sent before its failure is told: some five seconds."""
STREAM_TRIES = 9
"""Times in a row that a stream may break and bring nothing: most of a minute."""
LONGEST_PAUSE_S = 20.0
ANSWER_S = 30.0
"""Seconds that an answer may take."""
WAIT_S = 30
"""How long a line is held for an order's end before it is asked for anew."""
ENDED = {"completed", "failed", "cancelled", "expired"}
PASSING = {502, 503, 504}
"""Statuses after which the same call may succeed."""

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


_CODES: dict[str, type[errors.HerdError]] = {
    kind.code: kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, errors.HerdError)
}


def error_of(status: int, body: bytes) -> errors.HerdError:
    """The error that an answer tells: the same as on the herder's machine."""
    try:
        told = json.loads(body)["error"]
        code, message = str(told["code"]), str(told["message"])
        data = {str(name): value for name, value in (told.get("data") or {}).items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return errors.HerdUnavailable(f"The gateway answered {status}, and no herd's error.")
    kind = _CODES.get(code, errors.InvalidRequest if status < 500 else errors.HerdUnavailable)
    if issubclass(kind, errors.OrderEnded):
        kind = errors.HerdError
    error = kind.__new__(kind, message)
    errors.HerdError.__init__(error, message, **data)
    for name, value in data.items():
        setattr(error, name, value)
    return error


def away(error: Exception | None) -> errors.HerdUnavailable:
    """The error of a gateway that does not answer, or cuts its lines."""
    why = type(error).__name__ if error is not None else "it ends each line"
    return errors.HerdUnavailable(f"The gateway is out of reach ({why}); try again.")


# What comes back


def _built(kind: type[T], found: Mapping[str, Any], **more: Any) -> T:
    """Plain data as its class; what a newer gateway sends beside it is left out."""
    names = {one.name for one in fields(kind)}  # type: ignore[arg-type]
    return kind(
        **{name: found[name] for name in names if name in found and name not in more}, **more
    )


def receipt_of(found: Mapping[str, Any]) -> Receipt:
    """A receipt."""
    return _built(Receipt, found, rates=Rate(**found["rates"]))


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


def quote_of(found: Mapping[str, Any]) -> Quote:
    """A quote."""
    curve = [_built(Bid, one) for one in found["curve"]]
    return _built(Quote, found, rates=Rate(**found["rates"]), curve=curve)


def info_of(found: Mapping[str, Any]) -> Info:
    """What serves there."""
    models = [_built(ModelInfo, one, rates=Rate(**one["rates"])) for one in found["models"]]
    return _built(Info, found, models=models)


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
                yield Event(self._kind, json.loads("\n".join(self._data)), self._id)
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
