"""Callers of OpenAI's routes who disconnect and come back: one order, paid for once."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from urllib.parse import urlsplit

import httpx
import openai
import pytest

from tests.support.wait import wait_for

HI = [{"role": "user", "content": "What is it?"}]
TOKENS = 60
BODY = {"model": "stub", "messages": HI, "max_tokens": TOKENS}
SLOW = {"HERD_STUB_STEP_MS": "50"}
"""An answer of `TOKENS` takes three seconds at least."""


@pytest.fixture
def key(herd):
    _, shown = herd.client.api_keys.create("default")
    return shown


class Caller:
    """Calls OpenAI's chat route of a gateway.

    Args:
        url: of the gateway.
        key: an API key.
        idempotency_key: of the call, if it has one.
        count: how often the call was sent before, if its client says.
    """

    def __init__(self, url, key, idempotency_key=None, count=None):
        self.url = f"{url}/v1/chat/completions"
        self.headers = {"Authorization": f"Bearer {key}"}
        if idempotency_key is not None:
            self.headers["Idempotency-Key"] = idempotency_key
        if count is not None:
            self.headers["x-stainless-retry-count"] = str(count)

    def give_up(self, herd, **more):
        """Call, and disconnect once the order is there; its id."""
        known = {one.order for one in herd.client.orders(account="default")}

        def new():
            return [one for one in herd.client.orders(account="default") if one.order not in known]

        where = urlsplit(self.url)
        line = HTTPConnection(where.netloc, timeout=60)
        try:
            headers = self.headers | {"Content-Type": "application/json"}
            line.request("POST", where.path, json.dumps({**BODY, **more}), headers)
            (receipt,) = wait_for(new, "it is taken")
        finally:
            line.close()
        return receipt.order

    def ask(self, **more):
        """Call, and wait for the answer."""
        return httpx.post(self.url, json={**BODY, **more}, headers=self.headers, timeout=120)


def order_ids(herd):
    return [one.order for one in herd.client.orders(account="default")]


def ended(herd, order, state):
    wait_for(lambda: herd.client.receipt(order).state == state, f"it is {state}")
    return herd.client.receipt(order)


def test_a_time_out_of_the_package_buys_one_order_and_pays_once(herd, key):
    herd.start_worker(**SLOW)
    _, url = herd.start_gateway()
    with openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=40, timeout=1.0) as client:
        answer = client.chat.completions.create(**BODY)
    order = answer.id.removeprefix("chatcmpl-")
    assert order_ids(herd) == [order]
    assert answer.usage.completion_tokens == TOKENS
    receipt = herd.client.receipt(order)
    assert receipt.charged == receipt.fee
    assert herd.client.accounts.balance("default").available == 1_000_000 - receipt.charged


def test_a_marked_repetition_joins_the_order_at_another_gateway(herd, key):
    (_, first), (_, second) = herd.start_gateway(), herd.start_gateway()
    order = Caller(first, key, count=0).give_up(herd)
    with ThreadPoolExecutor(1) as pool:
        again = pool.submit(Caller(second, key, count=1).ask)
        herd.start_worker()
        assert again.result(timeout=120).headers["x-order"] == order
    assert order_ids(herd) == [order]


def test_a_repetition_that_is_not_marked_or_not_the_same_is_another_order(herd, key):
    herd.start_worker()
    _, url = herd.start_gateway()
    order = Caller(url, key, count=0).give_up(herd)
    _, other_key = herd.client.api_keys.create("default")
    others = [
        Caller(url, key).ask(),
        Caller(url, key, count=0).ask(),
        Caller(url, key, count=1).ask(max_tokens=TOKENS + 1),
        Caller(url, key, count=1).ask(fee=1000),
        Caller(url, other_key, count=1).ask(),
    ]
    ids = [one.headers["x-order"] for one in others]
    assert len({order, *ids}) == 6


def test_a_setting_has_every_repetition_be_another_order(herd, key):
    _, url = herd.start_gateway(HERD_JOIN_RETRIES="no")
    order = Caller(url, key, count=0).give_up(herd)
    assert ended(herd, order, "cancelled").charged == 0
    herd.start_worker()
    assert Caller(url, key, count=1).ask().headers["x-order"] != order


@pytest.mark.parametrize("stream", [True, False])
def test_under_a_key_the_order_waits_for_its_caller_to_come_back(herd, key, stream):
    _, url = herd.start_gateway(HERD_DISCONNECT_GRACE_S="3600")
    caller = Caller(url, key, "once")
    order = caller.give_up(herd, stream=stream)
    with ThreadPoolExecutor(1) as pool:
        again = pool.submit(caller.ask, stream=stream)
        herd.start_worker()
        answer = again.result(timeout=120)
    assert answer.headers["x-order"] == order
    assert answer.text.endswith("[DONE]\n\n") == stream
    assert order_ids(herd) == [order]
    assert ended(herd, order, "completed").charged > 0


def test_nobody_comes_back_and_the_key_buys_again(herd, key):
    _, url = herd.start_gateway(HERD_DISCONNECT_GRACE_S="1")
    caller = Caller(url, key, "once")
    order = caller.give_up(herd)
    assert ended(herd, order, "cancelled").charged == 0
    herd.start_worker()
    answer = caller.ask()
    assert answer.status_code == 200
    assert answer.headers["x-order"] != order
    assert len(order_ids(herd)) == 2


@pytest.mark.parametrize("gateways", [1, 2])
def test_one_of_two_under_a_key_hangs_up_and_the_patient_one_is_answered(herd, key, gateways):
    urls = [herd.start_gateway(HERD_DISCONNECT_GRACE_S="1")[1] for _ in range(gateways)]
    with ThreadPoolExecutor(1) as pool:
        patient = pool.submit(Caller(urls[-1], key, "once").ask)
        (order,) = wait_for(lambda: order_ids(herd), "it is taken")
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(
                f"{urls[0]}/v1/chat/completions",
                json=BODY,
                headers=Caller(urls[0], key, "once").headers,
                timeout=2,
            )
        # Somebody else, who goes after that one, is cancelled after the same grace.
        mark = Caller(urls[0], key, "another").give_up(herd, max_tokens=5)
        ended(herd, mark, "cancelled")
        assert herd.client.receipt(order).state == "queued"
        herd.start_worker()
        answer = patient.result(timeout=120)
    assert (answer.status_code, answer.headers["x-order"]) == (200, order)


def test_whoever_reads_its_events_keeps_an_order_whose_caller_has_gone(herd, key):
    _, url = herd.start_gateway(HERD_DISCONNECT_GRACE_S="10")
    caller = Caller(url, key, "once")
    reading = {"headers": {"Authorization": f"Bearer {key}"}, "timeout": 120}
    order = caller.give_up(herd)
    with httpx.stream("GET", f"{url}/v1/orders/{order}/events", **reading) as events:
        lines = events.iter_lines()
        next(lines)
        mark = Caller(url, key, "another").give_up(herd, max_tokens=5)
        ended(herd, mark, "cancelled")
        assert herd.client.receipt(order).state == "queued"
        herd.start_worker()
        assert "event: receipt" in list(lines)
    assert herd.client.receipt(order).state == "completed"
