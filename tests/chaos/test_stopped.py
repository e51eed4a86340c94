"""Processes that stand still for longer than a lease, and then go on as if nothing had been.

On PostgreSQL only: on SQLite a process that is stopped with the write lock in hand stops all that
write, as the documentation says.
"""

from __future__ import annotations

import signal
import time

import pytest
from support.wait import wait_for

from tests.chaos.servers import Servers
from tests.chaos.world import SETTINGS

LEASE_S = int(SETTINGS["HERD_LEASE_S"])


def complete_meanwhile(world, count=4):
    """Orders go on completing, whoever stands."""
    orders = [world.herd.submit(f"Meanwhile {number}", 3, fee=500) for number in range(count)]
    for order in orders:
        assert order.result(timeout=120).receipt.state == "completed"
        world.clients[0].note(order)


@pytest.mark.parametrize("step", ["_take", "settle"])
def test_others_go_on_while_a_herder_stands_in_a_transaction(
    step, make_world, judged, own_redis, own_postgres
):
    world = make_world(Servers(own_redis, None, own_postgres))
    world.worker("worker1")
    world.worker("worker2")
    halting = world.herder("herder1", [f"{step}:before:STOP"])
    world.client()
    wait_for(halting.reached, "it stops")
    world.herder("herder2")
    complete_meanwhile(world)
    time.sleep(2 * LEASE_S)
    complete_meanwhile(world)
    halting.child.process.send_signal(signal.SIGCONT)
    complete_meanwhile(world)
    time.sleep(1)
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
        worker.child.process.send_signal(signal.SIGSTOP)
        wait_for(lambda name=worker.name: world.herd.known_state(name) == "lost", "it is missed")
        complete_meanwhile(world)
        worker.child.process.send_signal(signal.SIGCONT)
        wait_for(lambda name=worker.name: world.herd.known_state(name) == "alive", "it is back")
    judged(world)
    assert [one.deaths for one in world.kept] == [0, 0, 0, 0]
