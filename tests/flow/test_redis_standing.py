"""A Redis that stands still, or is full: what the database can answer does not wait for it.

Before, a call waited for 30 s: 15 for the answer, and as long once more.
"""

from __future__ import annotations

import json
import time

import httpx
import pytest

from tests.support.typed import typed

SOON_S = 25
"""Generous for a loaded machine, and less than what each of these calls took on an idle one."""


@pytest.fixture
def frozen(make_herd, own_redis):
    """A herd with orders that wait, whose Redis stands still; and a gateway."""
    herd = make_herd(own_redis)
    herd.start_herder()
    gateway, url = herd.start_gateway()
    _, key = herd.client.api_keys.create("default")
    orders = [herd.submit(f"Number {number}", 5) for number in range(3)]
    own_redis.stand()
    yield herd, url, key, orders
    own_redis.go_on()
    assert gateway.stop() == 0


def in_time(call, *words, **more):
    """What a call returns, which must not take long."""
    began = time.monotonic()
    found = call(*words, **more)
    assert time.monotonic() - began < SOON_S
    return found


def test_commands_answer_while_redis_stands_still(frozen):
    herd, _, _, orders = frozen
    cancelled = typed(herd, "order", "cancel", orders[0].id)
    out, said = in_time(cancelled.communicate, timeout=120)
    assert cancelled.returncode == 0, said
    assert orders[0].status() == "cancelled"
    for words in (("orders",), ("account", "balance"), ("worker", "list"), ("info",)):
        shown = typed(herd, *words)
        out, said = in_time(shown.communicate, timeout=120)
        assert shown.returncode == 0, (words, out, said)
    drained = typed(herd, "worker", "drain", "nobody")
    in_time(drained.communicate, timeout=120)
    # A program: what is asked and what is cancelled, one after the other.
    for order in orders[1:]:
        in_time(order.cancel)
    in_time(herd.client.submit, "One more", 5)


def test_a_gateway_answers_while_redis_stands_still(frozen):
    _, url, key, orders = frozen
    with httpx.Client(
        base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=120
    ) as client:
        ready = in_time(client.get, "/readyz")
        assert ready.status_code == 503
        assert ready.json()["checks"]["redis"] == "Redis does not answer."
        for path in ("/healthz", "/v1/orders", f"/v1/orders/{orders[0].id}", "/v1/account"):
            assert in_time(client.get, path).status_code == 200
        done = in_time(client.post, f"/v1/orders/{orders[0].id}/cancel")
        assert done.json()["state"] == "cancelled", done.text
        # Its end comes from the database.
        events = in_time(client.get, f"/v1/orders/{orders[0].id}/events")
        assert "event: end" in events.text
        taken = in_time(client.post, "/v1/orders", json={"prompt": "Hello", "tokens": 3})
        assert taken.status_code == 202, taken.text
        waited = in_time(client.get, f"/v1/orders/{orders[1].id}", params={"wait": 1})
        assert waited.json()["state"] in ("queued", "dispatched")
        # An end that somebody waits for while Redis stands is found in the database.
        with httpx.Client(base_url=url, headers=client.headers, timeout=120) as other:
            in_time(other.post, f"/v1/orders/{orders[2].id}/cancel")
        ended = in_time(client.get, f"/v1/orders/{orders[2].id}", params={"wait": 30})
        assert ended.json()["state"] == "cancelled"


def test_what_workers_report_by_rabbitmq_is_settled_while_redis_stands_still(
    make_herd, own_redis, rabbit_server
):
    rabbit_server.clear()
    # Nobody is heard meanwhile, and the time in which nobody listens counts against nobody.
    herd = make_herd(own_redis, HERD_BROKER_URL=rabbit_server.url(), HERD_LEASE_S="30")
    herd.start_herder()
    worker = herd.start_worker(HERD_SLOTS="1", HERD_STUB_STEP_MS="50")
    order = herd.submit("A long story", 60)
    herd.running(order, worker)
    own_redis.stand()
    try:
        began = time.monotonic()
        assert order.result(timeout=120).receipt.state == "completed"
        assert time.monotonic() - began < 3 + SOON_S
    finally:
        own_redis.go_on()
    assert herd.submit("And on it goes", 3).result(timeout=60).receipt.state == "completed"


def test_submit_tells_that_redis_is_full_and_goes_on_when_it_is_not(make_herd, own_redis):
    herd = make_herd(own_redis)
    herd.start_herder()
    herd.start_worker()
    admin = own_redis.client()
    admin.config_set("maxmemory-policy", "noeviction")
    admin.config_set("maxmemory", "1")
    waits = typed(herd, "submit", "Is there room?", "-n", "3", "--json")
    assert waits.stderr is not None
    told = next((line for line in waits.stderr if "fee held" in line), "nothing of it")
    assert "waits, with its fee held: Redis is full" in told
    admin.config_set("maxmemory", "0")
    out, said = waits.communicate(timeout=120)
    assert waits.returncode == 0, said
    assert json.loads(out)["receipt"]["state"] == "completed", "standard output is JSON alone"
