"""A cancellation over HTTP that could not be made: remembered and made, or said to be open."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import httpx
import pytest

from herder import AsyncClient, Client, HerdUnavailable
from herder.client.http import async_client as aio
from herder.client.http import remote_herd as sync
from herder.local import cancellations
from tests.support.wait import wait_for

ORDER = "2f5c0a52-6a0e-4f0c-9d5e-1f0c7c2f3b11"
KEY = "herd_0123456789abcdef_" + "s" * 43
RECEIPT = {
    "order": ORDER,
    "account": "ada",
    "model": "m",
    "fee": 13,
    "needed": 13,
    "reference": None,
}


class Gateway:
    """Answers cancellations, unless it is away."""

    def __init__(self) -> None:
        self.away = True
        self.remembers = False
        self.cancelled: list[str] = []
        self.asked = 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        assert request.url.path == f"/v1/orders/{ORDER}/cancel"
        self.asked += 1
        if not self.away:
            self.cancelled.append(request.url.path)
            return httpx.Response(404, json=told("order_not_found", "There is no such order."))
        if self.remembers:
            return httpx.Response(503, json=told("herd_unavailable", "It is later.", order=ORDER))
        raise httpx.ConnectError("refused", request=request)


def told(code, message, **data):
    return {"error": {"code": code, "message": message, "data": data}}


@pytest.fixture
def gateway(monkeypatch, clean_environment):
    async def doze(_seconds):
        pass

    monkeypatch.setattr(cancellations, "PATIENCE_S", 0.0)
    monkeypatch.setattr(sync.time, "sleep", lambda _seconds: None)
    monkeypatch.setattr(aio.asyncio, "sleep", doze)
    return Gateway()


def test_what_could_not_be_cancelled_is_cancelled_when_the_gateway_is_back(gateway):
    with Client("http://herd", KEY, transport=httpx.MockTransport(gateway)) as herd:
        with pytest.raises(HerdUnavailable) as refused:
            herd._herd.cancel(ORDER)
        said = str(refused.value)
        assert f"Order {ORDER} is not cancelled yet; it is as soon as the gateway is back" in said
        assert f"`herd order cancel {ORDER}` does it too" in said
        assert refused.value.data == {"order": ORDER}
        asked = gateway.asked
        wait_for(lambda: gateway.asked > asked, "it is tried again")
        assert gateway.cancelled == []
        gateway.away = False
        wait_for(lambda: gateway.cancelled, "it is made")


def test_a_program_that_ends_tries_once_more(gateway, monkeypatch):
    monkeypatch.setattr(cancellations, "LOOK_S", 600.0)
    herd = Client("http://herd", KEY, transport=httpx.MockTransport(gateway))
    with pytest.raises(HerdUnavailable):
        herd._herd.cancel(ORDER)
    gateway.away = False
    herd.close()
    assert gateway.cancelled


def test_what_the_gateway_remembers_is_told_in_its_words(gateway):
    gateway.remembers = True
    with Client("http://herd", KEY, transport=httpx.MockTransport(gateway)) as herd:
        with pytest.raises(HerdUnavailable) as refused:
            herd._herd.cancel(ORDER)
        assert str(refused.value) == "It is later."
        assert refused.value.data == {"order": ORDER}
        assert herd._herd._cancellations.waiting == 0


def test_an_event_loop_is_told_that_it_may_go_on(gateway):
    async def cancel():
        transport = httpx.MockTransport(gateway)
        async with AsyncClient("http://herd", KEY, transport=transport) as herd:
            await aio.AsyncOrder(herd, SimpleNamespace(**RECEIPT)).cancel()

    with pytest.raises(HerdUnavailable) as refused:
        asyncio.run(cancel())
    assert f"Order {ORDER} may not be cancelled, and may go on; call cancel() again" in str(
        refused.value
    )
