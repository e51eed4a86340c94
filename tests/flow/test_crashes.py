"""What dies in the middle: workers, herders, Redis. Every order completes, and is paid once."""

from __future__ import annotations

import signal
import time

import pytest

from tests.support.running import RunningHerd
from tests.support.wait import wait_for

EX_SOFTWARE = 70
SLOW = {"HERD_SLOTS": "1", "HERD_STUB_STEP_MS": "50"}


def completed(orders):
    results = [order.result(timeout=120) for order in orders]
    assert {result.receipt.state for result in results} == {"completed"}
    return results


def paid_once(herd, results):
    balance = herd.client.accounts.balance("default")
    assert balance.available == 1_000_000 - sum(result.receipt.charged for result in results)
    assert balance.held == 0


@pytest.mark.both_brokers
def test_a_worker_that_is_killed_in_mid_order_is_replaced_by_another(herd):
    victim = herd.start_worker(**SLOW)
    order = herd.submit("Tell me more.", 1000)
    herd.running(order, victim)
    survivor = herd.start_worker(HERD_SLOTS="1")

    victim.kill()
    (result,) = completed([order])
    assert result.receipt.worker == survivor.name
    assert result.receipt.attempts == 2
    assert result.receipt.charged == order.fee
    wait_for(lambda: herd.known_state(victim.name) == "lost", "the killed one is missed")
    paid_once(herd, [result])


@pytest.mark.both_brokers
def test_a_worker_that_is_told_to_stop_hands_back_and_another_finishes(herd):
    leaver = herd.start_worker(**SLOW)
    order = herd.submit("Tell me more.", 1000)
    herd.running(order, leaver)
    stayer = herd.start_worker(HERD_SLOTS="1")

    assert leaver.stop() == 0
    (result,) = completed([order])
    assert (result.receipt.worker, result.receipt.attempts) == (stayer.name, 1)
    assert herd.known_state(leaver.name) == "gone"
    paid_once(herd, [result])


def test_a_stop_with_a_long_order_takes_the_grace_time_and_no_more(herd):
    """Docker kills after ten seconds what was to stop: then nothing is handed back."""
    worker = herd.start_worker(HERD_SLOTS="1", HERD_STUB_STEP_MS="50", HERD_GRACE_S="8")
    order = herd.submit("Tell me more.", 2000)
    herd.running(order, worker)
    began_s = time.monotonic()
    assert worker.stop() == 0
    took_s = time.monotonic() - began_s
    assert "draining grace_s=8.0 orders_run_s=5.0" in worker.log
    assert 4 < took_s < 55, "eight seconds, and what a machine at its limit makes of them"
    assert order.status() == "queued", "it was handed back in time"
    assert herd.known_state(worker.name) == "gone"


@pytest.mark.parametrize("signals", [[signal.SIGQUIT], [signal.SIGINT, signal.SIGINT]])
def test_a_worker_that_is_to_stop_at_once_hands_back_and_another_finishes(herd, signals):
    """SIGQUIT, and Ctrl-C twice: Celery would kill a process, and here are threads."""
    leaver = herd.start_worker(HERD_GRACE_S="600", **SLOW)
    order = herd.submit("Tell me more.", 1000)
    herd.running(order, leaver)
    stayer = herd.start_worker(HERD_SLOTS="1")
    for number in signals:
        leaver.process.send_signal(number)
        wait_for(lambda: "worker: " in leaver.log, "it was told")
    leaver.ended()
    assert "Traceback" not in leaver.log
    (result,) = completed([order])
    assert (result.receipt.worker, result.receipt.attempts) == (stayer.name, 1)


