"""Death at any moment, of anything: a seed says of what, and the machine's load says when."""

from __future__ import annotations

import random
import signal
import time

import pytest

from tests.chaos.servers import WAYS

pytestmark = pytest.mark.chaos

ROUNDS = 12


@pytest.mark.parametrize("servers", WAYS, indirect=True)
def test_nothing_is_lost_whatever_dies_and_whenever(servers, make_world, judged, seed):
    chance = random.Random(seed)
    world = make_world(servers)
    start_in_any_order(world, servers, chance)
    for _ in range(3):
        world.client()

    kills = [signal.SIGKILL, signal.SIGTERM] * (ROUNDS // 2)
    blows = [*kills, "tasks", "tasks", "redis"]
    if servers.postgres is not None:
        # On SQLite a process that stands with the write lock in hand stops all others.
        blows += ["crash", "restart", "stop", "stop", "stop"]
    chance.shuffle(blows)
    for blow in blows:
        time.sleep(chance.uniform(0.2, 1.2))
        print(time.strftime("%H:%M:%S"), blow)
        match blow:
            case "tasks":
                servers.forget_tasks()
            case "redis":
                servers.restart_redis()
            case "crash" | "restart":
                servers.postgres.stop(signal.SIGQUIT if blow == "crash" else signal.SIGINT)
                time.sleep(1)
                servers.postgres.start()
            case "stop":
                # A lease is three seconds.
                chance.choice(world.kept).stand(chance.uniform(0.5, 6))
            case _:
                chance.choice(world.kept).send(blow)
        world.check()
    ends = judged(world)
    assert ends["completed"] > 10
    assert sum(one.deaths for one in world.kept) > 0


def start_in_any_order(world, servers, chance):
    """Whoever comes first waits for the rest; only the database has to be there."""
    starts = {
        "herder1": lambda: world.herder("herder1"),
        "herder2": lambda: world.herder("herder2"),
        "worker1": lambda: world.worker("worker1"),
        "worker2": lambda: world.worker("worker2"),
        "redis": servers.redis.start,
    }
    servers.redis.kill()
    if servers.rabbit is not None:
        servers.rabbit.kill()
        starts["rabbit"] = servers.rabbit.start
    for name in chance.sample(sorted(starts), len(starts)):
        print(time.strftime("%H:%M:%S"), "start", name)
        starts[name]()
        time.sleep(chance.uniform(0, 1))
