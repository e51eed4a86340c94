"""Texts of attempts for programs that run an event loop: read, and noted as handed out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import redis
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff

from workers.transport.delivery import Delivery, note
from workers.transport.streams import LIMIT_S, WAITS_S, TextPiece, pieces_of
from workers.wire import text_stream

MAX_AT_ONCE = 500
"""Pieces that one read takes at most; what there is beyond them the next one takes."""

FEW = 16
"""Connections that may stay open, whether or not they are needed."""


class TextReader:
    """Reads texts, each read on a connection of its own while it waits.

    Args:
        url: of Redis.
        most: reads that wait at once; further ones wait for those.
    """

    def __init__(self, url: str, most: int) -> None:
        pool = redis.asyncio.BlockingConnectionPool.from_url(
            url, max_connections=most, timeout=5, **_options(LIMIT_S + WAITS_S)
        )
        self._pool = pool
        self._redis = redis.asyncio.Redis.from_pool(pool)
        self._reading = 0
        self._most_lately = 0
        self._open = 0

    async def read(self, order: str, attempt: int, after: str, *, block_ms: int) -> list[TextPiece]:
        """Pieces of an attempt's text after an id; empty when none came in time.

        Raises:
            RedisError: Redis is out of reach.
        """
        key = text_stream(order, attempt)
        self._reading += 1
        self._most_lately = max(self._most_lately, self._reading)
        try:
            return pieces_of(
                await self._redis.xread({key: after}, count=MAX_AT_ONCE, block=block_ms)
            )
        finally:
            self._reading -= 1

    async def trim(self) -> None:
        """Close connections that nobody needed since the last call: the pool itself keeps all."""
        self._open = max(self._open, self._most_lately)
        if self._open > FEW and self._most_lately <= self._open // 2:
            # The idle ones; they come back one by one as they are needed.
            await self._pool.disconnect(inuse_connections=False)
            self._open = self._most_lately
        self._most_lately = self._reading

    async def close(self) -> None:
        """Give the connections back."""
        await self._redis.aclose()


class DeliveryWriter:
    """Writes down what readers of texts were given.

    Args:
        url: of Redis.
    """

    def __init__(self, url: str) -> None:
        self._redis = redis.asyncio.Redis.from_url(url, **_options(LIMIT_S))

    async def write(self, deliveries: Sequence[Delivery]) -> None:
        """Write some, all or none.

        Raises:
            RedisError: Redis is out of reach.
        """
        async with self._redis.pipeline(transaction=True) as pipe:
            note(pipe, deliveries)
            await pipe.execute()

    async def close(self) -> None:
        """Give the connection back."""
        await self._redis.aclose()


def _options(timeout_s: float) -> dict[str, Any]:
    return {
        "decode_responses": True,
        "encoding_errors": "replace",  # whatever a stranger wrote there is read all the same
        "socket_timeout": timeout_s,
        "socket_connect_timeout": LIMIT_S,
        "socket_keepalive": True,
        "health_check_interval": 10,
        "retry": Retry(ExponentialBackoff(cap=0.5, base=0.05), 1, (redis.ConnectionError,)),
    }
