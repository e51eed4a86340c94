"""Sends what a worker claims, several claims in one message where they come together."""

from __future__ import annotations

import threading
from collections.abc import Callable

from workers.wire import MAX_HELD, AttemptRef


class Claims:
    """Sends claims, and returns once they are sent.

    Those that come while a message is on its way go out together in the next: the threads that
    bring them take turns at sending for all.
    """

    def __init__(self, send: Callable[[tuple[AttemptRef, ...]], None]) -> None:
        self._send = send
        self._sending = threading.Lock()
        self._lock = threading.Lock()
        self._waiting: list[AttemptRef] = []

    def put(self, held: AttemptRef) -> None:
        """Send a claim.

        Raises:
            RedisError: it, or one that was sent with it, may not have arrived.
        """
        with self._lock:
            self._waiting.append(held)
        with self._sending:
            with self._lock:
                if held not in self._waiting:
                    return  # another thread sent it with its own
                batch, self._waiting = self._waiting[:MAX_HELD], self._waiting[MAX_HELD:]
            self._send(tuple(batch))
