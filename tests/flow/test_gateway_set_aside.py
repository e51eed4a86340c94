"""An order that is set aside, seen over HTTP: nobody waits until an operator has decided."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor

import httpx
import openai
import pytest

import herder
from herder.accounts.accounts import open_ledger
from herder.errors import OrderSetAside
from herder.store import orders as order_sql
from tests.support.wait import wait_for

ASKED = [{"role": "user", "content": "two words"}]


@pytest.fixture
def key(herd):
    _, shown = herd.client.api_keys.create("default")
    return shown


@pytest.fixture
def url(herd):
    _, found = herd.start_gateway(HERD_DEFAULT_TOKENS="10")
    return found


def set_aside(herd, order_id):
    """Have an order's end refused: somebody took a part of its hold."""
    with herd.client.database.write() as connection:
        order = order_sql.get_order(connection, order_id)
        open_ledger().post(connection, order.hold_id, 1)
    assert herd.client.cancel(order_id).state == "set_aside"


def newest(herd, known):
    """The order that was not there before."""

    def look():
        found = {one.order for one in herd.client.orders(account="default")} - known
        return found.pop() if found else None

    return wait_for(look, "an order that was not there before")


def give_back(herd):
    for one in herd.client.aside.list():
        herd.client.aside.give_back(one.order)


async def both(url, key, order_id):
    async with herder.AsyncClient(url, key) as client:
        order = await client.order(order_id)
        with pytest.raises(OrderSetAside) as told:
            await order.result()
        with pytest.raises(OrderSetAside):
            async for _ in order.stream():
                pass
        return told.value


def test_the_clients_are_told(herd, url, key):
    with herder.Client(url, key) as client, ThreadPoolExecutor(2) as waiting:
        order = client.submit("two words", 10, fee=26)
        result = waiting.submit(order.result)
        stream = waiting.submit(lambda: "".join(order.stream()))
        set_aside(herd, order.id)
        for one in (result, stream):
            error = one.exception(60)
            assert isinstance(error, OrderSetAside)
            assert "its fee of 26 winston stays held" in error.message
        assert asyncio.run(both(url, key, order.id)).data["held"] == 26
        receipt = order.receipt()
        assert (receipt.state, receipt.held, receipt.charged) == ("set_aside", 26, 0)
        assert receipt.failure["code"] == "order_set_aside"
    give_back(herd)


def test_a_long_poll_answers_and_a_stream_of_events_ends(herd, url, key):
    headers = {"Authorization": f"Bearer {key}"}
    # A gateway closes a connection that nobody used for five seconds, maybe as it is used again.
    each_its_own = httpx.Limits(max_keepalive_connections=0)
    with httpx.Client(base_url=url, headers=headers, timeout=120, limits=each_its_own) as web:
        order_id = web.post("/v1/orders", json={"prompt": "two words", "tokens": 10}).json()["id"]
        set_aside(herd, order_id)
        answer = web.get(f"/v1/orders/{order_id}?wait=60")
        assert (answer.status_code, answer.json()["state"]) == (200, "set_aside")
        assert answer.elapsed.total_seconds() < 50
        lines = web.get(f"/v1/orders/{order_id}/events").text.splitlines()
        assert [one for one in lines if one.startswith("event: ")][-2:] == [
            "event: end",
            "event: receipt",
        ]
        end = json.loads(lines[lines.index("event: end") + 1].removeprefix("data: "))
        assert (end["state"], end["failure"]["code"]) == ("set_aside", "order_set_aside")
    give_back(herd)


@pytest.mark.parametrize("stream", [False, True])
def test_openais_clients_are_told_and_buy_no_second_order(herd, url, key, stream):
    before = {one.order for one in herd.client.orders(account="default")}

    def ask():
        with openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=2) as client:
            answer = client.chat.completions.create(model="stub", messages=ASKED, stream=stream)
            return list(answer)

    with ThreadPoolExecutor(1) as waiting:
        asked = waiting.submit(ask)
        order_id = newest(herd, before)
        set_aside(herd, order_id)
        error = asked.exception(60)
    assert isinstance(error, openai.APIError)
    assert error.code == "order_set_aside"
    assert "stays held" in error.message
    if not stream:
        assert error.status_code == 500
    after = {one.order for one in herd.client.orders(account="default")}
    assert after - before == {order_id}
    give_back(herd)
