"""A gateway that is told to stop answers the calls that are open in our form, after its grace."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
from collections import Counter
from collections.abc import AsyncGenerator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpx
import pytest
from anyio.to_thread import run_sync
from fastapi import FastAPI, Request
from sse_starlette import ServerSentEvent

from herder.gateway.streams.event_stream import EventStream
from herder.gateway.streams.slots import StreamSlot
from herder.web import errors, serving
from herder.web.bounds import HttpBounds
from herder.web.stopping import LAST_S, AnswerWhenStopped, Stopping
from tests.support.wait import wait_for

ORDER = "4fa3cbf0-7b16-4bb0-a7ad-2f5d1a0b2f11"
LIMIT_S = 60


class Story:
    """An app whose calls wait, the server that serves it, and the callers that it has."""

    def __init__(self, grace_s: float) -> None:
        self.stopping = Stopping(grace_s)
        self.may_end = asyncio.Event()
        self.thread_may_end = threading.Event()
        self.in_thread = threading.Event()
        self.left: list[bool] = []
        self.app = self._app()

    def _app(self) -> FastAPI:
        @asynccontextmanager
        async def life(_: FastAPI) -> Any:
            self.stopping.serve()
            yield

        app = FastAPI(lifespan=life)
        errors.register(app)
        app.add_middleware(AnswerWhenStopped, stopping=self.stopping)

        @app.get("/wait")
        async def wait(request: Request) -> str:
            request.state.order = ORDER
            await self.may_end.wait()
            return "ended"

        @app.get("/thread")
        async def thread() -> str:
            self.in_thread.set()
            await run_sync(self.thread_may_end.wait, LIMIT_S)
            return "ended"

        @app.get("/events")
        async def events(*, swallows: bool = False) -> EventStream:
            async def happening() -> AsyncGenerator[ServerSentEvent, None]:
                yield ServerSentEvent("first")
                if swallows:
                    # As `asyncio.wait_for` may, where both come at once.
                    with suppress(asyncio.CancelledError):
                        await self.may_end.wait()
                await self.may_end.wait()
                yield ServerSentEvent("last")

            async def after(left: bool) -> None:
                self.left.append(left)

            slot = StreamSlot(Counter(), "key")
            return EventStream(happening(), slot, self.stopping, order_id=ORDER, after=after)

        return app

    def serve(self, call: Any, *, end: bool = False) -> None:
        """Serve, let `call` be made of the address, and stop it once `call` says so.

        Args:
            call: is given the address and a function that stops the server.
            end: whether what waits ends within the grace.
        """
        with serving.listen("127.0.0.1", 0, "server", "HERD_PORT") as listening:
            url = "http://{}:{}".format(*listening.getsockname()[:2])
            told: list[Future[None]] = []
            pool = ThreadPoolExecutor(1)

            def stop() -> None:
                os.kill(os.getpid(), signal.SIGTERM)

            def stopping() -> None:
                self.stopping.begin()
                if end:
                    asyncio.get_running_loop().call_soon_threadsafe(self.may_end.set)

            serving.run(
                self.app,
                listening,
                bounds=HttpBounds(),
                ready=lambda: told.append(pool.submit(call, url, stop)),
                stopping=stopping,
                timeout_graceful_shutdown=self.stopping.grace_s + LAST_S,
            )
            self.thread_may_end.set()
            told[0].result(timeout=LIMIT_S)
            pool.shutdown()


@pytest.mark.parametrize("path", ["/wait", "/thread"])
def test_a_whole_call_gets_a_503_in_our_form_after_the_grace(path):
    story = Story(grace_s=0)
    answers = []

    def call(url: str, stop: Any) -> None:
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(httpx.get, url + path, timeout=LIMIT_S)
            if path == "/thread":
                assert story.in_thread.wait(LIMIT_S)
            else:
                wait_for(lambda: story.stopping._waiting, "it waits")
            stop()
            answers.append(waiting.result())

    story.serve(call)
    (answer,) = answers
    assert answer.status_code == 503
    told = answer.json()["error"]
    assert (told["code"], told["type"]) == ("gateway_stopping", "server_error")
    assert answer.headers["retry-after"] == "1"
    assert "x-should-retry" not in answer.headers
    if path == "/wait":
        assert (told["data"], answer.headers["x-order"]) == ({"order": ORDER}, ORDER)


@pytest.mark.parametrize("swallows", [False, True])
def test_a_stream_ends_with_an_error_after_the_grace_and_its_caller_has_not_gone(swallows):
    story = Story(grace_s=0)
    lines: list[str] = []

    def call(url: str, stop: Any) -> None:
        at = f"{url}/events?swallows={swallows}"
        with httpx.stream("GET", at, timeout=LIMIT_S) as answer:
            for line in answer.iter_lines():
                lines.append(line)
                if line == "data: first":
                    stop()

    story.serve(call)
    assert lines[0] == "data: first"
    at = lines.index("event: error")
    told = json.loads(lines[at + 1].removeprefix("data: "))["error"]
    assert (told["code"], told["data"]) == ("gateway_stopping", {"order": ORDER})
    assert story.left == [False]


def test_what_ends_within_the_grace_is_answered_as_ever():
    story = Story(grace_s=LIMIT_S)
    answers, lines = [], []

    def call(url: str, stop: Any) -> None:
        with (
            ThreadPoolExecutor(1) as pool,
            httpx.stream("GET", f"{url}/events", timeout=LIMIT_S) as stream,
        ):
            received = stream.iter_lines()
            lines.append(next(received))
            waiting = pool.submit(httpx.get, f"{url}/wait", timeout=LIMIT_S)
            wait_for(lambda: len(story.stopping._waiting) == 2, "both wait")
            stop()
            answers.append(waiting.result())
            lines.extend(received)

    story.serve(call, end=True)
    assert [line for line in lines if line] == ["data: first", "data: last"]
    assert (answers[0].status_code, answers[0].json()) == (200, "ended")
    assert story.left == [False]


def test_a_server_that_is_told_twice_answers_at_once():
    story = Story(grace_s=LIMIT_S)
    answers = []

    def call(url: str, stop: Any) -> None:
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(httpx.get, f"{url}/wait", timeout=LIMIT_S)
            wait_for(lambda: story.stopping._waiting, "it waits")
            os.kill(os.getpid(), signal.SIGINT)
            wait_for(lambda: story.stopping.is_told, "it is told")
            os.kill(os.getpid(), signal.SIGINT)
            answers.append(waiting.result())

    story.serve(call)
    assert (answers[0].status_code, answers[0].json()["error"]["code"]) == (
        503,
        "gateway_stopping",
    )
