"""The readers of orders, here and at other gateways, and what is done when the last has gone.

A caller who disconnects may come back: a client's time-out is followed by the same call within
seconds. So an order that is to be cancelled then is cancelled after a grace, and only if nobody
reads it any more, here or at another gateway. Whoever goes last decides.

Each gateway tells the others through Redis which orders are read at it, as a lease that it renews;
those that are read for a moment only are never told. Where Redis is out of reach each gateway
counts by itself. What is remembered of callers who have gone is in this process alone: if it is
killed, nothing is cancelled.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, cast

import redis.asyncio
import structlog
from redis import RedisError

from workers.transport.loops import TaskLoop

_log = structlog.get_logger("herder.gateway")

CONNECTIONS = 4
TIMEOUT_S = 2
LOOK_S = 0.5
LEASE_S = 15
RENEW_S = 4.0
MAX_AT_ONCE = 500
"""Orders that one message to Redis is about."""
MAX_AWAITED = 10_000
"""Orders whose callers may come back; beyond that one is cancelled without a grace."""

_NOW = """
local clock = redis.call('TIME')
local now_ms = clock[1] * 1000 + math.floor(clock[2] / 1000)
"""
KEEP = (
    _NOW
    + """
for _, key in ipairs(KEYS) do
    redis.call('ZADD', key, string.format('%.0f', now_ms + ARGV[2]), ARGV[1])
    redis.call('PEXPIRE', key, ARGV[2])
end
"""
)
"""Renews one gateway's lease on orders that are read at it, by Redis's own clock."""
LEAVE = (
    _NOW
    + """
local others = {}
for i, key in ipairs(KEYS) do
    redis.call('ZREM', key, ARGV[1])
    redis.call('ZREMRANGEBYSCORE', key, '-inf', string.format('%.0f', now_ms))
    others[i] = redis.call('ZCARD', key)
