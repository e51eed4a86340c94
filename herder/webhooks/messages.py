"""The body and headers of a message."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection

from herder.domain.periods import moment
from herder.store import orders as order_sql
from herder.store.deliveries import Delivery
from herder.store.webhooks import Endpoint
from herder.version import __version__
from herder.webhooks.events import MESSAGE_TYPE, ORDER_TYPES
from herder.webhooks.signing import Sealer, sign

MAX_TEXT_BYTES = 262_144
"""The longest text that a message carries; the order's own route has all of it."""


@dataclass(frozen=True, slots=True)
class WebhookRequest:
    """One try at a message.

    Attributes:
        url: where it goes, as the account gave it.
        headers: those of the specification, and the kind of the body.
        body: what is signed.
    """

    url: str
    headers: dict[str, str] = field(repr=False)
    body: bytes = field(repr=False)


class Unreadable(Exception):
    """Raised when a message cannot be read: another version wrote it, or it is damaged."""


def data_of(connection: Connection, delivery: Delivery, endpoint: Endpoint) -> dict[str, Any]:
    """Return the body of a message, with the order's text where the endpoint asked for it.

    The text is looked up at each try: it stands in one place only, from which it may be deleted.

    Raises:
        Unreadable: what it says is not what such a message says.
    """
    if delivery.data is None:
        raise Unreadable
    data = dict(delivery.data)
    if not endpoint.include_text:
        return data
    if delivery.type in ORDER_TYPES:
        kept, about = _text_of(connection, delivery.subject)
        data |= {"text": kept, **about}
    elif delivery.type == MESSAGE_TYPE:
        order_id, tags = data.get("order", 0), data.get("tags")
        if not isinstance(order_id, str | None) or not isinstance(tags, dict):
            raise Unreadable
        if order_id is not None:
            kept, about = _text_of(connection, order_id)
            data |= {"tags": {**tags, "Data": kept}, **about}
    return data


def _text_of(connection: Connection, order_id: str) -> tuple[str, dict[str, bool]]:
    text = order_sql.get_answer(connection, order_id)
    kept = _cut(text or "")
    return kept, {"text_deleted": text is None, "text_cut": kept != (text or "")}


def _cut(text: str) -> str:
    raw = text.encode(errors="surrogatepass")
    if len(raw) <= MAX_TEXT_BYTES:
        return text
    return raw[:MAX_TEXT_BYTES].decode(errors="ignore")


def make_request(
    delivery: Delivery, endpoint: Endpoint, data: dict[str, Any], sealer: Sealer, now_us: int
) -> WebhookRequest:
    """Return a message as it is sent now.

    Args:
        delivery: the message.
        endpoint: to whom.
        data: as `data_of` found it.
        sealer: opens the endpoint's secrets.
        now_us: the time.

    Raises:
        SetupError: the secret was sealed under another key.
        Unreadable: it cannot be written as JSON, or its time is not valid.
    """
    try:
        happened = moment(delivery.created_us)
    except OverflowError:
        raise Unreadable from None
    document = {
        "type": delivery.type,
        "timestamp": happened.isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "data": data,
    }
    # ASCII: a lone surrogate, which no UTF-8 holds, is escaped like any other.
    try:
        body = json.dumps(document, allow_nan=False, separators=(",", ":")).encode()
    except (ValueError, RecursionError):
        raise Unreadable from None
    keys = [sealer.open(endpoint.secret, endpoint.id)]
    if endpoint.old_secret is not None and now_us < (endpoint.old_until_us or 0):
        keys.append(sealer.open(endpoint.old_secret, endpoint.id))
    now_s = now_us // 1_000_000
    headers = {
        "content-type": "application/json",
        "user-agent": f"llama-herder/{__version__}",
        "webhook-id": delivery.id,
        "webhook-timestamp": str(now_s),
        "webhook-signature": sign(delivery.id, now_s, body, keys),
    }
    return WebhookRequest(endpoint.url, headers, body)
