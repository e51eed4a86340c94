"""`herder.Client` and `AsyncClient` against a real gateway: the same calls, the same errors."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

import herder
from herder.client import api as library
from herder.errors import (
    FeeTooLow,
    IdempotencyKeyReused,
    InsufficientBalance,
    OrderCancelled,
    OrderFailed,
    OrderNotFound,
    RebidTooLow,
    ResultTimeout,
    StreamRestarted,
    Unauthorized,
)
from tests.support.wait import wait_for


@pytest.fixture
def key(herd):
    _, shown = herd.client.api_keys.create("default")
    return shown


@pytest.fixture
def url(herd):
    _, found = herd.start_gateway()
    return found


@pytest.fixture
def web(url, key):
    with herder.Client(url, key) as client:
        yield client


def test_an_order_over_http_is_the_order_of_the_local_herd(herd, web):
    herd.start_worker(HERD_STUB_STEP_MS="5")
    quote = web.quote("What is the meaning of life?", 20)
    here = herd.client.quote("What is the meaning of life?", 20, account="default")
    assert quote == replace(here, expires=quote.expires, quote=quote.quote)
    order = web.submit("What is the meaning of life?", 20, fee=54, reference="mine", top_k=5)
    assert "".join(order.stream()) == order.result(timeout=60).text
    assert order.result() == herd.client.result(order.id, 60)
    assert order.receipt() == herd.client.receipt(order.id)
    assert order.status() == "completed"
    assert web.order(order.id).fee == 54
    assert web.info() == herd.client.info()


def test_at_base_exactly_what_is_needed_is_paid(herd, web):
    herd.start_worker()
    assert web.submit("two words", 10, fee=130).result(timeout=60).receipt.multiplier == "10"
    # The going rate follows that order, and does so wherever it is asked for.
    assert web.quote("two words", 10).fee > 13
    quote = web.quote("two words", 10, fee="base")
    assert (quote.fee, quote.multiplier) == (13, "1")
    receipt = web.submit("two words", 10, fee="base", idempotency_key="k").result(60).receipt
    assert (receipt.fee, receipt.needed, receipt.automatic) == (13, 13, False)
    assert web.submit("two words", 10, fee="base", idempotency_key="k").id == receipt.order
    with pytest.raises(IdempotencyKeyReused, match="fee"):
        web.submit("two words", 10, fee=13, idempotency_key="k")
    assert web.submit("two words", 10, quote=quote.quote).fee == 13


def test_errors_are_the_same(herd, web, url):
    with pytest.raises(FeeTooLow, match="at least 13"):
        web.submit("two words", 10, fee=5)
    with pytest.raises(InsufficientBalance):
        web.submit("two words", 10, fee=2_000_000)
    with pytest.raises(OrderNotFound):
        web.order("nothing")
    with pytest.raises(Unauthorized):
        herder.Client(url, "herd_x").info()
    order = web.submit("two words", 10, fee=20)
    with pytest.raises(ResultTimeout, match="queued"):
        order.result(timeout=0.2)
    with pytest.raises(RebidTooLow):
        order.rebid(15)
    assert order.rebid(30).fee == order.fee == 30
    assert order.cancel().state == "cancelled"
    with pytest.raises(OrderCancelled) as ended:
        order.result()
    assert ended.value.result.receipt.returned == 30
    herd.start_worker()
    with pytest.raises(OrderFailed, match="told the deterministic model to fail"):
        web.submit("[[fail]]", 10).result(timeout=60)


def test_callbacks_are_called(herd, web):
    herd.start_worker()
    answers, failures = [], []
    order = web.submit("Hi", 10, callback=answers.append)
    web.submit("[[fail]]", 10, on_error=failures.append)
    wait_for(lambda: answers and failures, "both are called")
    assert answers == [order.result().text]
    assert isinstance(failures[0], OrderFailed)


def test_a_lost_worker_is_told_to_who_has_read(herd, web):
    worker = herd.start_worker(HERD_STUB_STEP_MS="40")
    order = web.submit("Tell me", 80, fee=200)
    reading = order.stream()
    next(reading)
    wait_for(lambda: order.status() == "running", "it runs")
    worker.kill()
    herd.start_worker()
    with pytest.raises(StreamRestarted):
        list(reading)
    assert "".join(order.stream()) == order.result(timeout=60).text


def test_the_library_goes_there_where_it_is_told_to(herd, url, key, monkeypatch, tmp_path):
    herd.start_worker()
    monkeypatch.setattr(library, "_connected", None)
    monkeypatch.setenv("HERD_HOME", str(tmp_path / "nowhere"))
    monkeypatch.setenv("HERD_URL", url)
    monkeypatch.setenv("HERD_API_KEY", key)
    assert herder.submit("Hi", 5, fee=20).result(timeout=60).receipt.charged == 20
    assert herder.quote("Hi", 5).needed == 7
    assert herder.info().default_model == "stub"
    library.connect().close()


def test_an_event_loop_has_many_at_once(herd, url, key):
    herd.start_worker(HERD_SLOTS="8", HERD_STUB_STEP_MS="2")

    async def story():
        async with herder.AsyncClient(url, key) as web:

            async def one(number):
                order = await web.submit(f"Number {number}", 10, fee=30)
                text = "".join([piece async for piece in order.stream()])
                result = await order.result()
                assert text == result.text
                return result.receipt.charged

            charged = await asyncio.gather(*(one(number) for number in range(40)))
            cheap = await web.submit("Hi", 10, fee=20)
            await cheap.cancel()
            return sum(charged), (await web.quote("Hi", 5)).needed, (await web.info()).version

    charged, needed, version = asyncio.run(story())
    assert charged == 40 * 30
    assert (needed, version) == (7, herder.__version__)
