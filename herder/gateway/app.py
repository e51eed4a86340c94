"""The gateway's app, and how it is served."""

from __future__ import annotations

import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import structlog
import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from herder.errors import SetupError
from herder.gateway import errors, herd, openai, orders
from herder.gateway.calling import House
from herder.gateway.errors import Answer, body_of
from herder.gateway.following import Follower
from herder.gateway.settings import GatewaySettings
from herder.local import LocalHerd
from herder.version import __version__
from workers.transport.reading import TextReader

_log = structlog.get_logger("herder.gateway")

SPARE_READS = 8
GRACE_S = 10
"""Seconds that open lines get to end when the gateway is told to stop; then they are cut, and
their callers come back with `Last-Event-ID`."""
MAX_HEADER_BYTES = 65_536


def make_app(local: LocalHerd, settings: GatewaySettings) -> FastAPI:
    """The app of one gateway.

    Args:
        local: the herd that it sells.
        settings: of the gateway.
    """

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        reader = TextReader(settings.redis_url, settings.max_streams + SPARE_READS)
        app.state.house = House(local, Follower(local, reader, settings.max_streams), settings)
        yield
        await reader.close()

    app = FastAPI(
        title="Llama Herder",
        version=__version__,
        description="A shared herd of machines for LLM inference: the best-paid prompt runs first.",
        lifespan=life,
        # Its pages would load scripts from elsewhere; /openapi.json says the same.
        docs_url=None,
        redoc_url=None,
        default_response_class=Answer,
    )
    errors.register(app)
    for router in (orders.router, openai.router, herd.router):
        app.include_router(router)
    app.add_middleware(_BoundedBody, most=settings.max_body_bytes)
    return app


class _BoundedBody:
    """Refuses bodies that are too long, by what they say and by what comes."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app = app
        self._most = most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        said = headers.get(b"content-length", b"0")
        if said.isdigit() and int(said[:20]) > self._most:
            await self._refuse(scope, receive, send)
            return
        had = 0
        begun = False

        async def bounded() -> Message:
            nonlocal had
            message = await receive()
            had += len(message.get("body", b""))
            if had > self._most:
                raise _TooLong
            return message

        async def noted(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, bounded, noted)
        except _TooLong:
            if not begun:
                await self._refuse(scope, receive, send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        message = f"The body is longer than {self._most} bytes."
        answer = Answer(body_of(message, 413, "body_too_long"), 413, {"Connection": "close"})
        await answer(scope, receive, send)


class _TooLong(BaseException):
    """The body is too long. No `Exception`: nobody on the way may take it for one of theirs."""


def serve(
    local: LocalHerd, settings: GatewaySettings, said: Callable[[str], None] = lambda _: None
) -> None:
    """Serve until told to stop (SIGTERM, SIGINT).

    Args:
        local: the herd.
        settings: of the gateway.
        said: gets the address once it listens.

    Raises:
        SetupError: the address cannot be had.
    """
    try:
        listening = socket.create_server(
            (settings.gateway_host, settings.gateway_port), backlog=2048, reuse_port=False
        )
    except OSError as error:
        raise SetupError(
            f"The gateway cannot listen on {settings.gateway_host}:{settings.gateway_port} "
            f"({error.strerror}); HERD_GATEWAY_PORT chooses another port."
        ) from None
    # What it accepts inherits this. asyncio sets it only on sockets whose protocol was named, and
    # without it each answer's body waits 40 ms for the acknowledgement of its head.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    host, port = listening.getsockname()[:2]
    config = uvicorn.Config(
        make_app(local, settings),
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_S,
        h11_max_incomplete_event_size=MAX_HEADER_BYTES,
    )
    said(f"http://{host}:{port}")
    _log.info("gateway_ready", host=host, port=port)
    # uvicorn raises the signal again once it has ended well: nobody is left to be told.
    signals = (signal.SIGINT, signal.SIGTERM)
    before = {one: signal.signal(one, lambda *_: None) for one in signals}
    try:
        uvicorn.Server(config).run(sockets=[listening])
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
    _log.info("gateway_ended")
