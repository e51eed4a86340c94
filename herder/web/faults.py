"""Answers calls that break, in our form: a fault of ours, which nobody foresaw."""

from __future__ import annotations

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from herder.web.errors import body_of, refusal

_log = structlog.get_logger("herder.gateway")


class AnswerWhenBroken:
    """Answers a call that breaks with a 500, and logs why.

    Stands inside whatever adds headers to every answer. Starlette's own handler of `Exception`
    stands outside all middlewares: its answers would have neither a request's id nor what a browser
    asks of those to pages of other origins, and its log lines no id.

    A call whose answer has begun cannot be answered any more. Its error goes on to the server,
    which writes the trace and cuts the line.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a call."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def noted(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except Exception as error:
            name = type(error).__name__
            if begun:
                _log.error("call_broke", error=name)
                raise
            _log.error("call_broke", error=name, exc_info=error)
        else:
            return
        answer = refusal(body_of("Internal error; it has been logged.", 500, "broken"), 500)
        await answer(scope, receive, send)
