"""Notices at once that the caller of a whole answer disconnects."""

from __future__ import annotations

import asyncio
from types import TracebackType

from starlette.types import Receive


class HangUp:
    """Listens for a caller who disconnects, while the block lasts.

    Args:
        receive: the call's, whose body has been read.

    Attributes:
        is_gone: whether the caller has disconnected.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._waker: asyncio.Event | None = None
        self.is_gone = False

    def wakes(self, event: asyncio.Event) -> None:
        """Have an event set when the caller disconnects, or now if that has happened."""
        self._waker = event
        if self.is_gone:
            event.set()

    async def _listen(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.is_gone = True
        if self._waker is not None:
            self._waker.set()

    async def __aenter__(self) -> HangUp:
        self._task = asyncio.create_task(self._listen())
        return self

    async def __aexit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        self._task.cancel()
