"""Cancel, re-bid, deadlines and drain, with a herder and workers as people start them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from herder.errors import OrderCancelled, OrderExpired

LONG = 400
"""Tokens that no worker here generates before it is told to stop."""


@pytest.mark.both_brokers
def test_a_running_order_stops_and_is_charged_for_what_it_said(herd):
    herd.start_worker(HERD_STUB_STEP_MS="30")
    order = herd.submit("Tell me everything.", LONG, fee=2 * (4 + LONG))
    pieces = order.stream()
    said = next(pieces)
    herd.running(order)  # its text may be here before its claim is read
    order.cancel()
    with pytest.raises(OrderCancelled) as caught:
        order.result(timeout=60)
    result = caught.value.result
    assert result.text.startswith(said)
    assert result.finish_reason == "cancelled"
    assert 0 < result.usage.generated < LONG
    receipt = result.receipt
    assert receipt.charged == 2 * (4 + result.usage.generated)
    assert receipt.charged + receipt.returned == order.fee
    balance = herd.client.accounts.balance("default")
    assert (balance.available, balance.held) == (1_000_000 - receipt.charged, 0)


def test_what_waits_is_cancelled_at_once_and_whoever_waits_for_it_hears(herd):
    order = herd.submit(tokens=LONG)
    assert order.cancel().state == "cancelled"
    with pytest.raises(OrderCancelled, match="returned"):
        order.result(timeout=60)
    herd.start_worker()
    other = herd.submit()
    assert other.result(timeout=60).receipt.state == "completed"
    assert order.receipt().attempts == 0


def test_a_new_bid_overtakes(herd):
    first = herd.submit(fee=100, tokens=20)
    second = herd.submit(fee=50, tokens=20)
    second.rebid(200)
    herd.start_worker(HERD_SLOTS="1", HERD_STUB_STEP_MS="5")
    done = [order.result(timeout=60).receipt for order in (first, second)]
    assert done[1].waited_ms < done[0].waited_ms
    assert done[1].fee == 200


def test_what_does_not_begin_in_time_expires(herd):
    order = herd.submit(start_by=datetime.now(UTC) + timedelta(seconds=1))
    with pytest.raises(OrderExpired, match="returned"):
        order.result(timeout=60)
    assert herd.client.accounts.balance("default").available == 1_000_000


def test_a_run_limit_stops_and_charges_what_was_delivered(herd):
    herd.start_worker(HERD_STUB_STEP_MS="50")
    order = herd.submit("Tell me everything.", LONG, run_limit_s=1)
    with pytest.raises(OrderExpired) as caught:
        order.result(timeout=60)
    result = caught.value.result
    assert result.finish_reason == "deadline"
    assert 0 < result.usage.generated < LONG
    assert 0 < result.receipt.charged < order.fee


def test_a_drained_worker_ends_and_another_goes_on(herd):
    worker = herd.start_worker(HERD_STUB_STEP_MS="30", HERD_GRACE_S="0")
    order = herd.submit("Tell me everything.", 60)
    herd.running(order, worker)
    assert len(herd.client.workers.drain(worker.name)) == 1
    assert worker.ended() == 0
    herd.start_worker()
    assert order.result(timeout=60).receipt.state == "completed"
