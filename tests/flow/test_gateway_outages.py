"""The database is away for a while: who calls a gateway gets an answer, or is charged nothing.

Herder and worker stay; only the gateway's way to PostgreSQL is cut.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from threading import Timer
from uuid import uuid4

import httpx
import pytest

from tests.support.cut_proxy import CutProxy
from tests.support.running import UNCOUNTED, RunningHerd
from tests.support.wait import wait_for

AWAY_S = (0.3, 1, 3, 10)
HI = [{"role": "user", "content": "What is it?"}]
NAMES = count(1)


class Served:
    """A herd, and a gateway whose database a test takes away."""

    def __init__(self, herd, proxy, url):
        self.herd, self.proxy, self.url = herd, proxy, url


@pytest.fixture(scope="module")
def served(tmp_path_factory, redis_server, postgres_server):
    redis_server.client().flushall()
    address = postgres_server.url(postgres_server.new_database())
    herd = RunningHerd(
        tmp_path_factory.mktemp("outages"), redis_server, HERD_DATABASE_URL=address, HERD_SLOTS="4"
    )
    herd.start_herder()
    herd.start_worker(HERD_STUB_STEP_MS="60")
    with CutProxy(postgres_server.port) as proxy:
        _, url = herd.start_gateway(HERD_DATABASE_URL=proxy.through(address), **UNCOUNTED)
        yield Served(herd, proxy, url)
        proxy.restore()
        herd.close()
    print(herd.logs)
    herd.check()
    assert "call_broke" not in herd.logs
    assert "Exception in ASGI" not in herd.logs


class Buyer:
    """An account of its own, and how it stands by the herd's own word."""

    def __init__(self, served):
        self.herd, self.proxy = served.herd, served.proxy
        self.account = f"buyer{next(NAMES)}"
        self.herd.client.accounts.create(self.account)
        self.herd.client.accounts.deposit(self.account, 1000, str(uuid4()))
        _, key = self.herd.client.api_keys.create(self.account)
        self.web = httpx.Client(
            base_url=served.url, headers={"Authorization": f"Bearer {key}"}, timeout=120
        )
        # Connections of the gateway's that are new send their statements in words.
        self.proxy.refuse()
        self.proxy.restore()

    @property
    def orders(self):
        return self.herd.client.orders(account=self.account)

    def one_order(self):
        """The only one, once it has ended."""

        def ended():
            (one,) = self.orders
            return one if one.state in ("completed", "cancelled", "failed", "expired") else None

        return wait_for(ended, "the order ends")

    def running(self):
        wait_for(lambda: [one.state for one in self.orders] == ["running"], "the order runs")

    def paid(self, charged):
        balance = self.herd.client.balance(self.account)
        assert (balance.available, balance.held) == (1000 - charged, 0)


@pytest.fixture
def buyer(served):
    made = Buyer(served)
    yield made
    served.proxy.restore()
    made.web.close()


def chat(tokens=40, **more):
    return {"model": "stub", "messages": HI, "max_tokens": tokens, "fee": 200, **more}


def whole(buyer, seconds):
    """A whole answer, with an outage that begins while it is generated."""

    with ThreadPoolExecutor() as pool:
        asked = pool.submit(buyer.web.post, "/v1/chat/completions", json=chat())
        buyer.running()
        buyer.proxy.refuse_for(seconds)
        return asked.result()


@pytest.mark.parametrize("seconds", AWAY_S)
def test_a_whole_answer_comes_and_is_paid_once(buyer, seconds):
    answer = whole(buyer, seconds)
    assert answer.status_code == 200, answer.text
    order = buyer.one_order()
    assert answer.headers["x-order"] == order.order
    assert len(answer.json()["choices"][0]["message"]["content"].split()) == 40
    buyer.paid(order.charged)


@pytest.mark.parametrize("seconds", AWAY_S)
def test_a_stream_brings_all_of_its_text(buyer, seconds):
    said, raw = "", []
    with buyer.web.stream("POST", "/v1/chat/completions", json=chat(stream=True)) as answer:
        for line in answer.iter_lines():
            if not line.startswith("data: "):
                continue
            raw.append(line)
            if line == "data: [DONE]":
                break
            chunk = json.loads(line.removeprefix("data: "))
            assert "error" not in chunk, chunk
            said += chunk["choices"][0]["delta"].get("content") or ""
            if len(raw) == 6:
                buyer.proxy.refuse_for(seconds)
    assert raw[-1] == "data: [DONE]"
    order = buyer.one_order()
    assert order.state == "completed"
    assert said == buyer.herd.client.answer(order.order).text
    buyer.paid(order.charged)


