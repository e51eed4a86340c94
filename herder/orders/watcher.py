"""Waits for the ends of orders on behalf of a program: one thread, however many it waits for.

The herder announces ends on a Redis channel; a look into the database each second stands behind
it, so that a Redis that is down delays an answer and loses none. A database that is down is asked
again, each second, until it answers.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Protocol

import redis

from herder.errors import HerdUnavailable, SetupError
from workers.transport.event_log import EventLog
from workers.transport.loops import Failures, Loop
from workers.transport.streams import ENDED_CHANNEL

_log = EventLog("herder.orders.watcher", lowered=True)

LOOK_S = 1.0


class Waiter(Protocol):
    """Whoever waits: an `threading.Event`, or something that passes it on."""

    def set(self) -> None:
        """Wake the waiter of an order that ended. Called on another thread: be quick."""


class CompletionWatcher:
    """Wakes whoever waits for an order.

    Args:
        client: a Redis client that gives up within `LOOK_S`: the database is asked that often,
            whether Redis answers or not.
        ended: gives those of some orders that have ended, from the database.
    """

    def __init__(self, client: redis.Redis, ended: Callable[[Iterable[str]], set[str]]) -> None:
        self._redis = client
        self._ended = ended
        self._lock = threading.Lock()
        self._waiting: dict[str, list[Waiter]] = {}
        self._closing = False
        self._looked_s = 0.0
        self._pubsub: redis.client.PubSub | None = None
        self._hearing = Failures(
            "herd-watch-redis", outages=(redis.RedisError,), retry_s=(0.1, LOOK_S), log=_log
        )
        self._loop = Loop(
            "herd-watch",
            self._step,
            outages=(HerdUnavailable, SetupError),
            retry_s=(0.1, LOOK_S),
            log=_log,
        )

    def wait(self, order_id: str, timeout_s: float | None) -> bool:
        """Wait for an order's end; False if it did not come in time."""
        event = threading.Event()
        self.add(order_id, event)
        try:
            return event.wait(timeout_s)
        finally:
            self.remove(order_id, event)

    def add(self, order_id: str, waiter: Waiter) -> None:
        """Have a waiter's `set` called at an order's end, at least once.

        A database that is out of reach is asked later. Whatever else this raises, the waiter is not
        waiting then.
        """
        with self._lock:
            self._waiting.setdefault(order_id, []).append(waiter)
            self._loop.start()
        try:
            # Looked up after it was noted: an end in between is announced, or seen here.
            ended = self._ended([order_id])
        except HerdUnavailable:
            return
        except BaseException:
            self.remove(order_id, waiter)
            raise
        self._wake(ended)

    def remove(self, order_id: str, waiter: Waiter) -> None:
        """Stop notifying a waiter; one that does not wait stays as it is."""
        with self._lock:
            waiting = self._waiting.get(order_id, [])
            if waiter in waiting:
                waiting.remove(waiter)
                if not waiting:
                    del self._waiting[order_id]

    def close(self) -> None:
        """Stop once no waiter is left; the thread then ends within a second or two."""
        self._closing = True

    def _step(self) -> None:
        with self._lock:
            if self._closing and not self._waiting:
                self._stop_hearing()
                self._loop.leave()
                return
        wait_s = self._hear()
        if time.monotonic() - self._looked_s >= LOOK_S:
            self._looked_s = time.monotonic()
            self._look()
        if wait_s:
            self._loop.pause(wait_s)

    def _hear(self) -> float:
        """Wait for announcements for a while, and wake who waits for them.

        Returns:
            Seconds to wait before it is tried again.
        """
        try:
            if self._pubsub is None:
                self._pubsub = self._redis.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]
                self._pubsub.subscribe(ENDED_CHANNEL)
            message = self._pubsub.get_message(timeout=LOOK_S)
        except Exception as error:  # noqa: BLE001 (logged and counted; the database is asked)
            wait_s = self._hearing.failed(error)
            self._stop_hearing()
            return wait_s
        self._hearing.worked()
        if message is not None:
            self._wake(str(message["data"]).split())
        return 0.0

    def _stop_hearing(self) -> None:
        pubsub, self._pubsub = self._pubsub, None
        if pubsub is None:
            return
        try:
            pubsub.close()
        except (redis.RedisError, OSError) as error:
            _log.info("redis_not_left", reason=type(error).__name__)

    def _look(self) -> None:
        with self._lock:
            waited = list(self._waiting)
        if waited:
            self._wake(self._ended(waited))

    def _wake(self, orders: Iterable[str]) -> None:
        with self._lock:
            woken = [waiter for order_id in orders for waiter in self._waiting.get(order_id, ())]
        for waiter in woken:
            try:
                waiter.set()
            except Exception:  # noqa: BLE001
                # One that cannot be woken keeps nobody else waiting.
                _log.exception("waiter_not_woken")
