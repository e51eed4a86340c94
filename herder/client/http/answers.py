"""The answers of a gateway, as the classes of `herder.types`. Pure: no connection, no clock."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache, wraps
from typing import Any, TypeVar

from pydantic import TypeAdapter

from herder import errors
from herder.types import Info, NamedBalance, Quote, Receipt, Result, StatementEntry, TokenCount

MAX_CURSOR_CHARS = 64
STOPPED = {"completed", "failed", "cancelled", "expired", "set_aside"}
"""States in which nobody waits any more: `set_aside` is one that operators end."""
T = TypeVar("T")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def decoded(content: bytes) -> Any:
    """Return an answer's JSON.

    Raises:
        SetupError: the answer is not in this form.
    """
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        raise no_answer() from None


def no_answer() -> errors.SetupError:
    """Return the error for what no gateway sends."""
    return errors.SetupError(
        "The server that answered is not a herd's gateway; is the address right?"
    )


def shaped(read: Callable[[Any], T]) -> Callable[[Any], T]:
    """Have an answer of another form told as what it is."""

    @wraps(read)
    def read_safely(found: Any) -> T:
        try:
            return read(found)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
            raise no_answer() from None

    return read_safely


PARTS = ("database", "redis", "broker", "herder")
"""The parts of a herd that every order needs, as `/readyz` names them."""
MAX_SENTENCE_CHARS = 200


def obstacle_of(found: Any) -> str | None:
    """Return the fault of a part that every order needs, from the answer of `/readyz`.

    >>> obstacle_of({"checks": {"redis": "ok", "broker": "It is full.", "worker": "None."}})
    'It is full.'
    """
    checks = found.get("checks") if isinstance(found, dict) else None
    if not isinstance(checks, dict):
        return None
    wrong = [str(checks[part]) for part in PARTS if checks.get(part, "ok") != "ok"]
    return wrong[0][:MAX_SENTENCE_CHARS] if wrong else None


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


@shaped
def receipt_of(found: Mapping[str, Any]) -> Receipt:
    """Return a receipt."""
    return _built(Receipt, found)


@shaped
def result_of(found: Mapping[str, Any]) -> Result:
    """Return an order's answer, of `GET /v1/orders/{id}`."""
    receipt = receipt_of(found["receipt"])
    text, reasoning = found["text"] or "", found.get("reasoning") or ""
    if not isinstance(text, str) or not isinstance(reasoning, str):
        raise TypeError("no text")
    result = _built(
        Result,
        found,
        order=found["id"],
        text="",
        reasoning="",
        usage=found["usage"] or {"prompt_tokens": 0, "generated": 0},
        receipt=receipt,
        reference=receipt.reference,
    )
    # which pydantic would refuse for a lone surrogate
    return replace(result, text=text, reasoning=reasoning)


@shaped
def quote_of(found: Mapping[str, Any]) -> Quote:
    """Return a quote."""
    return _built(Quote, found)


@shaped
def count_of(found: Mapping[str, Any]) -> TokenCount:
    """Return the number of a prompt's tokens."""
    return _built(
        TokenCount,
        {
            "model": found["model"],
            "prompt_tokens": found["count"],
            "context": found["max_model_len"],
        },
    )


@shaped
def info_of(found: Mapping[str, Any]) -> Info:
    """Return the description of the herd that serves there."""
    return _built(Info, found)


@shaped
def taken_of(found: Mapping[str, Any]) -> Receipt:
    """Return the receipt of an order that was taken, of `POST /v1/orders`."""
    return receipt_of(found["receipt"])


@shaped
def orders_of(found: Mapping[str, Any]) -> tuple[list[Receipt], str | None]:
    """Return a page of orders, and the cursor of the next one, if there is one."""
    orders = [receipt_of(one) for one in found["orders"]]
    # A page with nothing on it is the last, whatever it says: else there may be no end of them.
    return orders, _built_cursor(found["next"]) if orders else None


@shaped
def balance_of(found: Mapping[str, Any]) -> NamedBalance:
    """Return an account's balance."""
    return _built(NamedBalance, found)


@shaped
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
