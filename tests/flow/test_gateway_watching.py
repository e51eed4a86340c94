"""`/metrics` and `/readyz` of a real herd: what was done is counted, and what is gone is named."""

from __future__ import annotations

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from herder.local.readiness import OK
from tests.support.rabbit_server import RabbitServer, require_rabbit
from tests.support.wait import wait_for


def bearer(key):
    return {"Authorization": f"Bearer {key}"}


def scraped(url, key=None):
    """Every sample of a scrape, by its name and labels."""
    answer = httpx.get(f"{url}/metrics", headers=bearer(key) if key else {}, timeout=30)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_what_was_done_is_counted(herd):
    _, operator = herd.client.api_keys.create("default", scopes=["operate"])
    _, key = herd.client.api_keys.create("default")
    _, url = herd.start_gateway()
    worker = herd.start_worker(HERD_STUB_STEP_MS="10")
    scraped(url, operator)  # what happens from here on is counted
    with httpx.Client(base_url=url, headers=bearer(key), timeout=60) as web:
        body = {"prompt": "What is it?", "tokens": 10, "fee": 90}
        orders = [web.post("/v1/orders", json=body).json()["id"] for _ in range(3)]
        receipts = [
            web.get(f"/v1/orders/{order}", params={"wait": 60}).json()["receipt"]
            for order in orders
        ]
        with web.stream("GET", f"/v1/orders/{orders[0]}/events") as answer:
            assert answer.read()
        chat = {"model": "stub", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
        assert "[DONE]" in web.post("/v1/chat/completions", json=chat | {"max_tokens": 7}).text
        assert web.get("/nowhere/at/all").status_code == 404
        assert web.get(f"/v1/orders/{orders[0]}").status_code == 200
    receipts.append(herd.client.orders(account="default", limit=1)[0].to_dict())
    stub = ("model", "stub")
    ended = ("llama_herder_orders_ended_total", stub, ("state", "completed"))
    wait_for(lambda: scraped(url, operator).get(ended) == 4, "all are counted")
    at = (stub, ("worker", worker.name))
    # A beat from before the end may be heard after it: until the next one it occupies its slot.
    in_use = ("llama_herder_slots_in_use", *at)
    wait_for(lambda: scraped(url, operator)[in_use] == 0, "the worker says that it is free")
    now = scraped(url, operator)
    assert now["llama_herder_orders_submitted_total", stub] == 4
    charged = sum(receipt["charged"] for receipt in receipts)
    returned = sum(receipt["returned"] for receipt in receipts)
    assert now["llama_herder_charged_winston_total", stub] == charged > 0
    assert now["llama_herder_returned_winston_total", stub] == returned
    assert now["llama_herder_tokens_generated_total", stub] == 37
    for part in ("posted", "held"):
        assert now["llama_herder_ledger_imbalance_winston", ("part", part)] == 0
    assert now["llama_herder_order_wait_seconds_count", stub] == 4
    assert now["llama_herder_gateway_time_to_first_token_seconds_count", stub] == 1, (
        "of the chat; the order's stream had ended, and its text came from the database"
    )
    assert (now["llama_herder_slots", *at], now["llama_herder_slots_in_use", *at]) == (2, 0)
    assert now["llama_herder_orders", stub, ("state", "queued")] == 0
    assert now["llama_herder_gateway_streams",] == 0
    assert now["llama_herder_listening_seconds",] > 0
    assert now["llama_herder_database_up",] == 1
    assert now["process_open_fds",] > 0

    def called(route, method, status):
        labels = (("method", method), ("route", route), ("status", status))
        return now.get(("llama_herder_http_requests_total", *labels), 0)

    assert called("/v1/orders", "POST", "202") == 3
    assert called("/v1/orders/{order_id}", "GET", "200") == 4
    assert called("/v1/orders/{order_id}/events", "GET", "200") == 1
    assert called("/v1/chat/completions", "POST", "200") == 1
    assert called("none", "GET", "404") == 1
    timed = (("method", "POST"), ("route", "/v1/orders"))
    assert now["llama_herder_http_request_duration_seconds_count", *timed] == 3
    assert not [key for key in now for order in orders if order in str(key)]


def test_who_may_read_the_metrics(herd):
    _, url = herd.start_gateway()
    _, reader = herd.client.api_keys.create("default")

    def status(at, key=None):
        return httpx.get(f"{at}/metrics", headers=bearer(key) if key else {}).status_code

    assert (status(url), status(url, reader)) == (401, 403)
    _, operator = herd.client.api_keys.create("default", scopes=["operate"])
    assert status(url, operator) == 200
    _, open_url = herd.start_gateway(HERD_METRICS="open")
    assert status(open_url) == 200
    scrape = httpx.get(f"{open_url}/metrics", headers={"Accept": "application/openmetrics-text"})
    assert scrape.headers["content-type"].startswith("application/openmetrics-text")
    assert scrape.text.endswith("# EOF\n")
    _, off = herd.start_gateway(HERD_METRICS="off")
    assert status(off, operator) == 404


def checks(url):
    answer = httpx.get(f"{url}/readyz", timeout=60)
    found = answer.json()
    assert found["ready"] == (answer.status_code == 200)
    assert found["ready"] == (set(found["checks"].values()) == {OK})
    return found["checks"]


def missing(url):
    return {name for name, said in checks(url).items() if said != OK}


def missed_of(url):
    """Which servers are missing."""
    return missing(url) & {"database", "redis", "broker"}


def test_a_herd_without_a_worker_or_without_a_herder_is_not_ready(make_herd):
    herd = make_herd()
    _, url = herd.start_gateway()
    assert missing(url) == {"herder", "worker"}
    herder = herd.start_herder()
    wait_for(lambda: missing(url) == {"worker"}, "the herder is seen")
    assert "stub" in checks(url)["worker"]
    worker = herd.start_worker()
    wait_for(lambda: not missing(url), "it is ready")
    worker.kill()
    wait_for(lambda: missing(url) == {"worker"}, "a worker that died is missed within its lease")
    herd.start_worker()
    wait_for(lambda: not missing(url), "it is ready again")
    herder.kill()
    wait_for(lambda: "herder" in missing(url), "a herder that died is missed")
    wait_for(lambda: not missed_of(url), "and none of its servers")
    herd.start_herder()
    wait_for(lambda: not missing(url), "it is ready once more")


@pytest.fixture
def own_rabbit(tmp_path):
    require_rabbit()
    server = RabbitServer(tmp_path / "rabbit")
    yield server
    server.close()


def test_each_server_that_is_away_is_named(own_postgres, own_redis, own_rabbit, make_herd):
    address = own_postgres.url(own_postgres.new_database())
    herd = make_herd(own_redis, HERD_DATABASE_URL=address, HERD_BROKER_URL=own_rabbit.url())
    _, url = herd.start_gateway()
    herd.start_herder()
    herd.start_worker()
    wait_for(lambda: not missing(url), "it is ready")

    own_rabbit.kill()
    # Not at once, where a machine is busy: what answers late is missed for a while.
    wait_for(lambda: missed_of(url) == {"broker"}, "RabbitMQ is missed, and no other server")
    own_rabbit.start()
    wait_for(lambda: "broker" not in missing(url), "RabbitMQ is back")

    own_redis.kill()
    wait_for(lambda: missed_of(url) == {"redis"}, "Redis is missed, and no other server")
    own_redis.start()
    wait_for(lambda: "redis" not in missing(url), "Redis is back")

    own_postgres.crash()
    wait_for(lambda: missed_of(url) == {"database"}, "the database is missed, and no other server")
    assert httpx.get(f"{url}/healthz").status_code == 200
    own_postgres.start()
    wait_for(lambda: not missing(url), "all is back")
