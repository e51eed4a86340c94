"""Leases, and the clock that they run on: silence counts only while somebody listens."""

from __future__ import annotations

import pytest

from herder.herd.heartbeats import HeartbeatProcessor
from tests.support.house import FakeWorker, stops
from workers.wire import Announcement, Beat, Envelope, Marker, PrivateKey


@pytest.fixture
def worker(house) -> FakeWorker:
    return house.worker()


@pytest.fixture
def order(house, worker):
    return house.submit(fee=26)


@pytest.fixture
def job(house, order):
    return house.dispatched()


def test_beats_renew_a_lease_for_ever(house, worker, order, job):
    worker.claim(job)
    assert house.lapse(3 * house.settings.lease_s, worker).models == set()
    assert house.order(order.id).state == "running"


def test_a_beat_that_names_others_renews_no_lease(house, worker, order, job):
    worker.claim(job)
    worker.held.clear()
    house.lapse(house.settings.lease_s + 1, worker)
    assert house.order(order.id).state == "queued"


def test_a_late_beat_takes_an_order_back_to_running(house, worker, order, job):
    worker.claim(job)
    house.lapse(house.settings.lease_s + 1)
    assert house.order(order.id).state == "queued"
    worker.beat()
    now = house.order(order.id)
    assert (now.state, now.instance, now.attempt, now.tries) == ("running", worker.instance, 1, 1)
    worker.finish(job)
    assert house.order(order.id).state == "completed"


def test_a_late_beat_does_not_touch_what_was_sent_out_again(house, worker, order, job):
    worker.claim(job)
    house.lapse(house.settings.lease_s + 1)
    house.herd.sweep()
    other = house.worker()
    second = house.dispatched()
    assert stops(worker.beat(), worker) == [job.held]
    assert house.sent_to(second) is other, "the first is here no longer"
    other.claim(second)
    assert house.order(order.id).instance == other.instance


def test_silence_counts_only_while_somebody_listens(house, worker, order, job):
    worker.claim(job)
    house.now_us += 10 * 3600 * 1_000_000  # ten hours in which no herder ran
    assert house.settlement.lapse().models == set()
    house.herd.sweep()
    assert house.worker_state(worker).state == "alive"
    assert house.order(order.id).state == "running"


def test_a_worker_is_lost_after_a_lease_of_silence_and_not_before(house, worker):
    house.pass_s(house.settings.lease_s)
    house.herd.sweep()
    assert house.worker_state(worker).state == "alive"
    house.pass_s(1)
    house.herd.sweep()
    assert house.worker_state(worker).state == "lost"


def test_a_marker_counts_once(house):
    house.pass_s(5)
    assert house.heard_s() == 5
    house.hear_mark(5)
    house.hear_mark(3)
    house.hear_mark(99)
    assert house.heard_s() == 5
    house.now_us += 1_000_000
    house.hear_mark(6)
    assert house.heard_s() == 6


def test_two_herders_take_one_mark_a_second(house):
    other = HeartbeatProcessor(house.database, house.settings, clock_us=house.clock)
    taken = []
    for _ in range(10):
        house.now_us += 200_000
        taken += [herd.mark() for herd in (house.herd, other)]
    numbers = [number for number in taken if number is not None]
    assert len(numbers) == 2
    assert set(numbers) == {1}, "the first is not read yet, so it is asked for again"


def test_a_clock_set_back_stops_no_marks(house):
    assert house.herd.mark() == 1
    assert house.herd.mark() is None
    house.now_us -= 3600 * 1_000_000
    assert house.herd.mark() == 1


def test_beats_that_wait_behind_markers_are_heard_in_their_order(house, worker, order, job):
    """A backlog of an outage: the beat behind the markers is as fresh as the last of them."""
    worker.claim(job)
    key = PrivateKey.generate()
    backlog = [
        Envelope(key.kid, "herder", Marker(number=number))
        for number in range(1, house.settings.lease_s + 2)
    ]
    worker.number += 1
    announced = Announcement(
        name=worker.name, model=worker.model, slots=worker.slots, context=worker.context
    )
    beat = Beat(number=worker.number, worker=announced, running=(job.held,))
    house.herd.hear([*backlog, worker.envelope(beat)])
    assert house.settlement.lapse().models == set()
    assert house.order(order.id).state == "running"
    house.herd.sweep()
    assert house.worker_state(worker).state == "alive"


def test_herders_whose_clocks_differ_mark_no_more_than_a_second_each_second(house):
    house.pass_s(1)
    before = house.heard_s()
    for _ in range(5):  # another herder, behind, finds the last mark in its future and marks too
        house.hear_mark(before + 1)
        assert house.heard_s() == before
    house.now_us += 1_000_000
    house.hear_mark(before + 1)
    assert house.heard_s() == before + 1
    house.now_us -= 3_600_000_000  # the clock that times the marks was set back
    house.hear_mark(before + 2)
    assert house.heard_s() == before + 2
