"""What comes back because nobody claimed it or its worker fell silent, and what comes late."""

from __future__ import annotations

from dataclasses import replace

import pytest

from herder.orders.lost import lost_task
from herder.orders.settlement import Settlement
from tests.support.house import FakeWorker
from workers.transport.tasks import LostTask


@pytest.fixture
def worker(house) -> FakeWorker:
    return house.worker(slots=4)


@pytest.fixture
def order(house, worker):
    """needed = 1 + (2 + 10) = 13, offered twice that."""
    return house.submit("two words", 10, fee=26)


@pytest.fixture
def job(house, order):
    return house.dispatched()


def ended(house, order):
    now = house.order(order.id)
    return now.state, now.charged, now.returned


def test_what_nobody_claims_goes_back_to_waiting(house, worker, order, job):
    assert house.lapse(house.settings.claim_s, worker).models == set()
    settled = house.lapse(1, worker)
    assert settled.models == {"stub"}
    now = house.order(order.id)
    # Nothing else was begun since: what was lost is not this order's fault, and not counted.
    assert (now.state, now.tries, now.dispatches) == ("queued", 0, 0)
    assert house.dispatched().attempt == 2


def test_who_watches_tasks_is_told_of_what_lapsed_once_it_is_committed(house, worker, order, job):
    told = []

    def on_lost(lost):
        told.extend((one, house.order(order.id).state) for one in lost)

    house.settlement = Settlement(
        house.database,
        house.books,
        house.settings,
        house.readers,
        clock_us=house.clock,
        on_lost=on_lost,
    )
    assert told == []
    house.lapse(house.settings.claim_s, worker)
    assert told == [], "it may still be claimed"
    house.lapse(1, worker)
    ((unclaimed, state),) = told
    label = f"multiplier=2 tokens=10 order={order.id}"
    assert unclaimed == LostTask("workers.infer", f"{order.id}.1", label, worker.name, "lapsed")
    assert state == "queued"
    told.clear()
    worker.claim(house.dispatched())
    house.lapse(house.settings.lease_s + 1)
    assert [(one.task_id, one.worker) for one, _ in told] == [(f"{order.id}.2", worker.name)]


@pytest.mark.parametrize("wrong", [{"needed": 0}, {"fee": "words"}])
def test_a_label_that_cannot_be_made_keeps_nothing_from_lapsing(house, order, job, wrong):
    told = lost_task(replace(house.order(order.id), **wrong), job.held, None)
    assert told.label == f"multiplier=0 tokens=10 order={order.id}"


def test_a_late_answer_of_what_was_not_sent_out_again_is_an_answer(house, worker, order, job):
    worker.claim(job)
    house.lapse(house.settings.lease_s + 1)
    assert house.order(order.id).state == "queued"
    worker.finish(job, generated=5)
    assert ended(house, order) == ("completed", 16, 10)
    worker.beat()
    assert house.dispatch() == []


def test_a_late_answer_of_what_was_sent_out_again_is_void(house, worker, order, job):
    worker.claim(job)
    house.lapse(house.settings.lease_s + 1)
    house.herd.sweep()
    other = house.worker()
    second = house.dispatched()
    assert worker.finish(job, text="late").void == [(worker.instance, job.held)]
    other.claim(second)
    other.finish(second, generated=5, text="in time")
    assert ended(house, order) == ("completed", 16, 10)
    assert house.answer(order.id) == "in time"


def test_a_prompt_that_kills_its_workers_kills_no_more_than_three(house, order):
    for attempt in range(1, 4):
        house.worker()
        job = house.dispatched()
        victim = house.sent_to(job)
        assert job.attempt == attempt
        victim.claim(job)
        settled = house.lapse(house.settings.lease_s + 1)
        house.herd.sweep()
    assert settled.ended == [order.id]
    assert ended(house, order) == ("failed", 0, 26)
    assert house.order(order.id).failure["code"] == "too_many_attempts"


def test_what_nobody_ever_claims_fails_in_the_end(make_house):
    house = make_house(max_dispatches=2, claim_s=2)
    house.fund(1000)
    worker = house.worker(slots=2)
    order = house.submit()
    for _ in range(2):
        house.dispatched()
        house.submit()
        worker.finish(house.dispatched())  # messages come through, but this order's do not
        house.lapse(3, worker)
    assert ended(house, order) == ("failed", 0, 13)
    assert house.order(order.id).failure["code"] == "too_many_dispatches"


def test_an_outage_of_the_broker_costs_no_order_a_dispatch(make_house):
    house = make_house(max_dispatches=2, claim_s=2)
    house.fund(1000)
    worker = house.worker()
    order = house.submit()
    for attempt in range(1, 10):
        assert house.dispatched().attempt == attempt
        house.lapse(3, worker)
    now = house.order(order.id)
    assert (now.state, now.tries, now.dispatches) == ("queued", 0, 0)
    worker.finish(house.dispatched())
    assert house.order(order.id).state == "completed"


def test_a_lapsed_order_that_ended_meanwhile_stays_ended(house, worker, order, job):
    worker.claim(job)
    worker.finish(job)
    assert house.lapse(house.settings.lease_s + 5).ended == []
    assert ended(house, order) == ("completed", 26, 0)
