"""What is watched of a herd: what is now, what happened since the last look, and the ledger."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from herder.gateway.telemetry import monitor as module
from herder.gateway.telemetry.metrics import GatewayMetrics
from herder.gateway.telemetry.monitor import MISSED, MISSED_S, Cursor, Monitor


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def watch(house, clock):
    return Monitor(house.database, house.accounts.totals, clock_us=house.clock, clock_s=clock)


def shown(metrics):
    """Every sample, by its name and labels."""
    from prometheus_client import generate_latest

    families = text_string_to_metric_families(generate_latest(metrics.registry).decode())
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def test_what_happened_is_counted_once_and_from_the_first_look_on(house, watch):
    house.submit()
    assert watch.look().happened == []
    worker = house.worker(slots=2)
    order = house.submit(fee=30)
    jobs = house.dispatch()
    for job in jobs:
        worker.claim(job)
        worker.finish(job)
    kinds = [one.kind for one in watch.look().happened]
    assert sorted(kinds) == sorted(["submitted", *["dispatched", "started", "completed"] * 2]), (
        "the first order was submitted before the first look"
    )
    assert watch.look().happened == []
    assert house.order(order.id).state == "completed"


def test_the_metrics_say_what_was_done(house, watch):
    metrics = GatewayMetrics(watch)
    worker = house.worker("w1", slots=3, tokens_per_s=5)
    metrics.refresh()
    stub = ("model", "stub")
    assert shown(metrics)["llama_herder_orders_ended_total", stub, ("state", "completed")] == 0
    first = house.submit(fee=40)
    house.now_us += 2_000_000
    (job,) = house.dispatch()
    worker.claim(job)
    house.now_us += 3_000_000
    worker.finish(job, generated=5, prompt_tokens=7)
    running = house.submit(fee=30)
    (job,) = house.dispatch()
    worker.claim(job)
    waits = [house.submit(tokens=20) for _ in range(2)]
    house.cancellation.cancel(waits[0].id)
    metrics.refresh()
    now = shown(metrics)

    def value(name, **labels):
        return now[f"llama_herder_{name}", *sorted({"model": "stub", **labels}.items())]

    assert value("orders_submitted_total") == 4
    assert value("dispatches_total") == 2
    assert value("orders_ended_total", state="completed") == 1
    assert value("orders_ended_total", state="cancelled") == 1
    receipt = house.order(first.id)
    assert value("charged_winston_total") == receipt.charged > 0
    assert value("returned_winston_total") == receipt.returned + house.order(waits[0].id).returned
    assert (value("tokens_generated_total"), value("tokens_prompted_total")) == (5, 7)
    assert (value("order_wait_seconds_count"), value("order_wait_seconds_sum")) == (1, 2)
    assert (value("order_run_seconds_count"), value("order_run_seconds_sum")) == (1, 3)
    assert [value("orders", state=one) for one in ("queued", "dispatched", "running")] == [1, 0, 1]
    assert value("queue_tokens") == 20
    assert (value("slots", worker="w1"), value("slots_in_use", worker="w1")) == (3, 1)
    assert value("workers", state="alive") == 1
    for part in ("posted", "held"):
        assert now["llama_herder_ledger_imbalance_winston", ("part", part)] == 0
    assert now["llama_herder_ledger_winston", ("part", "circulating")] == 100_000
    assert now["llama_herder_ledger_overdrawn_accounts",] == 0
    assert house.order(running.id).state == "running"

    house.lapse(house.settings.lease_s + 2)
    house.herd.sweep()
    metrics.refresh()
    now = shown(metrics)
    assert value("lapses_total") == 1
    assert value("orders", state="running") == 0
    names = {name for name, *_ in now}
    assert "llama_herder_slots" not in names, "a worker that is lost has none"


def test_a_look_reads_no_more_than_a_few_pages(house, watch, monkeypatch):
    watch.look()
    monkeypatch.setattr(module, "PAGE", 3)
    monkeypatch.setattr(module, "PAGES", 2)
    for _ in range(8):
        house.submit()
    looks = [watch.look() for _ in range(3)]
    assert [len(look.happened) for look in looks] == [6, 2, 0]
    assert [look.behind for look in looks] == [2, 0, 0]


def test_events_that_become_visible_late_are_counted(house, watch):
    """As on PostgreSQL, where a number is drawn before the transaction is committed."""
    watch.look()
    house.submit()
    watch.look()
    late = watch._cursor.top
    house.submit()
    watch.look()
    watch._cursor.missed[late] = 0.0
    watch._cursor.missed[late + 10_000] = 100.0
    assert [one.seq for one in watch.look().happened] == [late]
    assert watch.look().happened == []


def test_a_number_that_never_comes_is_waited_for_a_while():
    cursor = Cursor(top=5)
    cursor.read(8, now_s=10)
    assert cursor.missed == {6: 10, 7: 10}
    cursor.read(6, now_s=11)
    cursor.give_up(10 + MISSED_S)
    assert (cursor.top, list(cursor.missed)) == (8, [7])
    cursor.give_up(11 + MISSED_S)
    assert cursor.missed == {}
    cursor.read(10**9, now_s=20)
    cursor.read(10**9 + 500, now_s=20)
    assert len(cursor.missed) > MISSED
    cursor.give_up(20)
    assert len(cursor.missed) == MISSED
    assert max(cursor.missed) == 10**9 + 499


def test_every_account_is_read_once_a_minute_at_most_and_less_often_if_it_takes_long(house, clock):
    reads = []

    def totals():
        reads.append(clock.now_s)
        clock.now_s += takes_s
        return house.accounts.totals()

    watch = Monitor(house.database, totals, clock_us=house.clock, clock_s=clock)
    takes_s = 0.01
    for _ in range(10):
        watch.look()
        clock.now_s += 15
    assert len(reads) == 3
    takes_s = 2.0
    clock.now_s += 60
    watch.look()
    clock.now_s += 199
    watch.look()
    assert len(reads) == 4
    clock.now_s += 2
    watch.look()
    assert len(reads) == 5


def test_the_sums_show_money_that_came_from_nowhere(house):
    from sqlalchemy import text

    assert house.accounts.totals().imbalance == 0
    more = (
        "UPDATE ledger_account SET credits_posted = credits_posted + 5 WHERE id = 'client:default'"
    )
    less = more.replace("+ 5", "- 5")
    with house.database.write() as connection:
        connection.execute(text(more))
    totals = house.accounts.totals()
    assert (totals.imbalance, totals.imbalance_of_holds, totals.overdrawn) == (5, 0, 0)
    with house.database.write() as connection:
        connection.execute(text(less))


def test_a_database_that_is_away_leaves_what_the_gateway_knows_itself(house, watch, monkeypatch):
    from herder.errors import HerdUnavailable

    metrics = GatewayMetrics(watch)
    metrics.refresh()
    metrics.answered("/v1/orders", "POST", 202, 0.1)
    assert shown(metrics)["llama_herder_database_up",] == 1

    def away():
        raise HerdUnavailable("The database is busy; try again.")

    monkeypatch.setattr(watch, "look", away)
    metrics.refresh()
    now = shown(metrics)
    assert now["llama_herder_database_up",] == 0
    assert not [key for key in now if key[0] == "llama_herder_orders"], "what is now is not known"
    asked = (("method", "POST"), ("route", "/v1/orders"), ("status", "202"))
    assert now["llama_herder_http_requests_total", *asked] == 1


def test_no_label_names_an_account_an_order_or_a_key(watch):
    allowed = {"model", "state", "worker", "part", "route", "method", "status", "version"}
    metrics = GatewayMetrics(watch)
    ours = [one for one in metrics.registry._collector_to_names if hasattr(one, "_labelnames")]
    assert len(ours) > 20
    assert {label for one in ours for label in one._labelnames} <= allowed
