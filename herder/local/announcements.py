"""Tells workers and clients what was committed, from a thread of its own.

A call that the database has answered never waits for Redis. What is lost on the way is made good: a
worker that is to stop is told again with its next heartbeat, and whoever waits for an order or a
message looks into the database each second.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence

from redis import RedisError

from workers.transport.event_log import EventLog
from workers.transport.loops import Loop
from workers.transport.reasons import reason_of
from workers.transport.streams import LIMIT_S, Streams

_log = EventLog("herder.local.announcements", lowered=True)

MAX_WAITING = 10_000
"""Announcements that may wait for Redis; further ones are dropped."""


class Announcements:
    """Announces what a program has done. Safe among threads.

    Args:
        streams: that it is announced by.
    """

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self._changed = threading.Condition()
        self._waiting: deque[tuple[str, Callable[[], None]]] = deque()
        self._loop = Loop("herd-announce", self._step, unblock=self._unblock, last=self._send)

    def ended(self, orders: Sequence[str]) -> None:
        """Wake the clients that wait for these orders; returns at once."""
        self._put("ended", lambda: self._streams.announce_ended(orders))

    def inboxes(self, accounts: Sequence[str]) -> None:
        """Wake the clients that wait for messages to these accounts; returns at once."""
        self._put("inboxes", lambda: self._streams.announce_inboxes(accounts))

    def controls(self, messages: Sequence[tuple[str, str]]) -> None:
        """Send (instance, token) to workers; returns at once."""
        self._put("controls", lambda: self._streams.add_controls(messages))

    def _put(self, kind: str, announce: Callable[[], None]) -> None:
        with self._changed:
            if len(self._waiting) >= MAX_WAITING:
                _log.warning("announcement_dropped", kind=kind, waiting=MAX_WAITING)
                return
            self._waiting.append((kind, announce))
            self._loop.start()
            self._changed.notify_all()

    def _step(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._loop.stopping)
        self._send()

    def _send(self) -> None:
        while True:
            with self._changed:
                if not self._waiting:
                    return
                kind, announce = self._waiting.popleft()
            try:
                announce()
            except (RedisError, OSError) as error:
                _log.warning("not_announced", kind=kind, reason=reason_of(error))

    def _unblock(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def close(self, timeout_s: float = LIMIT_S) -> None:
        """Announce what waits, if Redis is there, and end."""
        self._loop.stop(timeout_s)
