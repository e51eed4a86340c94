"""Callers of OpenAI's routes who disconnect while their order waits to be taken; no connection."""

from __future__ import annotations

import asyncio
import json
import threading
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.requests import Request

from herder.errors import HerdUnavailable
from herder.gateway.routes.openai import chat
from herder.orders.intake import CallerGone
from tests.support.wait import wait_for

BODY = {"model": "stub", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5}


class Gateway:
    """The parts of a gateway that a purchase meets, with a herd that waits until told."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.taken: list[str | None] = []
        self.lost: list[tuple[str, str]] = []
        self.slots = 0
        self.settings = SimpleNamespace(join_retries=True, default_tokens=0, lease_s=1)
        self.herd = SimpleNamespace(take=self._take, cancellations=None)
        self.follower = SimpleNamespace(acquire=self._acquire)
        self.repetitions = SimpleNamespace(key_of=self._key_of, lose=self._lose)

    def model(self, name: str) -> str:
        return name

    @contextmanager
    def _acquire(self, _: str) -> Any:
        self.slots += 1
        yield
        self.slots -= 1

    async def _key_of(self, _: str, count: int) -> str:
        return f"key {count}"

    def _lose(self, digest: str, key: str) -> None:
        self.lost.append((digest, key))

    def _take(self, *given: Any, is_wanted: Any = None, **_: Any) -> Any:
        """Take an order, once its caller has gone; what comes after is not of interest."""
        self.begun.set()
        if is_wanted is not None:
            wait_for(lambda: not is_wanted(), "the caller's going is noticed")
            raise CallerGone
        self.taken.append(given[2]["idempotency_key"])
        raise HerdUnavailable("It is away.")


def call(gateway: Any, hangs_up: asyncio.Event, headers: dict[str, str], **more: Any) -> Any:
    """A call of the chat route whose caller disconnects when told."""
    body = json.dumps(BODY | more).encode()
    parts = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def receive() -> Any:
        for part in parts:
            return part
        await hangs_up.wait()
        return {"type": "http.disconnect"}

    given = {"content-type": "application/json", **headers}
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/chat/completions",
        "headers": [(name.encode(), value.encode()) for name, value in given.items()],
    }
    key: Any = SimpleNamespace(id="k", account="default")
    return chat(Request(scope, receive), gateway, key)


async def hang_up_while_it_is_taken(gateway: Gateway, headers: Any, **more: Any) -> Any:
    hangs_up = asyncio.Event()
    calling = asyncio.ensure_future(call(gateway, hangs_up, headers, **more))
    await asyncio.to_thread(wait_for, gateway.begun.is_set, "it is being taken")
    hangs_up.set()
    return await asyncio.wait_for(calling, 60)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("key", [{}, {"idempotency-key": "once"}])
def test_no_order_is_taken_for_a_caller_who_hung_up_meanwhile(stream, key):
    gateway = Gateway()
    answer = asyncio.run(hang_up_while_it_is_taken(gateway, key, stream=stream))
    assert (answer.status_code, gateway.taken, gateway.slots) == (499, [], 0)


@pytest.mark.parametrize("count", [0, 1])
def test_a_repetition_that_hung_up_leaves_the_key_of_its_predecessor(count):
    gateway = Gateway()
    marked = {"x-stainless-retry-count": str(count)}
    assert asyncio.run(hang_up_while_it_is_taken(gateway, marked)).status_code == 499
    assert [key for _, key in gateway.lost] == ["key 1"] * count


def test_an_order_that_goes_on_without_its_caller_is_taken_all_the_same():
    gateway = Gateway()
    headers = {"x-on-disconnect": "continue", "idempotency-key": "once"}
    with pytest.raises(HerdUnavailable):
        asyncio.run(hang_up_while_it_is_taken(gateway, headers))
    assert gateway.taken == ["once"]
