"""Serves an app: socket, bounds, shutdown. For the gateway, and the room beside it."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from herder.errors import SetupError
from herder.web.bounds import HttpBounds
from herder.web.errors import ApiResponse, body_of, refusal
from herder.web.gzip_bodies import (
    CODINGS,
    MAX_MEMBERS,
    BrokenGzip,
    Unpacking,
    coding_of,
    is_gzip,
)
from herder.web.protocol import make_protocol

GRACE_S = 10
"""Seconds that open lines get to end when a server is told to stop; then they are cut."""
SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""The signals that stop a server."""


class BoundedBody:
    """Refuses bodies that are too long, by what they say and by what comes; unpacks gzip.

    Of a body that comes compressed both are bounded, what is sent and what comes out of it.
    """

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app = app
        self._most = most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request whose body is short enough."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        said = headers.get(b"content-length", b"0")
        if said.isdigit() and int(said[:20]) > self._most:
            await self._too_long(scope, receive, send)
            return
        begun = False
        bounded = self._bound(receive)
        if b"content-encoding" in headers:
            coding = coding_of(scope)
            if coding not in CODINGS:
                await _UNKNOWN_CODING(scope, receive, send)
                return
            if is_gzip(coding):
                bounded = self._bound(Unpacking(bounded).receive)

        async def noted(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, bounded, noted)
        except _TooLong:
            if not begun:
                await self._too_long(scope, receive, send)
        except BrokenGzip:
            if not begun:
                await _BROKEN_GZIP(scope, receive, send)

    def _bound(self, receive: Receive) -> Receive:
        had = 0

        async def bounded() -> Message:
            nonlocal had
            message = await receive()
            had += len(message.get("body", b""))
            if had > self._most:
                raise _TooLong
            return message

        return bounded

    async def _too_long(self, scope: Scope, receive: Receive, send: Send) -> None:
        message = f"The request's body is longer than {self._most} bytes."
        answer = refusal(body_of(message, 413, "body_too_long"), 413, {"Connection": "close"})
        await answer(scope, receive, send)


_UNKNOWN_CODING = refusal(
    body_of(
        "The body's Content-Encoding must be gzip, or none.",
        415,
        "unsupported_encoding",
        "Content-Encoding",
    ),
    415,
    {"Accept-Encoding": "gzip", "Connection": "close"},
)
_BROKEN_GZIP = refusal(
    body_of(
        f"The body is not valid gzip, or is gzip of more than {MAX_MEMBERS} members.",
        400,
        "invalid_request",
        "Content-Encoding",
    ),
    400,
    {"Connection": "close"},
)


class BoundedHead:
    """Refuses heads that are too long; those that never end are `protocol`'s."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app = app
        self._most = most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request whose head is short enough."""
        app = self._app
        if scope["type"] == "http" and head_bytes(scope) > self._most:
            app = head_too_long(self._most)
        await app(scope, receive, send)


def head_bytes(scope: Scope) -> int:
    """Return the approximate length of a request's head in bytes.

    Its first line, its headers and what ends each.
    """
    lines = sum(len(name) + len(value) + 4 for name, value in scope["headers"])
    return len(scope["raw_path"]) + len(scope["query_string"]) + lines


def head_too_long(most: int) -> ApiResponse:
    """Return the answer to a head that is too long."""
    message = f"The request's headers are longer than {most} bytes."
    return refusal(body_of(message, 431, "head_too_long"), 431, {"Connection": "close"})


class _TooLong(BaseException):
    """The body is too long. No `Exception`: nobody on the way may take it for one of theirs."""


def listen(host: str, port: int, who: str, setting: str) -> socket.socket:
    """Return a socket that listens.

    Args:
        host: the address.
        port: its port; 0: any that is free.
        who: what listens, for the sentence that refuses.
        setting: what chooses another port.

    Raises:
        SetupError: the address cannot be had.
    """
    host = host.removeprefix("[").removesuffix("]")
    try:
        family, where = _resolve(host, port)
        listening = socket.create_server(
            where,
            family=family,
            backlog=2048,
            reuse_port=False,
            dualstack_ipv6=host == "::" and socket.has_dualstack_ipv6(),
        )
    except OSError as error:
        raise SetupError(
            f"The {who} cannot listen on {join_address(host, port)} ({error.strerror}); {setting} "
            f"chooses another port."
        ) from None
    # What it accepts inherits this. asyncio sets it only on sockets whose protocol was named, and
    # without it each answer's body waits 40 ms for the acknowledgement of its head.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def join_address(host: str, port: int) -> str:
    """Return an address as a URL has it.

    >>> join_address("::1", 80), join_address("127.0.0.1", 80)
    ('[::1]:80', '127.0.0.1:80')
    """
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _resolve(host: str, port: int) -> tuple[socket.AddressFamily, Any]:
    """Return a family and an address to bind: of a name that has both kinds, the IPv4 one."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, *_, where = min(found, key=lambda one: one[0] != socket.AF_INET)
    return family, where


def run(
    app: ASGIApp,
    listening: socket.socket,
    *,
    bounds: HttpBounds,
    ready: Callable[[], None],
    stopping: Callable[[], None] = lambda: None,
    **more: Any,
) -> None:
    """Serve an app until told to stop (SIGTERM, SIGINT).

    Args:
        app: the app.
        listening: as `listen` gave it.
        bounds: of heads, slow requests and slow readers.
        ready: called once it answers, and ends well when it is told to stop.
        stopping: called, in a signal's handler, when it is told to stop.
        more: of `uvicorn.Config`, in place of what stands here.
    """
    how = {"timeout_graceful_shutdown": GRACE_S} | more
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        http=make_protocol(
            max_request_s=bounds.max_request_s,
            max_header_bytes=bounds.max_header_bytes,
            slow_reader_s=bounds.slow_reader_s,
        ),
        ws="none",
        h11_max_incomplete_event_size=bounds.max_header_bytes,
        **how,
    )
    server = _Server(config, ready, stopping)
    # Also outside of uvicorn's own handlers: nobody may be deaf before those, and uvicorn raises
    # the signal again once it has ended well.
    before = {one: signal.signal(one, server.handle_exit) for one in SIGNALS}
    try:
        server.run(sockets=[listening])
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


class _Server(uvicorn.Server):
    """A server that says when it is ready, and when it is told to stop."""

    def __init__(
        self, config: uvicorn.Config, ready: Callable[[], None], stopping: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._ready = ready
        self._stopping = stopping

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer from here on."""
        await super().startup(sockets)
        self._ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        self._stopping()
        super().handle_exit(sig, frame)
