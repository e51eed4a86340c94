"""Server-sent events on an open connection, and what is done when the caller disconnects.

A response may be dropped before its first event is asked for; what has to be done in any case is
therefore done by the response and not by whoever makes the events.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Literal

from anyio import CancelScope
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.types import Message, Receive, Scope, Send

from herder.gateway.streams.following import Line

OnDisconnect = Literal["continue", "cancel"]
"""What becomes of an order when whoever reads along goes away."""


class EventStream(EventSourceResponse):
    """Events until their end, or until the caller goes away.

    Args:
        events: what is said.
        line: that is held meanwhile; it is given back here.
        after: what is to be done in the end, and whether the caller had gone away by then: not if
            all was said, nor if this gateway was told to stop.
        options: of `EventSourceResponse`.
    """

    def __init__(
        self,
        events: AsyncIterator[ServerSentEvent],
        line: Line,
        *,
        after: Callable[[bool], Awaitable[None]] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(events, client_close_handler_callable=self._note, **options)
        self._line = line
        self._after = after
        self._left = False

    async def _note(self, _message: Message) -> None:
        self._left = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._line.close()
            if self._after is not None:
                with CancelScope(shield=True):
                    await self._after(self._left)
