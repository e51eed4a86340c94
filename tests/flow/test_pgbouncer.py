"""A herd of real processes whose PostgreSQL is reached through PgBouncer, in its modes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.support.bouncer import Bouncer, require_bouncer
from tests.support.running import RunningHerd
from tests.support.wait import wait_for


@pytest.fixture
def bounced(own_postgres) -> Iterator[Callable[[str], tuple[Bouncer, str]]]:
    """Gives a PgBouncer of a mode, and the name of a new database behind it."""
    require_bouncer()
    with ExitStack() as ends:

        def make(mode: str) -> tuple[Bouncer, str]:
            # Fewer than a herder and its clients want at once, so that all of them share.
            bouncer = Bouncer(own_postgres.port, mode, pool=40 if mode == "session" else 3)
            ends.callback(bouncer.close)
            return bouncer, own_postgres.new_database()

        yield make


def serves(herd: RunningHerd, clients: int = 4, each: int = 15) -> None:
    """Many clients buy at once: all is done, charged once, and nothing failed on the way."""
    orders, failed, lock = [], [], threading.Lock()

    def client(number: int) -> None:
        try:
            for n in range(each):
                order = herd.submit(f"{number} asks {n}", 5 + n)
                with lock:
                    orders.append(order)
        except Exception as error:  # noqa: BLE001 (shown by the assertion below)
            failed.append(error)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    results = [order.result(timeout=120) for order in orders]
    assert {result.receipt.state for result in results} == {"completed"}
    balance = herd.client.accounts.balance("default")
    assert balance.available == 1_000_000 - sum(result.receipt.charged for result in results)
    assert balance.held == 0


@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_a_herd_works_behind_pgbouncer(bounced, make_herd, mode):
    bouncer, name = bounced(mode)
    herd = make_herd(HERD_DATABASE_URL=bouncer.url(name))
    herder = herd.start_herder()
    herd.start_worker(HERD_SLOTS="4")
    serves(herd)
    assert "Traceback" not in herder.log
    assert "step_failed" not in herder.log
    assert "out_of_reach" not in herder.log


def test_a_pgbouncer_that_drops_its_connections_loses_no_order(bounced, make_herd):
    bouncer, name = bounced("transaction")
    herd = make_herd(HERD_DATABASE_URL=bouncer.url(name))
    herder = herd.start_herder()
    herd.start_worker(HERD_SLOTS="2", HERD_STUB_STEP_MS="20")
    orders = [herd.submit(f"Number {n}", 20) for n in range(8)]
    herd.working(orders)
    bouncer.admin(f"KILL {name}")  # its clients' connections and its own
    wait_for(lambda: "out_of_reach" in herder.log, "the herder misses its database")
    bouncer.admin(f"RESUME {name}")
    assert {order.result(timeout=120).receipt.state for order in orders} == {"completed"}
    assert "Traceback" not in herder.log
    assert "prepared" not in herder.log
