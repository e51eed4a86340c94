"""A server that is told to stop: what becomes of the calls that are open then.

uvicorn takes no new calls from that moment on, and waits for the open ones. After the grace each of
them is answered here with an error in our form, a stream by its last event; cut by uvicorn, they
would get its own bare 500, or nothing at all.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager
from typing import TypeVar

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from herder.errors import HerdUnavailable
from herder.web.errors import answer_to

Event = TypeVar("Event")

LAST_S = 2
"""Seconds after the grace in which the errors are sent; then what is still open is cut."""


class ServerStopping(HerdUnavailable):
    """The server that the caller waits for is being stopped."""

    code = "gateway_stopping"

    def __init__(self, order_id: str | None = None) -> None:
        if order_id is None:
            super().__init__("This server is being stopped; call again in a moment.")
            return
        super().__init__(
            f"This gateway is being stopped. Order {order_id} goes on: GET /v1/orders/{order_id} "
            "shows it, and so does the same call with the same Idempotency-Key.",
            order=order_id,
        )


AGAIN_S = 0.2
"""Seconds until a call that goes on though it was interrupted is interrupted once more."""


class _Waiting:
    """A task that is interrupted after the grace, until it hears of it.

    What a task awaits may swallow a cancellation that comes as it ends, as `asyncio.wait_for` does
    before Python 3.12 (Redis' client sends each command within one), and the task would go on.
    """

    def __init__(self, task: asyncio.Task[object]) -> None:
        self._task = task
        self._again: asyncio.TimerHandle | None = None
        self._interruptions = 0

    @property
    def is_interrupted(self) -> bool:
        return self._interruptions > 0

    def interrupt(self) -> None:
        self._interruptions += 1
        self._task.cancel()
        self._again = asyncio.get_running_loop().call_later(AGAIN_S, self.interrupt)

    def take_over(self) -> None:
        """Go on in the task, in which the cancellation has arrived."""
        self.leave()
        for _ in range(max(1, self._interruptions)):
            self._task.uncancel()

    def leave(self) -> None:
        """Interrupt it no more."""
        if self._again is not None:
            self._again.cancel()
            self._again = None


class Stopping:
    """The stop of one server.

    Args:
        grace_s: seconds that open calls have to end by themselves.
    """

    def __init__(self, grace_s: float) -> None:
        self.grace_s = grace_s
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: dict[_Waiting, None] = {}
        self.is_told = False
        self._is_due = False

    def serve(self) -> None:
        """Remember the running event loop, which serves the calls."""
        self._loop = asyncio.get_running_loop()

    def begin(self) -> None:
        """Begin to stop. Called in a signal's handler, and any number of times."""
        if not self.is_told and self._loop is not None:
            self.is_told = True
            self._loop.call_soon_threadsafe(self._loop.call_later, self.grace_s, self._end)

    def _end(self) -> None:
        self._is_due = True
        for one in list(self._waiting):
            one.interrupt()

    @contextmanager
    def interrupting(self) -> Iterator[_Waiting]:
        """Have the running task cancelled once the grace is over, if it is in this block then."""
        task = asyncio.current_task()
        assert task is not None, "calls are served in tasks"
        waiting = _Waiting(task)
        self._waiting[waiting] = None
        if self._is_due:
            asyncio.get_running_loop().call_soon(waiting.interrupt)
        try:
            yield waiting
        finally:
            self.leave(waiting)

    def leave(self, waiting: _Waiting) -> None:
        """Interrupt a task no more."""
        self._waiting.pop(waiting, None)
        waiting.leave()

    async def until_stopped(
        self, events: AsyncGenerator[Event, None], last: Callable[[], Event]
    ) -> AsyncGenerator[Event, None]:
        """Yield the events of a stream; once the grace is over, a last one in their place.

        Args:
            events: of the stream.
            last: makes the last event.
        """
        with self.interrupting() as waiting:
            try:
                async with aclosing(events):
                    async for one in events:
                        yield one
            except asyncio.CancelledError:
                if not waiting.is_interrupted:
                    raise
                waiting.take_over()
            else:
                return
        yield last()


class AnswerWhenStopped:
    """Answers the calls of a server that is being stopped, in our form.

    A call whose answer has begun is a stream's, which says its last word itself
    (`Stopping.until_stopped`).

    Args:
        app: what is served.
        stopping: the server's.
    """

    def __init__(self, app: ASGIApp, stopping: Stopping) -> None:
        self._app = app
        self._stopping = stopping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a call."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False
        with self._stopping.interrupting() as waiting:

            async def noted(message: Message) -> None:
                nonlocal begun
                begun = True
                self._stopping.leave(waiting)
                await send(message)

            try:
                await self._app(scope, receive, noted)
            except asyncio.CancelledError:
                # Also where the server did not wait for its calls: told to stop for the second
                # time, or because one did not end in time.
                if begun or not self._stopping.is_told:
                    raise
                waiting.take_over()
            else:
                return
        order_id = scope.get("state", {}).get("order")
        await answer_to(ServerStopping(order_id))(scope, receive, send)
