"""A call that breaks for a reason that nobody foresaw: what its caller and the log are told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import closing
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import structlog
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from herder.examples.room import app as room
from herder.gateway import app as gateway
from herder.gateway.settings import GatewaySettings
from herder.local.local_herd import LocalHerd
from herder.web.bounds import HttpBounds

ORIGIN = "https://page.example"


@pytest.fixture
def app(make_house):
    settings = GatewaySettings(**make_house().settings.model_dump(), cors_origins=(ORIGIN,))
    with closing(LocalHerd(settings)) as herd:
        yield breaking(gateway.make_app(herd, settings))


def breaking(app: FastAPI) -> FastAPI:
    """The app, with routes that break before and after their answers have begun."""

    async def at_once() -> None:
        raise ZeroDivisionError

    async def later() -> StreamingResponse:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"It"
            raise ZeroDivisionError

        return StreamingResponse(pieces())

    app.add_api_route("/breaks", at_once)
    app.add_api_route("/breaks-later", later, response_model=None)
    return app


def get(app: FastAPI, path: str, **headers: str) -> SimpleNamespace:
    """One call: its answer, what the server has to write a trace of, if anything, and the log."""
    started: list[Any] = []

    async def noting(scope: Any, receive: Any, send: Any) -> None:
        async def noted(message: Any) -> None:
            if message["type"] == "http.response.start":
                started.append(message)
            await send(message)

        await app(scope, receive, noted)

    async def call() -> tuple[httpx.Response | None, Exception | None]:
        transport = httpx.ASGITransport(noting)
        async with httpx.AsyncClient(transport=transport, base_url="http://herd") as client:
            try:
                return await client.get(path, headers=headers), None
            except Exception as error:  # noqa: BLE001 (the app's own)
                return None, error

    merge = structlog.contextvars.merge_contextvars
    with structlog.testing.capture_logs(processors=[merge]) as logs:
        answer, raised = asyncio.run(call())
    return SimpleNamespace(answer=answer, raised=raised, started=started, logs=logs)


def test_a_broken_call_is_answered_as_any_other_and_logged_once_under_its_id(app):
    told = get(app, "/breaks", Origin=ORIGIN, **{"X-Request-Id": "mine"})
    assert told.answer.status_code == 500
    assert told.answer.json()["error"]["code"] == "broken"
    headers = told.answer.headers
    assert headers["x-should-retry"] == "false"
    assert headers["x-request-id"] == "mine"
    assert headers["access-control-allow-origin"] == ORIGIN
    assert "X-Request-Id" in headers["access-control-expose-headers"]
    (logged,) = told.logs
    assert (logged["event"], logged["error"]) == ("call_broke", "ZeroDivisionError")
    assert logged["request_id"] == "mine"
    # Its trace is there, and the server has none to write a second time.
    assert isinstance(logged["exc_info"], ZeroDivisionError)
    assert told.raised is None


def test_what_breaks_once_its_answer_has_begun_is_left_to_the_server(app):
    told = get(app, "/breaks-later", **{"X-Request-Id": "mine"})
    (started,) = told.started
    assert started["status"] == 200
    (logged,) = told.logs
    assert (logged["event"], logged["request_id"]) == ("call_broke", "mine")
    # The server writes the trace.
    assert "exc_info" not in logged
    assert isinstance(told.raised, ZeroDivisionError)


def test_a_middleware_that_breaks_is_answered_so_too(app, monkeypatch):
    def breaks(_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("herder.gateway.limits.guard.address_of", breaks)
    told = get(app, "/breaks", **{"X-Request-Id": "mine"})
    assert told.answer.json()["error"]["code"] == "broken"
    assert told.answer.headers["x-request-id"] == "mine"
    assert len(told.logs) == 1
    assert told.raised is None


def test_the_room_answers_so_too():
    app = breaking(room.make_app(None, None, HttpBounds().max_header_bytes))
    told = get(app, "/breaks")
    assert told.answer.json()["error"]["code"] == "broken"
    (logged,) = told.logs
    assert isinstance(logged["exc_info"], ZeroDivisionError)
    assert told.raised is None
