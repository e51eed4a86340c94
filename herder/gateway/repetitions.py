"""Repetitions that a client marks as such, of calls that have no idempotency key.

OpenAI's packages give up after their time-out and send the same call again, twice, without a key
and with `x-stainless-retry-count` one higher each time. Such a call is given a key of its own when
it comes first; if its caller disconnects before the answer, that key waits for a minute, and the
next equal call of the same API key that is marked as a repetition takes it over. From there on it
is a call that is repeated under its key: it joins the order, and is charged once.

Keys of calls that are still being answered, that were answered or refused are not to be had: two
callers who ask the same at once are given two orders, however often either has to ask.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, cast
from uuid import uuid4

import redis.asyncio
import structlog
from redis import RedisError

from workers.transport.loops import TaskLoop

_log = structlog.get_logger("herder.gateway")

KEPT_S = 60
MAX_WAITING = 1000
"""Keys that wait at once for repetitions of one call; the oldest go first."""
MAX_UNTOLD = 10_000
RETRY_COUNT = "x-stainless-retry-count"

_NOW = """
local clock = redis.call('TIME')
local now_ms = clock[1] * 1000 + math.floor(clock[2] / 1000)
"""
LOSE = (
    _NOW
    + """
redis.call('ZADD', KEYS[1], string.format('%.0f', now_ms), ARGV[1])
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -1 - tonumber(ARGV[3]))
redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""
)
TAKE = (
    _NOW
    + """
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now_ms - ARGV[1]))
return redis.call('ZPOPMIN', KEYS[1])
"""
)
"""One repetition takes one key: of two equal calls that both time out each joins its own."""


def count_of(headers: Mapping[str, str]) -> int | None:
    """Return the number of times that its client sent a call before; None if it does not say."""
    text = headers.get(RETRY_COUNT, "")
    return int(text) if re.fullmatch(r"[0-9]{1,6}", text) else None


def digest_of(api_key: str, asked: Sequence[Any]) -> str:
    """Return a digest of all that a call asks, and with which API key.

    Args:
        api_key: the id of the API key.
        asked: plain data.
    """
    content = json.dumps([api_key, *asked], sort_keys=True, default=str)
    return hashlib.sha256(content.encode()).hexdigest()


class LostCalls(Protocol):
    """Keys of calls whose callers have gone. Errors are redis-py's own."""

    async def lose(self, digest: str, key: str) -> None:
        """Keep a key for the next repetition of such a call."""

    async def take(self, digest: str) -> str | None:
        """Return the key that has waited longest, which nobody else gets then; None if none."""


class RedisLostCalls:
    """Keys that wait for repetitions, in Redis, so that any gateway finds them."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._redis = client

    async def lose(self, digest: str, key: str) -> None:
        """See `LostCalls.lose`."""
        await self._ask(LOSE, digest, key, KEPT_S * 1000, MAX_WAITING)

    async def take(self, digest: str) -> str | None:
        """See `LostCalls.take`."""
        found = await self._ask(TAKE, digest, KEPT_S * 1000)
        return str(found[0]) if found else None

    async def _ask(self, script: str, digest: str, *more: Any) -> Any:
        return await cast("Any", self._redis.eval(script, 1, f"repeat:{digest}", *more))


class Repetitions:
    """Gives marked calls their keys.

    Args:
        lost: keys of calls whose callers have gone.
        new_key: draws a key.
    """

    def __init__(
        self, lost: LostCalls, new_key: Callable[[], str] = lambda: f"retry:{uuid4()}"
    ) -> None:
        self._lost = lost
        self.new_key = new_key
        self._untold: dict[str, str] = {}
        self._loop = TaskLoop(
            "repetitions", self.step, every_s=KEPT_S, outages=(RedisError,), log=_log
        )

    async def key_of(self, digest: str, count: int) -> str:
        """Return the key of a call.

        Its predecessor's, where that was lost; else a new one.

        Args:
            digest: of the call.
            count: how often it was sent before.
        """
        if count > 0:
            # Its predecessor may have been lost here a moment ago.
            for key, lost in self._untold.items():
                if lost == digest:
                    del self._untold[key]
                    return key
            try:
                found = await self._lost.take(digest)
            except RedisError as error:
                _log.warning("repetition_not_looked_for", reason=type(error).__name__)
            else:
                if found is not None:
                    return found
        return self.new_key()

    def lose(self, digest: str, key: str) -> None:
        """Let the next repetition of a call have its key: its caller has gone."""
        if len(self._untold) < MAX_UNTOLD:
            self._untold[key] = digest
            self._loop.wake()

    async def step(self) -> None:
        """Tell every gateway of the keys that were lost.

        Raises:
            RedisError: they are not told; the next step does.
        """
        for key in list(self._untold):
            digest = self._untold.pop(key, None)
            if digest is None:
                continue  # a repetition took it meanwhile
            try:
                await self._lost.lose(digest, key)
            except BaseException:
                self._untold[key] = digest
                raise

    def start(self) -> None:
        """Begin, within the event loop."""
        self._loop.start()

    async def stop(self) -> None:
        """Tell of what was lost last, and end."""
        await self._loop.stop()
        try:
            await self.step()
        except RedisError as error:
            _log.warning("repetitions_not_told", reason=type(error).__name__)
