"""Views of webhooks: plain data, without secrets and without message contents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from herder.store.deliveries import Delivery
    from herder.store.webhooks import Endpoint


def shown(one: Endpoint) -> dict[str, Any]:
    """Return a webhook as JSON would have it."""
    return {
        "id": one.id,
        "account": one.account,
        "url": one.url,
        "types": list(one.types),
        "include_text": one.include_text,
        "enabled": one.enabled,
        "why": one.why,
        "failing_since_us": one.failing_since_us,
        "created_us": one.created_us,
        "old_secret_until_us": one.old_until_us,
    }


def shown_delivery(one: Delivery) -> dict[str, Any]:
    """Return a message as JSON would have it."""
    return {
        "id": one.id,
        "type": one.type,
        "subject": one.subject,
        "state": one.state,
        "created_us": one.created_us,
        "tries": one.tries,
        "tried_us": one.tried_us,
        "next_us": one.due_us if one.state == "pending" else None,
        "status": one.status,
        "trouble": one.trouble,
    }