def test_a_redis_that_stands_still_does_not_keep_a_worker_from_ending(make_herd, own_redis):
    herd: RunningHerd = make_herd(own_redis)
    herd.start_herder()
    worker = herd.start_worker(HERD_SLOTS="1", HERD_STUB_STEP_MS="50", HERD_GRACE_S="3")
    herd.running(herd.submit("Tell me more.", 2000), worker)
    own_redis.stand()
    began_s = time.monotonic()
    assert worker.stop() == 0
    took_s = time.monotonic() - began_s
    own_redis.go_on()
    print(f"stopped in {took_s:.1f} s")
    assert took_s < 30, "three seconds, and what a machine at its limit makes of them"


@pytest.mark.both_brokers
def test_a_worker_that_is_told_to_stop_finishes_what_it_can(herd):
    worker = herd.start_worker(HERD_SLOTS="1", HERD_STUB_STEP_MS="30", HERD_GRACE_S="30")
    order = herd.submit("Tell me more.", 100)
    herd.running(order, worker)
    assert worker.stop() == 0
    assert order.status() == "completed", "its outcome was confirmed before it went"
    assert herd.known_state(worker.name) == "gone"


@pytest.mark.both_brokers
def test_a_herder_that_is_killed_and_another_that_comes_lose_nothing(make_herd):
    herd = make_herd()
    herder = herd.start_herder()
    herd.start_worker(**SLOW)
    orders = [herd.submit(f"Number {number}", 10) for number in range(6)]
    herd.working(orders)
    herder.kill()
    orders += [herd.submit(f"Number {number}", 10) for number in range(6, 9)]
    herd.start_herder()
    paid_once(herd, completed(orders))


def test_a_herder_that_is_told_to_stop_ends_well(make_herd):
    herd = make_herd()
    herder = herd.start_herder()
    herd.start_worker()
    completed([herd.submit()])
    assert herder.stop() == 0
    order = herd.submit()
    assert order.status() == "queued"
    herd.start_herder()
    completed([order])


@pytest.mark.both_brokers
def test_two_herders_share_the_work(make_herd):
    herd = make_herd()
    for _ in range(2):
        herd.start_herder()
    herd.start_worker(HERD_SLOTS="4", HERD_STUB_STEP_MS="2")
    orders = [herd.submit(f"Number {number}", 5) for number in range(30)]
    results = completed(orders)
    assert {result.receipt.attempts for result in results} == {1}
    paid_once(herd, results)


def test_a_redis_that_forgets_everything_loses_no_order(make_herd, own_redis):
    herd: RunningHerd = make_herd(own_redis)
    herd.start_herder()
    herd.start_worker(**SLOW)
    herd.start_worker(**SLOW)
    orders = [herd.submit(f"Number {number}", 20) for number in range(8)]
    herd.working(orders)

    own_redis.kill()
    orders += [herd.submit(f"Late number {number}", 5) for number in range(3)]
    own_redis.start()

    results = completed(orders)
    paid_once(herd, results)
    assert all(child.alive for child in herd.children)


@pytest.mark.parametrize("restarts", [2])
def test_a_flushed_redis_is_as_good_as_a_restarted_one(herd, restarts):
    herd.start_worker(HERD_SLOTS="2", HERD_STUB_STEP_MS="20")
    results = []
    for _ in range(restarts):
        orders = [herd.submit(f"Number {number}", 30) for number in range(6)]
        herd.working(orders)
        herd.redis.client().flushall()
        results += completed(orders)
    paid_once(herd, results)


@pytest.mark.both_brokers
def test_a_model_that_dies_ends_its_worker_and_kills_no_more_than_three(herd):
    order = herd.submit("[[break]]", 10)
    deaths = 0
    while order.status() != "failed":
        worker = herd.begin_worker(HERD_SLOTS="1")
        wait_for(
            lambda child=worker: not child.alive or order.status() == "failed", "it dies of it"
        )
        deaths += not worker.alive
        assert deaths <= 3
        assert worker.alive or worker.ended() == EX_SOFTWARE, worker.log
    receipt = order.receipt()
    assert (receipt.attempts, receipt.charged, receipt.returned) == (3, 0, order.fee)
