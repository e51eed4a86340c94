"""Processes that stand still for longer than a lease, and then go on as if nothing had been."""

from __future__ import annotations

import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import func, select

from herder.clock import clock_us
from herder.db.tables import event
from tests.chaos.servers import Servers
from tests.chaos.world import SETTINGS
from tests.support.wait import wait_for

pytestmark = pytest.mark.chaos

LEASE_S = int(SETTINGS["HERD_LEASE_S"])


def complete_meanwhile(world, count=4):
    """Orders go on completing, whoever stands."""
    orders = [world.herd.submit(f"Meanwhile {number}", 3, fee=500) for number in range(count)]
    for order in orders:
        world.note(order.receipt(), clock_us())
    for order in orders:
        assert order.result(timeout=120).receipt.state == "completed"


@pytest.mark.parametrize("step", ["Dispatcher._take", "Settlement.settle"])
def test_others_go_on_while_a_herder_stands_in_a_transaction(
    step, make_world, judged, own_redis, own_postgres
):
    world = make_world(Servers(own_redis, None, own_postgres))
    world.worker("worker1")
    world.worker("worker2")
    points = world.points(f"{step}/before/STOP")
    halting = world.herder("herder1", points)
    world.client()
    wait_for(lambda: not points.left, "it stops")
    world.herder("herder2")
    complete_meanwhile(world)
    time.sleep(2 * LEASE_S)
    complete_meanwhile(world)
    assert is_stopped(halting.pid), "it stood all the while"
    halting.send(signal.SIGCONT)
    complete_meanwhile(world)
    judged(world)
    assert halting.deaths == 0


def test_what_a_worker_did_before_it_stood_is_done_by_another(
    make_world, judged, own_redis, own_postgres
):
    world = make_world(Servers(own_redis, None, own_postgres))
    for name in ("herder1", "herder2"):
        world.herder(name)
    workers = [world.worker("worker1"), world.worker("worker2")]
    world.client()
    for worker in workers:
        wait_for(lambda name=worker.name: world.herd.known_state(name) == "alive", "it is there")
    for worker in workers:
        worker.send(signal.SIGSTOP)
        wait_for(lambda name=worker.name: world.herd.known_state(name) == "lost", "it is missed")
        complete_meanwhile(world)
        worker.send(signal.SIGCONT)
        wait_for(lambda name=worker.name: world.herd.known_state(name) == "alive", "it is back")
    judged(world)
    assert [one.deaths for one in world.kept] == [0, 0, 0, 0]


@pytest.mark.parametrize("how", [signal.SIGCONT, signal.SIGKILL])
def test_on_sqlite_nobody_writes_while_one_stands_with_the_write_lock(
    how, make_world, judged, own_redis
):
    """As herder/README.md says; until it goes on, or ends. Whoever reads is answered."""
    world = make_world(Servers(own_redis, None, None))
    points = world.points("Dispatcher._take/before/STOP")
    herders = {one.pid: one for one in (world.herder(f"herder{n}", points) for n in (1, 2))}
    world.worker("worker1")
    world.worker("worker2")
    world.client()
    wait_for(lambda: any(map(is_stopped, herders)), "one stands")
    (stands,) = (one for pid, one in herders.items() if is_stopped(pid))
    before = count_events(world)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(complete_meanwhile, world, 1)
        time.sleep(2 * LEASE_S)
        assert count_events(world) == before
        assert not waiting.done()
        stands.send(how)
        waiting.result(timeout=120)
    judged(world)
    assert sum(one.deaths for one in world.kept) == int(how is signal.SIGKILL)


def is_stopped(pid):
    """Whether a process stands, as Linux has it."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def count_events(world):
    """How much has happened, as a reader sees it."""
    with world.herd.database.read() as connection:
        return connection.execute(select(func.count()).select_from(event)).scalar_one()
