"""Kombu's Redis transport, which survives bytes that are no message.

Kombu unpacks what stands in a queue before any consumer sees it, and whatever that raises ends the
worker: one LPUSH by a stranger would stop every worker that reads it, and each that is started
after it. Here what cannot be read is logged and dropped; the guard looks at all the rest.
"""

from __future__ import annotations

from typing import Any

import structlog
from kombu import transport
from kombu.transport import redis as kombu_redis

_log = structlog.get_logger("workers.transport")

_UNREADABLE = (ValueError, TypeError, AttributeError, LookupError, RecursionError)
"""What unpacking raises; of the connection's own errors (kombu counts KeyError among them) none."""


class SturdyChannel(kombu_redis.Channel):  # type: ignore[misc]
    """Reads a queue, and goes on after what it cannot read."""

    def _brpop_read(self, **options: Any) -> bool:
        try:
            return bool(super()._brpop_read(**options))
        except _UNREADABLE as error:
            _log.warning("message_refused", reason=f"unreadable: {type(error).__name__}")
            return True


class SturdyTransport(kombu_redis.Transport):  # type: ignore[misc]
    """Kombu's transport with that channel."""

    Channel = SturdyChannel


def use_sturdy_redis() -> None:
    """From here on, `redis://` means this transport in this process."""
    for scheme in ("redis", "rediss"):
        transport.TRANSPORT_ALIASES[scheme] = f"{__name__}:{SturdyTransport.__name__}"
