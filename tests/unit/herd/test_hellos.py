"""Hellos: whom no message reaches, and who claims nothing, is named and sent no orders."""

from __future__ import annotations

from itertools import pairwise

import pytest
import structlog

from herder.domain.doubt import MAX_DOUBT_S, MAX_WAIT_S, doubt_s, next_hello_s
from herder.herd.hellos import NAMED_AFTER, Greeter
from herder.herd.roster import serving, why_unreached
from tests.support.house import MODEL
from workers.wire import CLOCK_LEEWAY_S, HELLO_TASK, Hello, HelloAnswer, unseal, worker_queue


@pytest.fixture
def greeter(house):
    return Greeter(house.database, house.key, house.publisher, clock_us=house.clock)


@pytest.fixture
def deaf(house):
    """A worker that beats, and to which nothing comes by the broker."""
    one = house.worker(slots=4, announced=False, reachable=False)
    one.beat()
    return one


def said(house):
    """The hellos that were sent: (queue, number)."""
    keys = {house.key.kid: house.key.public}
    found = []
    for task in house.publisher.hellos:
        body = unseal(task.token, keys, audience=task.queue).body
        assert isinstance(body, Hello)
        assert task.task == HELLO_TASK
        found.append((task.queue, body.number))
    return found


def test_a_worker_is_sent_orders_once_a_hello_came_back(house, greeter, deaf):
    house.submit()
    assert house.dispatch() == []
    assert house.worker_state(deaf).shown_state == "unreached"
    assert not serving(house.database, MODEL, house.settings.lease_s)
    greeter.greet(10)
    assert said(house) == [(worker_queue(deaf.instance), 1)]
    assert deaf.says(HelloAnswer(number=1)).models == {MODEL}
    assert serving(house.database, MODEL, house.settings.lease_s)
    assert len(house.dispatch()) == 1


def test_a_worker_is_sent_one_order_until_it_claimed_one(house, deaf):
    for _ in range(6):
        house.submit()
    deaf.answer_hello()
    job = house.dispatched()
    assert house.dispatch() == []
    assert deaf.claim(job).models == {MODEL}, "its other slots count now"
    assert len(house.dispatch()) == 3


def test_an_outcome_that_overtakes_its_claim_proves_a_worker_too(house, deaf):
    for _ in range(6):
        house.submit()
    deaf.answer_hello()
    deaf.finish(house.dispatched())
    assert len(house.dispatch()) == 4


def test_a_hello_that_is_not_answered_comes_again_each_time_later(house, greeter, deaf):
    sent = []
    for second in range(40):
        house.pass_s(1, deaf)
        greeter.greet(10)
        if len(house.publisher.hellos) > len(sent):
            sent.append(second)
    pauses = [later - sooner for sooner, later in pairwise(sent)]
    assert pauses == sorted(pauses)
    assert len(set(said(house))) == 1
    assert 4 <= len(sent) <= 6
    assert next_hello_s(50) == MAX_WAIT_S


def test_two_herders_say_hello_once(house, greeter, deaf, monkeypatch):
    other = Greeter(house.database, house.key, house.publisher, clock_us=house.clock)
    greet = house.database.transact

    def meanwhile(step):
        monkeypatch.undo()
        other.greet(10)
        return greet(step)

    monkeypatch.setattr(house.database, "transact", meanwhile)
    greeter.greet(10)
    assert len(house.publisher.hellos) == 1


def test_a_broker_that_is_away_is_no_fault_of_the_workers(house, greeter, deaf):
    house.publisher.away = ConnectionError("no broker")
    for _ in range(10):
        house.pass_s(1, deaf)
        greeter.greet(10)
    assert house.worker_state(deaf).hellos_sent == 0
    house.publisher.away = None
    house.pass_s(1, deaf)
    greeter.greet(10)
    assert len(house.publisher.hellos) == 1


def test_whom_earlier_hellos_did_not_reach_is_not_named_for_a_broker_that_is_away(
    house, greeter, deaf
):
    while house.worker_state(deaf).hellos_sent < NAMED_AFTER:
        house.pass_s(1, deaf)
        greeter.greet(10)
    house.publisher.away = ConnectionError("no broker")
    with structlog.testing.capture_logs() as logs:
        for _ in range(10):
            house.pass_s(1, deaf)
            greeter.greet(10)
    told = {one["event"] for one in logs}
    assert "hellos_not_sent" in told
    assert "worker_unreached" not in told
    house.publisher.away = None
    with structlog.testing.capture_logs() as logs:
        house.pass_s(1, deaf)
        greeter.greet(10)
    assert [one["worker"] for one in logs if one["event"] == "worker_unreached"] == [deaf.name]


