"""Work that many ask for at once, done once, and its result kept for a moment.

Whoever waits for it waits in the event loop: the threads, of which there are few, are for callers
who paid.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from anyio.to_thread import run_sync

Result = TypeVar("Result")

KEPT_S = 1.0


class Once(Generic[Result]):
    """Some work, whose result is kept for a second.

    Args:
        work: is called on a thread.
    """

    def __init__(self, work: Callable[[], Result], kept_s: float = KEPT_S) -> None:
        self._work = work
        self._kept_s = kept_s
        self._lock = asyncio.Lock()
        self._kept: tuple[float, Result] | None = None

    async def __call__(self) -> Result:
        """Return the result, at most that old."""
        async with self._lock:
            if self._kept is None or time.monotonic() - self._kept[0] >= self._kept_s:
                # Timed from its end: work that takes long is not begun again by all who waited.
                result = await run_sync(self._work)
                self._kept = time.monotonic(), result
            return self._kept[1]