@pytest.mark.parametrize("seconds", [1, 10])
def test_a_caller_who_goes_away_in_an_outage_cancels_his_order(buyer, seconds):
    asked = chat(900, stream=True, fee=950)
    with buyer.web.stream("POST", "/v1/chat/completions", json=asked) as answer:
        for number, _ in enumerate(answer.iter_lines()):
            if number == 6:
                break
        buyer.proxy.refuse_for(seconds)
    order = buyer.one_order()
    assert order.state == "cancelled"
    assert 0 < order.charged < 950
    buyer.paid(order.charged)


@pytest.mark.parametrize("path", ["/v1/orders", "/v1/chat/completions"])
@pytest.mark.parametrize("seconds", [1, 10])
def test_a_commit_that_is_lost_is_one_order(buyer, path, seconds):
    body = chat(10) if "chat" in path else {"prompt": "Hi", "tokens": 10, "fee": 200}
    happened = buyer.proxy.cut_at(b"COMMIT", after=b"INSERT INTO orders")

    def restore():
        assert happened.wait(60)
        Timer(seconds, buyer.proxy.restore).start()

    Timer(0, restore).start()
    answer = buyer.web.post(path, json=body)
    assert answer.is_success, answer.text
    order = buyer.one_order()
    assert order.order in answer.text
    buyer.paid(order.charged)


def test_an_order_that_was_taken_is_told_though_its_place_cannot_be_read(buyer):
    happened = buyer.proxy.cut_at(b"COMMIT", after=b"INSERT INTO orders", answered=True)
    answer = buyer.web.post("/v1/orders", json={"prompt": "Hi", "tokens": 10, "fee": 200})
    assert happened.is_set()
    assert answer.status_code == 202, answer.text
    assert answer.json()["queue"] is None
    buyer.proxy.restore()
    order = buyer.one_order()
    assert answer.headers["location"] == f"/v1/orders/{order.order}"
    buyer.paid(order.charged)


def test_a_call_that_is_refused_before_it_is_taken_holds_nothing(buyer):
    buyer.proxy.refuse()
    for path, body in (
        ("/v1/orders", {"prompt": "Hi", "tokens": 10}),
        ("/v1/chat/completions", chat()),
        ("/v1/quotes", {"prompt": "Hi", "tokens": 10}),
        ("/messages", {"Action": "Info"}),
    ):
        answer = buyer.web.post(path, json=body)
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "1"
        assert answer.json()["error"]["code"] == "herd_unavailable"
    assert buyer.orders == []
    buyer.paid(0)


@pytest.mark.parametrize("seconds", [0.3, 1])
def test_a_short_outage_is_waited_for_by_every_call(buyer, seconds):
    taken = buyer.web.post("/v1/orders", json={"prompt": "Hi", "tokens": 900, "fee": 950}).json()
    for method, path, body in (
        ("GET", f"/v1/orders/{taken['id']}", None),
        ("GET", "/messages", None),
        ("POST", "/v1/quotes", {"prompt": "Hi", "tokens": 10}),
        ("POST", "/messages", {"Action": "Balance"}),
        ("POST", f"/v1/orders/{taken['id']}/cancel", None),
    ):
        buyer.proxy.refuse_for(seconds)
        answer = buyer.web.request(method, path, json=body)
        assert answer.is_success, (path, answer.text)
    order = buyer.one_order()
    assert order.state == "cancelled"
    buyer.paid(order.charged)
    assert len(buyer.web.get("/messages").json()["messages"]) == 1


def held_lines(buyer):
    """How many streams and long polls the gateway holds, as it tells."""
    _, operator = buyer.herd.client.api_keys.create("default", scopes=["operate"])
    headers = {"Authorization": f"Bearer {operator}"}
    told = httpx.get(buyer.web.base_url.join("/metrics"), headers=headers, timeout=60).text
    (line,) = (one for one in told.splitlines() if one.startswith("llama_herder_gateway_streams "))
    return float(line.split()[1])


def test_a_wait_for_an_order_and_for_messages_rides_an_outage_out(buyer):
    order = {"prompt": "Hi", "tokens": 300, "fee": 400}
    taken = buyer.web.post("/v1/orders", json=order).json()
    with ThreadPoolExecutor() as pool:
        waits = pool.submit(buyer.web.get, f"/v1/orders/{taken['id']}", params={"wait": 60})
        inbox = pool.submit(buyer.web.get, "/messages", params={"wait": 60})
        # A call that comes while the database is away cannot be let in: both have to wait before.
        wait_for(lambda: held_lines(buyer) == 2, "both wait")
        buyer.running()
        buyer.proxy.refuse_for(3)
        found = waits.result()
        assert found.status_code == 200, found.text
        assert found.json()["state"] == "completed"
        buyer.web.post("/messages", json={"Action": "Balance"})
        assert len(inbox.result().json()["messages"]) == 1