def test_who_leaves_an_order_unclaimed_gets_no_other_until_a_hello_came_back(house, greeter):
    worker = house.worker(slots=3)
    orders = [house.submit() for _ in range(5)]
    assert len(house.dispatch()) == 3
    worker.reachable = False
    house.lapse(house.settings.claim_s + 1, worker)
    known = house.worker_state(worker)
    assert (known.reached, known.unclaimed, known.free) == (False, 1, 0)
    assert "did not claim an order" in (why_unreached(known) or "")
    assert house.dispatch() == []
    assert worker.answer_hello(known.hello - 1).models == set(), "that was an old one"
    greeter.greet(10)
    assert said(house) == [(worker_queue(worker.instance), known.hello)]
    worker.answer_hello()
    assert [job.order for job in house.dispatch()] == [orders[0].id], "one, until it claims it"


def test_one_that_answers_hellos_and_claims_nothing_waits_ever_longer(house, greeter):
    worker = house.worker(slots=3)
    house.submit()
    worker.reachable = False
    tried = []
    for second in range(100):
        greeter.greet(10)
        if house.publisher.hellos:
            house.publisher.hellos.clear()
            worker.answer_hello()
        if house.dispatch():
            tried.append(second)
        house.lapse(1, worker)
    pauses = [later - sooner for sooner, later in pairwise(tried)]
    assert pauses == sorted(pauses)
    assert 4 <= len(tried) <= 6
    assert house.worker_state(worker).unclaimed >= 4
    assert doubt_s(50) == MAX_DOUBT_S


def test_another_worker_gets_what_one_left_unclaimed(house):
    idle = house.worker(slots=1)
    order = house.submit()
    assert house.sent_to(house.dispatched()) is idle
    idle.reachable = False
    good = house.worker(slots=1)
    house.lapse(house.settings.claim_s + 1, idle, good)
    job = house.dispatched()
    assert house.sent_to(job) is good
    good.finish(job)
    assert house.order(order.id).state == "completed"
    assert house.order(order.id).tries == 1


def test_what_waits_for_a_slot_of_a_full_worker_is_not_lapsed_nor_the_worker_doubted(make_house):
    house = make_house(lookahead=1, claim_s=2)
    house.fund(1000)
    worker = house.worker(slots=1)
    house.submit()
    second = house.submit()
    first_job, second_job = house.dispatch()
    worker.claim(first_job)
    house.lapse(9, worker)
    assert house.order(second.id).state == "dispatched"
    assert house.worker_state(worker).reached
    worker.finish(first_job)
    worker.finish(second_job)
    assert house.order(second.id).state == "completed"


def test_what_waited_for_a_slot_until_its_message_expired_is_sent_again(make_house):
    house = make_house(lookahead=1, claim_s=2, max_dispatches=2)
    house.fund(1000)
    worker = house.worker(slots=1)
    house.submit()
    second = house.submit()
    first_job, _ = house.dispatch()
    worker.claim(first_job)
    for attempt in (2, 3, 4):
        house.lapse(house.settings.claim_s + CLOCK_LEEWAY_S + 1, worker)
        assert house.order(second.id).state == "queued"
        assert house.dispatched().attempt == attempt
        assert house.order(second.id).dispatches == 1
    assert house.worker_state(worker).reached
    assert house.worker_state(worker).unclaimed == 0


@pytest.mark.parametrize("leaves", ["drains", "says farewell"])
def test_what_a_worker_that_leaves_did_not_claim_is_sent_again_within_seconds(house, leaves):
    worker = house.worker(slots=2)
    order = house.submit()
    house.dispatched()
    if leaves == "drains":
        worker.beat(draining=True)
    else:
        worker.leave()
    other = house.worker()
    house.lapse(2, other)
    assert house.sent_to(house.dispatched()) is other
    assert house.order(order.id).attempt == 2
    assert house.worker_state(worker).unclaimed == 0


def test_a_worker_that_comes_back_is_said_hello_to_anew(house, greeter):
    worker = house.worker(slots=2)
    house.pass_s(house.settings.lease_s + 1)
    house.herd.sweep()
    assert house.worker_state(worker).state == "lost"
    worker.beat()
    assert house.worker_state(worker).shown_state == "unreached"
    greeter.greet(10)
    worker.answer_hello()
    assert house.worker_state(worker).free == 2
