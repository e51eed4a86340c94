"""The requests of a client to a gateway. Pure: no connection, no clock."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from herder import errors
from herder.client.http.bodies import encoded
from herder.interface import CountOptions, OrderCall, QuoteCall, QuoteOptions

ANSWER_S = 30.0
"""Seconds that an answer may take."""
WAIT_S = 30
"""The longest wait for an order's end in one request."""
HOT_S = 0.1
"""A gateway that holds no lines is asked again no sooner, in seconds."""


@dataclass(frozen=True, slots=True)
class Call:
    """A request: what it is, and whether sending it twice does what sending it once does."""

    method: str
    path: str
    content: bytes | None = None
    """The body, as JSON."""
    more_headers: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str | int] | None = None

    @property
    def headers(self) -> dict[str, str]:
        """Those that it is sent with, besides the connection's."""
        kind = {} if self.content is None else {"Content-Type": "application/json"}
        return kind | dict(self.more_headers)


def order_call(prompt: str | None, tokens: int | None, given: OrderCall, key: object) -> Call:
    """Return a submission; `key` makes it one order however often it is sent.

    Args:
        prompt: the text, or None where there are messages.
        tokens: the most tokens to generate.
        given: the rest.
        key: the idempotency key.

    Raises:
        InvalidIdempotencyKey: the key cannot travel in a header.
        InvalidRequest: something of the call cannot travel in JSON.
    """
    if not isinstance(key, str) or not re.fullmatch(r"[!-~]([ -~]*[!-~])?", key):
        raise errors.InvalidIdempotencyKey(
            "Over HTTP an idempotency_key must be printable ASCII characters."
        )
    body = _asked(prompt, tokens, given)
    asked = given.get("sampling", {})
    sampling = {name: value for name, value in asked.items() if value is not None}
    content = encoded(body, sampling=sampling)
    return Call("POST", "/v1/orders", content, {"Idempotency-Key": key})


def of_order(
    method: str, order_id: str, rest: str = "", body: dict[str, Any] | None = None
) -> Call:
    """Return a call about an order.

    Raises:
        OrderNotFound: the id is not valid, so it is not put into a path.
        InvalidRequest: something of the body cannot travel in JSON.
    """
    if not re.fullmatch(r"[0-9A-Za-z-]{1,64}", order_id):
        raise errors.OrderNotFound(errors.shown(order_id))
    content = None if body is None else encoded(body)
    return Call(method, f"/v1/orders/{order_id}{rest}", content)


def quote_call(prompt: str | None, tokens: int | None, given: QuoteCall | QuoteOptions) -> Call:
    """Return a question for the price."""
    return Call("POST", "/v1/quotes", encoded(_asked(prompt, tokens, given)))


def count_call(prompt: str | None, given: CountOptions) -> Call:
    """Return a question for the number of a prompt's tokens."""
    body = {
        name: value for name, value in given.items() if value is not None and value is not False
    }
    if prompt is not None:
        body["prompt"] = prompt
    return Call("POST", "/v1/tokenize", encoded(body))


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
    for name in ("raw", "special", "continue_final_message"):
        if not body.get(name, True):
            del body[name]
    if prompt is not None:
        body["prompt"] = prompt
    return body | {"tokens": tokens}


def held_s(left_s: float | None) -> int:
    """Seconds to hold a line for, of those that a caller has left; None: any number."""
    return WAIT_S if left_s is None else max(0, min(WAIT_S, math.ceil(left_s)))
