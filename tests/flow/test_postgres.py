"""A herd of real processes whose database is PostgreSQL: two herders, and a server that crashes."""

from __future__ import annotations

import signal
import threading

import pytest

from herder.errors import HerdUnavailable
from tests.support.running import RunningHerd
from tests.support.wait import wait_for


@pytest.fixture
def herd(own_postgres, make_herd) -> RunningHerd:
    """A herd without a process yet; its leases last four seconds."""
    return make_herd(HERD_DATABASE_URL=own_postgres.url(own_postgres.new_database()))


def completed(orders):
    results = [order.result(timeout=120) for order in orders]
    assert {result.receipt.state for result in results} == {"completed"}
    return results


def paid_once(herd, results):
    balance = herd.client.accounts.balance("default")
    assert balance.available == 1_000_000 - sum(result.receipt.charged for result in results)
    assert balance.held == 0


def test_two_herders_serve_many_clients_at_once(herd):
    herders = [herd.start_herder(), herd.start_herder()]
    for _ in range(2):
        herd.start_worker(HERD_SLOTS="4")
    orders, lock = [], threading.Lock()

    def client(number: int) -> None:
        for n in range(15):
            order = herd.submit(f"{number} asks {n}", 5 + n)
            with lock:
                orders.append(order)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(orders) == 60
    paid_once(herd, completed(orders))
    for herder in herders:
        assert "Traceback" not in herder.log
        assert "out_of_reach" not in herder.log


def test_a_herder_that_is_stopped_at_any_moment_stops_no_other(herd):
    victim = herd.start_herder()
    herd.start_herder()
    herd.start_worker(HERD_SLOTS="4")
    orders = [herd.submit(f"before {n}", 5) for n in range(20)]
    victim.process.send_signal(signal.SIGSTOP)
    try:
        orders += [herd.submit(f"after {n}", 5) for n in range(20)]
        paid_once(herd, completed(orders))
    finally:
        victim.process.send_signal(signal.SIGCONT)
    assert victim.stop() == 0, "it goes on, and ends as it should"
    paid_once(herd, completed(orders))


def test_a_herder_that_starts_before_its_database_waits_for_it(herd, own_postgres):
    own_postgres.stop()
    impatient, herder = herd.begin_herder(), herd.begin_herder()
    for one in (impatient, herder):
        one.says("database_awaited")
    impatient.stop()
    own_postgres.start()
    herder.says("database_found")
    herder.says("herder_ready")
    assert herder.log.count("database_awaited") == 1
    assert "Traceback" not in herder.log + impatient.log
    herd.start_worker()
    paid_once(herd, completed([herd.submit()]))


def test_a_server_that_crashes_and_comes_back_loses_no_order(herd, own_postgres):
    herder = herd.start_herder()
    herd.start_worker(HERD_SLOTS="2", HERD_STUB_STEP_MS="20")
    orders = [herd.submit(f"Number {n}", 20) for n in range(8)]
    herd.working(orders)
    own_postgres.crash()
    with pytest.raises(HerdUnavailable):
        herd.submit("while it is away", 5)
    wait_for(lambda: "does not answer" in herder.log, "the herder misses its database")
    own_postgres.start()
    orders.append(herd.submit("when it is back", 5))
    results = completed(orders)
    assert herder.alive
    paid_once(herd, results)
