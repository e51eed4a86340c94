"""Gives each call an id, by which its answer, its log lines and its order are found together."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from uuid import uuid4

import structlog
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADER = b"x-request-id"
_HEADERS = "headers_of_answer"
_FORM = re.compile(r"[!-~]{1,128}")


def _new_id() -> str:
    return f"req_{uuid4().hex}"


class RequestIds:
    """Answers each call with its `X-Request-Id`: the caller's own, or one that is drawn.

    One that is longer than 128 characters, or has others than visible ASCII, is replaced. The
    answer also has the headers that `add_headers` was given on the way.
    """

    def __init__(self, app: ASGIApp, new_id: Callable[[], str] = _new_id) -> None:
        self._app = app
        self._new_id = new_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a call."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = next((value for name, value in scope["headers"] if name == HEADER), b"").decode(
            "latin-1"
        )
        request_id = given if _FORM.fullmatch(given) else self._new_id()
        headers = [(HEADER, request_id.encode("latin-1"))]
        state = scope.setdefault("state", {})
        state["request_id"], state[_HEADERS] = request_id, headers

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *headers]
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            await self._app(scope, receive, named)


def add_headers(request: Request, headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Have the answer to a call carry these headers too, be it a refusal or a stream."""
    request.scope["state"][_HEADERS].extend(headers)


def id_of(request: Request) -> str | None:
    """Return the id of a call; None where nothing gives any."""
    found = getattr(request.state, "request_id", None)
    return found if isinstance(found, str) else None
