"""A gateway that is killed, or told to stop, in the middle of streams: no text is lost or doubled.

Each is done up to three times in the life of one answer, and once at least, to a program that
speaks HTTP by itself, to `herder.Client` and to `herder.AsyncClient`.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import httpx
import pytest

import herder
from tests.support.wait import wait_for

TOKENS = 160
TIMES = 3


class Restarting:
    """A gateway on one port, which a test takes away and starts again."""

    def __init__(self, herd):
        self.herd = herd
        self.gateway, self.url = herd.start_gateway()

    def again(self, end):
        """End it and start another; between the two nobody listens for a while."""
        if end == "kill":
            self.gateway.kill()
        else:
            assert self.gateway.stop() == 0
        time.sleep(0.3)
        self.gateway, _ = self.herd.start_gateway(urlsplit(self.url).port)


@pytest.fixture
def restarting(herd):
    # Some eight seconds of text: enough for three restarts, unless the machine has much to do.
    herd.start_worker(HERD_STUB_STEP_MS="60")
    return Restarting(herd)


@pytest.fixture
def key(herd):
    _, shown = herd.client.api_keys.create("default")
    return shown


class Reader(threading.Thread):
    """Reads a stream in a thread, and shows how much it has."""

    def __init__(self, read):
        super().__init__(daemon=True)
        self.pieces = []
        self.failed = None
        self._read = read

    def run(self):
        try:
            self._read(self.pieces)
        except BaseException as error:  # noqa: BLE001 (whole() raises it)
            self.failed = error

    def grows(self):
        """Wait until more has come; whether the stream is still open then."""
        had = len(self.pieces)
        wait_for(lambda: len(self.pieces) > had + 2 or not self.is_alive(), "more text comes")
        return self.is_alive()

    def whole(self):
        self.join(timeout=60)
        assert not self.is_alive()
        if self.failed is not None:
            raise self.failed
        return "".join(self.pieces)


def restarted(restarting, reader, end):
    """Restart the gateway in the middle of what the reader reads."""
    reader.start()
    assert reader.grows(), f"it ended early: {reader.failed!r}"
    restarting.again(end)
    for _ in range(TIMES - 1):
        if reader.grows():
            restarting.again(end)
    return reader.whole()


class Plain:
    """The least that a program does to follow an order over HTTP."""

    def __init__(self, url, key, order):
        self._url = f"{url}/v1/orders/{order}/events"
        self._headers = {"Authorization": f"Bearer {key}"}
        self.last = None
        self.kinds = []
        self.broken = 0

    def read(self, pieces):
        """To the receipt, over as many connections as it takes."""
        with httpx.Client(timeout=30) as web:
            while "receipt" not in self.kinds:
                try:
                    self._once(web, pieces)
                except httpx.TransportError:
                    self.broken += 1
                    time.sleep(0.1)

    def _once(self, web, pieces):
        headers = self._headers | ({"Last-Event-ID": self.last} if self.last else {})
        kind = identity = None
        with web.stream("GET", self._url, headers=headers) as answer:
            answer.raise_for_status()
            for line in answer.iter_lines():
                name, _, value = line.partition(": ")
                if name == "event":
                    kind = value
                elif name == "id":
                    identity = value
                elif name == "data":
                    self.kinds.append(kind)
                    if kind == "text":
                        pieces.append(json.loads(value)["text"])
                        self.last = identity


@pytest.mark.parametrize("end", ["kill", "stop"])
def test_a_program_that_speaks_http_goes_on_by_last_event_id(herd, restarting, key, end):
    order = herd.submit("Tell me", TOKENS, fee=400, account="default")
    plain = Plain(restarting.url, key, order.id)
    text = restarted(restarting, Reader(plain.read), end)
    assert text == order.result(timeout=60).text
    assert len(text.split()) == TOKENS
    assert plain.broken >= 1
    assert "restart" not in plain.kinds
    assert plain.kinds.count("end") == plain.kinds.count("receipt") == 1


@pytest.mark.parametrize("end", ["kill", "stop"])
def test_the_client_goes_on(herd, restarting, key, end):
    with herder.Client(restarting.url, key) as web:
        order = web.submit("Tell me", TOKENS, fee=400)
        text = restarted(restarting, Reader(lambda pieces: pieces.extend(order.stream())), end)
        assert text == order.result(timeout=60).text
        assert len(text.split()) == TOKENS


@pytest.mark.parametrize("end", ["kill", "stop"])
def test_the_client_of_an_event_loop_goes_on(herd, restarting, key, end):
    async def story(pieces):
        async with herder.AsyncClient(restarting.url, key) as web:
            order = await web.submit("Tell me", TOKENS, fee=400)
            async for piece in order.stream():
                pieces.append(piece)
            assert "".join(pieces) == (await order.result()).text

    text = restarted(restarting, Reader(lambda pieces: asyncio.run(story(pieces))), end)
    assert len(text.split()) == TOKENS


def test_a_stream_of_the_openai_routes_ends_with_an_error_and_its_order_goes_on(
    herd, restarting, key
):
    body = {"model": "stub", "prompt": "Tell me", "max_tokens": TOKENS, "stream": True}
    headers = {"Authorization": f"Bearer {key}"}
    url = f"{restarting.url}/v1/completions"
    with httpx.stream("POST", url, json=body, headers=headers, timeout=60) as answer:
        order = answer.headers["x-order"]
        wait_for(lambda: herd.client.receipt(order).state == "running", "it runs")
        lines = answer.iter_lines()
        next(lines)
        restarting.again("stop")
        last = [line for line in lines if line][-1]
    told = json.loads(last.removeprefix("data: "))["error"]
    assert (told["code"], told["data"]) == ("gateway_stopping", {"order": order})
    with httpx.Client(base_url=restarting.url, headers=headers, timeout=60) as web:
        found = web.get(f"/v1/orders/{order}", params={"wait": 60}).json()
    assert found["state"] == "completed"
    assert len(found["text"].split()) == TOKENS


def test_a_whole_call_of_the_openai_routes_gets_a_503_and_its_order_goes_on(herd, restarting, key):
    body = {"model": "stub", "prompt": "Tell me", "max_tokens": TOKENS}
    headers = {"Authorization": f"Bearer {key}", "Idempotency-Key": "once"}
    url = f"{restarting.url}/v1/completions"
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(httpx.post, url, json=body, headers=headers, timeout=60)
        (receipt,) = wait_for(lambda: herd.client.orders(account="default"), "it is taken")
        restarting.again("stop")
        told = waiting.result()
    assert (told.status_code, told.json()["error"]["code"]) == (503, "gateway_stopping")
    assert (told.headers["x-order"], told.headers["retry-after"]) == (receipt.order, "1")
    answer = httpx.post(url, json=body, headers=headers, timeout=60)
    assert answer.headers["x-order"] == receipt.order
    assert len(answer.json()["choices"][0]["text"].split()) == TOKENS
    assert len(herd.client.orders(account="default")) == 1