end
return others
"""
)
"""Ends one gateway's leases; how many other gateways each order is read at. In one step, so that of
two gateways that leave at once the second sees that it is alone."""


def connect(url: str) -> redis.asyncio.Redis:
    """Return a client of Redis for short commands, each of which waits two seconds at most."""
    pool = redis.asyncio.BlockingConnectionPool.from_url(
        url,
        decode_responses=True,
        max_connections=CONNECTIONS,
        timeout=TIMEOUT_S,
        socket_timeout=TIMEOUT_S,
        socket_connect_timeout=TIMEOUT_S,
        socket_keepalive=True,
        health_check_interval=10,
    )
    return redis.asyncio.Redis.from_pool(pool)


class Presence(Protocol):
    """Tells the gateways of each other's readers. Errors are redis-py's own."""

    async def keep(self, orders: Sequence[str]) -> None:
        """Say that these orders are read here."""

    async def leave(self, orders: Sequence[str]) -> list[int]:
        """Say that they are read here no longer; at how many other gateways each is."""


class RedisPresence:
    """The readers of one gateway, in Redis.

    Args:
        client: of Redis.
        gateway: the id of this gateway, drawn at its start.
    """

    def __init__(self, client: redis.asyncio.Redis, gateway: str) -> None:
        self._redis = client
        self._gateway = gateway

    async def keep(self, orders: Sequence[str]) -> None:
        """See `Presence.keep`."""
        for some in _pieces(orders):
            await self._ask(KEEP, some, LEASE_S * 1000)

    async def leave(self, orders: Sequence[str]) -> list[int]:
        """See `Presence.leave`."""
        return [int(one) for some in _pieces(orders) for one in await self._ask(LEAVE, some)]

    async def _ask(self, script: str, orders: Sequence[str], *more: int) -> Any:
        keys = [f"readers:{order_id}" for order_id in orders]
        return await cast("Any", self._redis.eval(script, len(keys), *keys, self._gateway, *more))


def _pieces(orders: Sequence[str]) -> Iterator[Sequence[str]]:
    for begin in range(0, len(orders), MAX_AT_ONCE):
        yield orders[begin : begin + MAX_AT_ONCE]


class Reading:
    """One caller who reads an order, until one of its methods is called; later calls do nothing."""

    def __init__(self, readers: Readers, order_id: str) -> None:
        self._readers: Readers | None = readers
        self._order_id = order_id

    def close(self) -> None:
        """Stop reading; the order has ended, or goes on."""
        readers, self._readers = self._readers, None
        if readers is not None:
            readers.end(self._order_id)

    def leave(self, *, may_return: bool) -> None:
        """Have the order cancelled if nobody reads it any more.

        Args:
            may_return: whether the caller may come back: the grace is waited for.
        """
        readers, self._readers = self._readers, None
        if readers is not None:
            readers.leave(self._order_id, may_return=may_return)


class Readers:
    """The readers of a gateway's orders. For the event loop's thread.

    Args:
        presence: tells of readers at other gateways.
        cancel: has an order cancelled; returns at once.
        grace_s: seconds that a caller who has gone has to come back.
        clock_s: a clock that only rises, in seconds.
    """

    def __init__(
        self,
        presence: Presence,
        cancel: Callable[[str], object],
        *,
        grace_s: float,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._presence = presence
        self._cancel = cancel
        self._grace_s = grace_s
        self._clock_s = clock_s
        self._open: Counter[str] = Counter()
        self._awaited: dict[str, float] = {}
        self._told: set[str] = set()
        self._renewed_s = clock_s()
        self._loop = TaskLoop(
            "readers",
            self.step,
            every_s=LOOK_S,
            outages=(RedisError,),
            retry_s=(0.1, LOOK_S),
            log=_log,
        )

    def enter(self, order_id: str, *, is_new: bool = False) -> Reading:
        """Count a reader of an order; one whose caller is awaited is not cancelled.

        Args:
            order_id: the order.
            is_new: whether the order was made for this reader alone: nobody has to be told yet.
        """
        self._open[order_id] += 1
        self._awaited.pop(order_id, None)
        if not is_new and order_id not in self._told:
            self._loop.wake()
        return Reading(self, order_id)

    def end(self, order_id: str) -> None:
        """See `Reading.close`."""
        self._open[order_id] -= 1
        if not self._open[order_id]:
            del self._open[order_id]
            if order_id in self._told:
                self._loop.wake()

    def leave(self, order_id: str, *, may_return: bool) -> None:
        """See `Reading.leave`."""
        self.end(order_id)
        if order_id in self._open:
            return  # whoever goes last decides
        waits = may_return and len(self._awaited) < MAX_AWAITED
        self._awaited[order_id] = self._clock_s() + (self._grace_s if waits else 0)
        self._loop.wake()

    async def step(self) -> None:
        """Cancel what nobody came back to, and tell the other gateways what is read here.

        Raises:
            RedisError: they are not told; the next step does.
        """
        now_s = self._clock_s()
        await self._cancel_unread(
            {one: at_s for one, at_s in self._awaited.items() if at_s <= now_s}
        )
        here = self._open.keys() | self._awaited.keys()
        if gone := sorted(self._told - here):
            await self._presence.leave(gone)
            # Whoever came meanwhile is told of again by the next step.
            self._told.difference_update(gone)
        is_due = now_s - self._renewed_s >= RENEW_S
        if telling := sorted(here if is_due else here - self._told):
            await self._presence.keep(telling)
            self._told.update(telling)
        if is_due:
            self._renewed_s = now_s

    async def _cancel_unread(self, due: Mapping[str, float]) -> None:
        """Cancel those of some orders that nobody reads at another gateway either.

        Args:
            due: until when the callers of each are awaited here.
        """
        if not due:
            return
        try:
            others = await self._presence.leave(list(due))
            self._told.difference_update(due)
        except RedisError as error:
            # It is out of reach of the other gateways too, and their callers get no text.
            _log.warning("readers_not_known", orders=len(due), reason=type(error).__name__)
            others = [0] * len(due)
        for (order_id, at_s), count in zip(due.items(), others, strict=True):
            if self._awaited.get(order_id) != at_s:
                continue  # somebody came meanwhile
            del self._awaited[order_id]
            if not count:
                self._cancel(order_id)

    def start(self) -> None:
        """Begin, within the event loop."""
        self._loop.start()

    async def stop(self) -> None:
        """End: what was awaited is awaited no longer, and what is read goes on unread."""
        await self._loop.stop()
        await self._cancel_unread(dict(self._awaited))
        if self._told:
            try:
                await self._presence.leave(sorted(self._told))
            except RedisError as error:
                _log.info("readers_not_told", reason=type(error).__name__)
