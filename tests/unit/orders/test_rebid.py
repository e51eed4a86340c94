"""A new bid for an order that is queued: its hold and its place, in one transaction."""

from __future__ import annotations

import pytest

from herder.errors import (
    InsufficientBalance,
    InvalidFee,
    OrderNotFound,
    OrderNotWaiting,
    RebidTooLow,
)
from herder.market.quotes import Quotes


@pytest.fixture
def house(make_house):
    house = make_house()
    house.fund(1000)
    yield house
    house.check()


def test_a_new_bid_moves_an_order_ahead_and_holds_the_whole_new_fee(house):
    first, second = house.submit(fee=26), house.submit(fee=13)
    now = house.intake.rebid(second.id, 39)
    assert (now.fee, now.multiplier, now.holds, now.automatic) == (39, 3, 2, False)
    assert house.held() == 26 + 39
    worker = house.worker(slots=2)
    jobs = house.dispatch()
    assert [job.order for job in jobs] == [second.id, first.id]
    assert [job.rank for job in jobs] == sorted((job.rank for job in jobs), reverse=True)
    worker.finish(jobs[0], generated=5)
    ended = house.order(second.id)
    assert (ended.charged, ended.returned) == (24, 15)  # ceil(39 * 8 / 13)
    assert house.events(second.id)[:2] == ["submitted", "rebid"]


def test_all_that_is_left_may_be_bid(house):
    order = house.submit(fee=26)
    house.intake.rebid(order.id, 1000)
    assert (house.held(), house.available()) == (1000, 0)
    house.cancellation.cancel(order.id)
    assert house.available() == 1000


def test_a_bid_beyond_the_balance_leaves_the_old_one(house):
    order = house.submit(fee=26)
    with pytest.raises(InsufficientBalance):
        house.intake.rebid(order.id, 1001)
    now = house.order(order.id)
    assert (now.fee, now.holds, house.held()) == (26, 1, 26)


def test_bids_only_rise_and_the_same_one_again_is_one(house):
    order = house.submit(fee=26)
    for low in (25, 26):
        with pytest.raises(RebidTooLow, match="26"):
            house.intake.rebid(order.id, low)
    once = house.intake.rebid(order.id, 30)
    assert house.intake.rebid(order.id, 30) == once
    assert house.held() == 30
    for wrong in (0, -1, 1.5, True, "40", 2**53):
        with pytest.raises(InvalidFee):
            house.intake.rebid(order.id, wrong)


def test_a_bid_for_what_does_not_wait_is_refused(house):
    order = house.submit(fee=26)
    worker = house.worker()
    job = house.dispatched()
    with pytest.raises(OrderNotWaiting, match="dispatched"):
        house.intake.rebid(order.id, 30)
    worker.finish(job)
    with pytest.raises(OrderNotWaiting, match="completed"):
        house.intake.rebid(order.id, 30)
    for unknown, account in ((order.id, "thief"), ("no-such-order", None)):
        with pytest.raises(OrderNotFound):
            house.intake.rebid(unknown, 30, account=account)


def test_a_late_answer_of_a_lapsed_order_is_charged_by_the_new_bid(house):
    order = house.submit(fee=26)
    worker = house.worker()
    job = house.dispatched()
    worker.claim(job)
    house.lapse(house.settings.lease_s + 1)
    house.intake.rebid(order.id, 52)
    worker.finish(job, generated=10)
    assert house.order(order.id).charged == 52


def test_an_order_that_waits_knows_its_place(house):
    quotes = Quotes(house.database, house.key, clock_us=house.clock)
    first, second, better = (house.submit(fee=fee) for fee in (20, 20, 60))

    def places():
        return [quotes.place(house.order(one.id)) for one in (first, second, better)]

    assert [found.place for found in places()] == [2, 3, 1]
    assert places()[1].place_exact
    assert places()[1].waiting_for_workers
    house.worker()
    house.dispatched()
    assert [found and found.place for found in places()] == [1, 2, None]
