"""Dispatch: exact order of service, free slots, and an outbox that loses nothing."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import update

from herder.db.tables import orders as orders_table
from herder.domain.pricing import priority
from herder.orders.dispatch import MAX_AT_ONCE, MIN_RUN_LIMIT_S
from tests.support.house import FakePublisher
from workers.wire import MAX_RUN_LIMIT_S, MAX_TOKENS


def ids(jobs):
    return [job.order for job in jobs]


def test_the_best_paid_goes_first_and_equals_go_as_they_came(house):
    fees = [13, 26, 19, 26, 13, 40]
    orders = [house.submit(fee=fee) for fee in fees]
    house.worker(slots=len(fees))
    assert ids(house.dispatch()) == [orders[place].id for place in (5, 1, 3, 2, 0, 4)]


def test_a_better_order_that_comes_later_goes_first_at_the_next_free_slot(house):
    worker = house.worker(slots=1)
    first = house.submit(fee=13)
    job = house.dispatched()
    assert job.order == first.id
    plain = house.submit(fee=13)
    better = house.submit(fee=14)
    assert house.dispatch() == []

    worker.finish(job)
    job = house.dispatched()
    assert job.order == better.id
    worker.finish(job)
    assert house.dispatched().order == plain.id


@settings(
    max_examples=15,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    offers=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 60)), min_size=1, max_size=12),
    slots=st.integers(1, 4),
)
def test_orders_are_served_by_multiplier_then_by_arrival(make_house, offers, slots):
    house = make_house()
    house.fund(10**6)
    worker = house.worker(slots=slots)
    waiting = []
    for tokens, extra in offers:
        order = house.submit(tokens=tokens, fee=3 + tokens + extra)
        waiting.append((-Fraction(order.fee, order.needed), order.seq, order.id))
    waiting.sort()
    while waiting:
        jobs = house.dispatch()
        expected = [waiting.pop(0)[2] for _ in range(min(slots, len(waiting)))]
        assert ids(jobs) == expected
        for job in jobs:
            worker.finish(job)


def test_the_message_says_what_was_asked_and_carries_the_hint(house):
    house.worker()
    order = house.submit("What is it?", 20, fee=96, stop=("END",), run_limit_s=7)
    job = house.dispatched()
    assert (job.prompt, job.tokens, job.stop, job.run_limit_s) == ("What is it?", 20, ("END",), 7)
    assert (job.rank, job.attempt, job.multiplier) == (order.rank, 1, "4")
    assert house.publisher.levels == [priority(96, 24)] == [4]


def test_the_run_limit_is_ten_times_what_the_tokens_take_on_the_slowest(house):
    house.worker(tokens_per_s=10, slots=1)
    house.worker(tokens_per_s=100, slots=1)
    house.submit(tokens=500)
    house.submit(tokens=5)
    limits = {job.tokens: job.run_limit_s for job in house.dispatch()}
    assert limits == {500: 500, 5: MIN_RUN_LIMIT_S}


def test_the_run_limit_is_one_in_the_herder_and_in_its_worker(house):
    """Ten times what a million tokens take on a herd that measured nothing is 115 days."""
    house.fund(10**9)
    worker = house.worker(context=2**21)
    order = house.submit(tokens=MAX_TOKENS)
    job = house.dispatched()
    assert job.run_limit_s == house.order(order.id).run_limit_s == MAX_RUN_LIMIT_S
    worker.claim(job)
    claimed = house.order(order.id)
    assert claimed.overdue_heard_s - claimed.deadline_heard_s == MAX_RUN_LIMIT_S


def test_an_order_of_before_that_bound_is_held_to_it(house):
    worker = house.worker()
    order = house.submit()
    with house.database.write() as connection:
        connection.execute(update(orders_table).values(run_limit_s=10**7))
    job = house.dispatched()
    worker.claim(job)
    claimed = house.order(order.id)
    assert job.run_limit_s == claimed.run_limit_s == MAX_RUN_LIMIT_S
    assert claimed.overdue_heard_s - claimed.deadline_heard_s == MAX_RUN_LIMIT_S


# Slots


def test_as_many_go_out_as_slots_are_free(house):
    one, two = house.worker(slots=2), house.worker(slots=1)
    for _ in range(8):
        house.submit()
    jobs = house.dispatch()
    assert len(jobs) == 3
    assert house.dispatch() == [], "what nobody has claimed yet takes its slot all the same"

    assert [house.sent_to(job) for job in jobs].count(one) == 2

    with_one = next(job for job in jobs if house.sent_to(job) is one)
    with_two = next(job for job in jobs if house.sent_to(job) is two)
    one.claim(with_one)
    assert house.dispatch() == []
    one.finish(with_one)
    two.finish(with_two)
    assert len(house.dispatch()) == 2


def test_an_attempt_that_a_worker_was_not_given_takes_its_slot(house):
    worker = house.worker(slots=2)
    house.submit()
    house.submit()
    jobs = house.dispatch()
    worker.finish(jobs[0])
    worker.finish(jobs[1])
    stray = jobs[0].held.model_copy(update={"order": "unknown"})
    worker.beat(running=[stray])
    house.submit()
    house.submit()
    assert len(house.dispatch()) == 1
    worker.beat(running=[])
    assert len(house.dispatch()) == 1


@pytest.mark.parametrize("state", ["draining", "gone", "lost"])
def test_a_worker_that_leaves_gets_nothing(house, state):
    worker = house.worker(slots=4)
    house.submit()
    if state == "draining":
        worker.beat(draining=True)
    elif state == "gone":
        worker.leave()
    else:
        house.pass_s(house.settings.lease_s + 1)
        house.herd.sweep()
    assert house.worker_state(worker).state == state
    assert house.dispatch() == []


def test_without_workers_orders_wait(house):
    order = house.submit()
    assert house.dispatch() == []
    assert house.order(order.id).state == "queued"


def test_lookahead_sends_some_ahead_of_a_free_slot(make_house):
    house = make_house(lookahead=2)
    house.fund(1000)
    house.worker(slots=1)
    house.worker(slots=1)
    for _ in range(9):
        house.submit()
    assert len(house.dispatch()) == 6


def test_more_than_one_transactions_worth_goes_out_at_once(house):
    house.worker(slots=256)
    orders = [house.submit(fee=13) for _ in range(MAX_AT_ONCE + 5)]
    assert ids(house.dispatch()) == [order.id for order in orders]


def test_two_herders_never_fill_the_same_slot(house):
    house.worker(slots=3)
    other = house.new_dispatcher(house.publisher)
    for _ in range(5):
        house.submit()
    house.dispatcher.dispatch("stub")
    other.dispatch("stub")
    jobs = house.jobs(house.publisher.tokens)
    assert len(jobs) == len(set(ids(jobs))) == 3


def test_the_last_multiplier_is_that_of_the_order_dispatched_last(house):
    assert house.model().last_multiplier == 1
    worker = house.worker(slots=2)
    house.submit(fee=26)
    house.submit(fee=39)
    house.submit(fee=13)
    jobs = house.dispatch()
    assert house.model().last_multiplier == 2
    worker.finish(jobs[0])
    house.dispatched()
    assert house.model().last_multiplier == 1


# The outbox


def test_what_the_broker_does_not_take_waits_for_the_sweep(house):
    worker = house.worker()
    order = house.submit()
    house.publisher.away = ConnectionError("no broker")
    assert house.dispatch() == []
    assert (house.order(order.id).state, house.outbox_rows()) == ("dispatched", 1)

    house.now_us += 6_000_000
    house.dispatcher.sweep()
    assert house.publisher.tokens == []
    house.publisher.away = None
    house.dispatcher.sweep()
    (job,) = house.jobs(house.publisher.tokens)
    assert (job.order, job.attempt) == (order.id, 1)
    worker.finish(job)
    assert house.order(order.id).state == "completed"


def test_a_crash_between_commit_and_publish_loses_nothing(house):
    class Crash(BaseException):
        pass

    house.worker()
    order = house.submit()
    house.publisher.away = Crash()
    with pytest.raises(Crash):
        house.dispatch()

    # Another herder finds the row, once it is old enough to be nobody's.
    publisher = FakePublisher()
    survivor = house.new_dispatcher(publisher)
    survivor.sweep()
    assert publisher.tokens == []
    house.now_us += 6_000_000
    survivor.sweep()
    (job,) = house.jobs(publisher.tokens)
    assert job.order == order.id
    survivor.sweep()
    assert len(publisher.tokens) == 1, "published once by who published it"
    assert house.outbox_rows() == 0


def test_a_message_that_goes_out_twice_does_no_harm(house):
    pair = house.worker(), house.worker()
    order = house.submit()
    job = house.dispatched()
    one = house.sent_to(job)
    (two,) = [worker for worker in pair if worker is not one]
    other = FakePublisher()
    house.now_us += 6_000_000
    house.new_dispatcher(other).sweep()
    (again,) = house.jobs(other.tokens)
    assert again.held == job.held

    one.claim(job)
    assert two.claim(again).control, "the second is told to stop"
    two.finish(again, text="wrong")
    assert house.order(order.id).state == "running"
    one.finish(job, text="right")
    assert house.answer(order.id) == "right"


def test_the_outbox_forgets_what_is_of_no_use(house):
    worker = house.worker()
    house.submit()
    job = house.dispatched()
    assert house.outbox_rows() == 1
    worker.claim(job)
    house.now_us += 6_000_000
    other = FakePublisher()
    survivor = house.new_dispatcher(other)
    survivor.sweep()
    assert (house.outbox_rows(), other.tokens) == (0, [])


def test_an_order_that_cannot_be_put_into_a_message_holds_up_no_other(house, monkeypatch):
    from herder.orders import dispatch

    make = dispatch.job_of
    poisoned = house.submit(fee=99)
    plain = house.submit()

    def job_of(order, request):
        if order.id == poisoned.id:
            raise ValueError("no such message")
        return make(order, request)

    monkeypatch.setattr(dispatch, "job_of", job_of)
    house.worker(slots=2)
    assert ids(house.dispatch()) == [plain.id]
    ended = house.order(poisoned.id)
    assert (ended.state, ended.returned, ended.dispatches) == ("failed", 99, 1)
    assert ended.failure["message"] == "It is larger than what can be sent to a worker."
