"""Server-sent events on an open connection, and what is done when the caller disconnects.

A response may be dropped before its first event is asked for; what has to be done in any case is
therefore done by the response and not by whoever makes the events.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Literal

from anyio import CancelScope
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.types import Message, Receive, Scope, Send

from herder.gateway.streams.following import StreamSlot

OnDisconnect = Literal["continue", "cancel"]
"""The choice of what happens to an order when its reader disconnects."""


class EventStream(EventSourceResponse):
    """Events until their end, or until the caller goes away.

    Args:
        events: what is said.
        line: that is held meanwhile; it is given back here.
        after: what is to be done in the end, and whether the caller had gone away by then: not if
            all was said, nor if this gateway was told to stop.
        sep: what lines end with; None for the standard's own.
        headers: more of the answer's.
        ping: seconds of silence after which a comment is sent; None for 15.
    """

    def __init__(
        self,
        events: AsyncIterator[ServerSentEvent],
        slot: StreamSlot,
        *,
        after: Callable[[bool], Awaitable[None]] | None = None,
        sep: str | None = None,
        headers: Mapping[str, str] | None = None,
        ping: int | None = None,
    ) -> None:
        super().__init__(
            events,
            client_close_handler_callable=self._note,
            sep=sep,
            headers=headers,
            ping=ping,
        )
        self._slot = slot
        self._after = after
        self._left = False

    async def _note(self, _message: Message) -> None:
        self._left = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._slot.close()
            if self._after is not None:
                with CancelScope(shield=True):
                    await self._after(self._left)
