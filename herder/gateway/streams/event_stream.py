"""Server-sent events on an open connection, and what is done when the caller disconnects.

A response may be dropped before its first event is asked for; what has to be done in any case is
therefore done by the response and not by whoever makes the events.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Literal

from anyio import CancelScope
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from herder.errors import HerdError
from herder.gateway.streams.slots import StreamSlot
from herder.web.errors import answer_to
from herder.web.lenient import is_head
from herder.web.stopping import LAST_S, ServerStopping, Stopping

OnDisconnect = Literal["continue", "cancel"]
"""The choice of what happens to an order when its reader disconnects."""


class EventStream(EventSourceResponse):
    """Events until their end, or until the caller goes away.

    Args:
        events: what is said.
        slot: that is held meanwhile; it is given back here.
        stopping: of this gateway: when its grace is over, the stream ends with an error.
        order_id: whose events these are, to be told then.
        broken: makes an event of an error; None for one of the kind `error`.
        ping_event: makes what is sent in silence; None for a comment.
        after: what is to be done in the end, and whether the caller had gone away by then: not if
            all was said, nor if this gateway was told to stop.
        sep: what lines end with; None for the standard's own.
        headers: more of the answer's.
        ping: seconds between signs that the stream is still there; None for 15.
    """

    def __init__(
        self,
        events: AsyncGenerator[ServerSentEvent, None],
        slot: StreamSlot,
        stopping: Stopping,
        *,
        order_id: str | None = None,
        broken: Callable[[HerdError], ServerSentEvent] | None = None,
        ping_event: Callable[[], ServerSentEvent] | None = None,
        after: Callable[[bool], Awaitable[None]] | None = None,
        sep: str | None = None,
        headers: Mapping[str, str] | None = None,
        ping: int | None = None,
    ) -> None:
        make = broken or _error_event
        super().__init__(
            self._whole(stopping.until_stopped(events, lambda: make(ServerStopping(order_id)))),
            client_close_handler_callable=self._note,
            sep=sep,
            headers=headers,
            ping=ping,
            ping_message_factory=ping_event,
            # Its own way of ending streams would cut them at once. This one comes too late to.
            shutdown_grace_period=stopping.grace_s + LAST_S,
        )
        self._slot = slot
        self._after = after
        self._left = False
        self._is_whole = False

    async def _whole(
        self, events: AsyncGenerator[ServerSentEvent, None]
    ) -> AsyncGenerator[ServerSentEvent, None]:
        async with aclosing(events):
            async for one in events:
                yield one
        # From here on the end of the answer looks like a caller who disconnects.
        self._is_whole = True

    async def _note(self, _message: Message) -> None:
        self._left = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve it."""
        try:
            if is_head(scope):
                # Nothing of it is handed out, and what nobody reads is not paid for.
                await Response(headers=dict(self.headers))(scope, receive, send)
                return
            await super().__call__(scope, receive, send)
        finally:
            self._slot.close()
            if self._after is not None:
                with CancelScope(shield=True):
                    await self._after(self._left and not self._is_whole)


def _error_event(error: HerdError) -> ServerSentEvent:
    return ServerSentEvent(bytes(answer_to(error).body).decode(), event="error")
