"""Calls per minute, counted in the process and shared among gateways through Redis.

A call is judged by what this gateway knows, without waiting for anybody; several times a second the
gateways add up in Redis what each let through, so that many of them let through what one would.
Where Redis is out of reach each gateway goes on by what it knows itself: nobody is turned away for
that, and nobody is let through without end.

The rule is a leaky bucket of a minute, GCRA: a name may call a whole minute's worth at once, and
then as often as the rate says. What is kept of a name is when its bucket will be empty.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import redis.asyncio
import structlog
from redis import RedisError

from workers.transport.loops import TaskLoop

_log = structlog.get_logger("herder.gateway")

MINUTE_US = 60_000_000
NAMES = 100_000
"""Names that are kept at most; beyond that the oldest are forgotten first."""
MAX_AT_ONCE = 500
"""Names that one message to Redis is about."""
SHARE_S = 0.2
TIMEOUT_S = 2

ADD_UP = """
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local full = {}
for i, key in ipairs(KEYS) do
    local empty = tonumber(redis.call('GET', key) or '0')
    if empty < now then empty = now end
    empty = empty + tonumber(ARGV[i])
    full[i] = empty - now
    redis.call('SET', key, string.format('%.0f', empty), 'PX', math.ceil(full[i] / 1000) + 1)
end
return full
"""
"""Pours into the buckets of several names, in one step, by Redis's own clock: how full each is
then, in microseconds. Lua's numbers are exact far beyond the microseconds of this century."""


class Adder(Protocol):
    """Whoever adds up what the gateways let through."""

    async def add(self, keys: list[str], poured: list[int]) -> list[int]:
        """Pour microseconds into buckets; how full each is then.

        Raises:
            RedisError: they are out of reach.
        """


@dataclass(slots=True)
class _Bucket:
    empty_us: int
    """The time at which it will be empty, on this process's clock."""
    unshared_us: int = 0
    """The amount poured in here that is not in Redis yet."""


class CallRate:
    """So many calls a minute for each of any number of names.

    Args:
        kind: what the names are of, in Redis.
        per_minute: calls; 0: any number.
        clock_us: a clock that only rises, in microseconds.
    """

    def __init__(
        self,
        kind: str,
        per_minute: int,
        *,
        clock_us: Callable[[], int] = lambda: time.monotonic_ns() // 1000,
    ) -> None:
        self.kind = kind
        self.per_minute = per_minute
        self._each_us = MINUTE_US // per_minute if per_minute else 0
        self._clock_us = clock_us
        self._buckets: dict[str, _Bucket] = {}
        self._unshared: set[str] = set()

    def wait_s(self, name: str) -> int:
        """Whole seconds until this name may call again; 0: now."""
        bucket = self._buckets.get(name)
        if bucket is None or not self._each_us:
            return 0
        over_us = bucket.empty_us + self._each_us - self._clock_us() - MINUTE_US
        return max(0, -(-over_us // 1_000_000))

    def standing(self, name: str) -> tuple[int, int]:
        """Return the calls that a name may still make at once, and the time until it may make all.

        The second in microseconds. Only where there is a limit.
        """
        bucket = self._buckets.get(name)
        full_us = 0 if bucket is None else max(0, bucket.empty_us - self._clock_us())
        left = (MINUTE_US - full_us) // self._each_us
        return max(0, min(left, self.per_minute)), full_us

    def count(self, name: str) -> None:
        """Count a call of this name."""
        if not self._each_us:
            return
        now_us = self._clock_us()
        bucket = self._buckets.get(name)
        if bucket is None:
            if len(self._buckets) >= NAMES:
                self._forget(now_us)
            bucket = self._buckets[name] = _Bucket(now_us)
        bucket.empty_us = max(bucket.empty_us, now_us) + self._each_us
        # A minute's worth is all that an outage of Redis can leave to be added afterwards.
        bucket.unshared_us = min(bucket.unshared_us + self._each_us, MINUTE_US)
        self._unshared.add(name)

    def take(self, name: str) -> int:
        """Count a call, if the name may make one; else the whole seconds until it may."""
        wait_s = self.wait_s(name)
        if not wait_s:
            self.count(name)
        return wait_s

    def _forget(self, now_us: int) -> None:
        """Drop what is empty, and if that is not enough the oldest."""
        for name, bucket in list(self._buckets.items()):
            if bucket.empty_us <= now_us and not bucket.unshared_us:
                del self._buckets[name]
        for name in list(self._buckets)[: len(self._buckets) - NAMES * 9 // 10]:
            del self._buckets[name]
            self._unshared.discard(name)

    async def share(self, adder: Adder) -> None:
        """Have what was let through here added to what the others did, and learn of that.

        Raises:
            RedisError: it could not be, and stays to be shared.
        """
        unshared = list(self._unshared)
        for begin in range(0, len(unshared), MAX_AT_ONCE):
            names = [
                name for name in unshared[begin : begin + MAX_AT_ONCE] if name in self._buckets
            ]
            poured = [self._buckets[name].unshared_us for name in names]
            full = await adder.add([f"rate:{self.kind}:{name}" for name in names], poured)
            now_us = self._clock_us()
            for name, added_us, full_us in zip(names, poured, full, strict=True):
                bucket = self._buckets.get(name)
                if bucket is None:
                    continue
                # What came while Redis was asked is poured on top.
                bucket.unshared_us = max(0, bucket.unshared_us - added_us)
                bucket.empty_us = now_us + full_us + bucket.unshared_us
                if not bucket.unshared_us:
                    self._unshared.discard(name)


class RedisAdder:
    """Adds up in Redis, over one connection."""

    def __init__(self, url: str) -> None:
        self._redis = redis.asyncio.Redis.from_url(
            url,
            decode_responses=True,
            max_connections=1,
            socket_timeout=TIMEOUT_S,
            socket_connect_timeout=TIMEOUT_S,
            socket_keepalive=True,
            health_check_interval=10,
        )

    async def add(self, keys: list[str], poured: list[int]) -> list[int]:
        """See `Adder.add`."""
        answer = await cast("Any", self._redis.eval(ADD_UP, len(keys), *keys, *poured))
        return [int(full_us) for full_us in answer]

    async def close(self) -> None:
        """Give the connection back."""
        await self._redis.aclose()


def make_sharing(rates: Sequence[CallRate], adder: Adder) -> TaskLoop:
    """Return the task that shares these rates several times a second, once started."""

    async def share() -> None:
        for rate in rates:
            await rate.share(adder)

    return TaskLoop("rates", share, every_s=SHARE_S, outages=(RedisError,), log=_log)
