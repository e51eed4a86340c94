"""Waits for the ends of orders on behalf of a program: one thread, however many it waits for.

The herder announces ends on a Redis channel; a look into the database each second stands behind
it, so that a Redis that is down delays an answer and loses none.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable
from typing import Protocol

import redis

from workers.transport.streams import ENDED_CHANNEL

_log = logging.getLogger("herder.orders.watcher")

LOOK_S = 1.0


class Waiter(Protocol):
    """Whoever waits: an `threading.Event`, or something that passes it on."""

    def set(self) -> None:
        """The order has ended. Called on another thread: be quick."""


class Watcher:
    """Wakes whoever waits for an order.

    Args:
        client: a Redis client.
        ended: gives those of some orders that have ended, from the database.
    """

    def __init__(self, client: redis.Redis, ended: Callable[[Iterable[str]], set[str]]) -> None:
        self._redis = client
        self._ended = ended
        self._lock = threading.Lock()
        self._waiting: dict[str, list[Waiter]] = {}
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()

    def wait(self, order_id: str, timeout_s: float | None) -> bool:
        """Wait for an order's end; False if it did not come in time."""
        event = threading.Event()
        self.add(order_id, event)
        try:
            return event.wait(timeout_s)
        finally:
            self.remove(order_id, event)

    def add(self, order_id: str, waiter: Waiter) -> None:
        """Have a waiter's `set` called at an order's end, at least once."""
        with self._lock:
            self._waiting.setdefault(order_id, []).append(waiter)
            if self._thread is None:
                self._thread = threading.Thread(target=self._loop, name="herd-watch", daemon=True)
                self._thread.start()
        # Looked up after it was noted: an end in between is announced, or seen here.
        self._wake(self._ended([order_id]))

    def remove(self, order_id: str, waiter: Waiter) -> None:
        """Call a waiter no more."""
        with self._lock:
            waiting = self._waiting[order_id]
            waiting.remove(waiter)
            if not waiting:
                del self._waiting[order_id]

    def _loop(self) -> None:
        pid = os.getpid()
        pubsub: redis.client.PubSub | None = None
        looked_s = 0.0
        while os.getpid() == pid and not (self._closing.is_set() and not self._waiting):
            try:
                if pubsub is None:
                    pubsub = self._redis.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]
                    pubsub.subscribe(ENDED_CHANNEL)
                message = pubsub.get_message(timeout=LOOK_S)
                if message is not None:
                    self._wake(str(message["data"]).split())
            except redis.RedisError as error:
                _log.debug("no announcements from Redis: %s", type(error).__name__)
                pubsub = None
                time.sleep(LOOK_S)
            if time.monotonic() - looked_s >= LOOK_S:
                looked_s = time.monotonic()
                self._look()
        if pubsub is not None:
            pubsub.close()

    def close(self) -> None:
        """Look out no more once nobody waits; the thread then ends within a second or two."""
        self._closing.set()

    def _look(self) -> None:
        with self._lock:
            waited = list(self._waiting)
        if waited:
            try:
                self._wake(self._ended(waited))
            except Exception:  # noqa: BLE001
                # The thread must outlive a database that is away; the waiters go on waiting.
                _log.exception("the database could not be asked for the ends of orders")

    def _wake(self, orders: Iterable[str]) -> None:
        with self._lock:
            for order_id in orders:
                for event in self._waiting.get(order_id, ()):
                    event.set()
