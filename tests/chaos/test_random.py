"""Death at any moment, of anything: a seed says of what, and the machine's load says when."""

from __future__ import annotations

import random
import signal
import time

import pytest

from tests.chaos.servers import WAYS

ROUNDS = 12


@pytest.mark.parametrize("servers", WAYS, indirect=True)
def test_nothing_is_lost_whatever_dies_and_whenever(servers, make_world, judged, seed):
    chance = random.Random(seed)
    world = make_world(servers)
    # Whoever comes first waits for the rest.
    servers.redis.kill()
    if servers.rabbit is not None:
        servers.rabbit.kill()
    for one in chance.sample(["herder1", "herder2", "worker1", "worker2"], 4):
        (world.herder if one.startswith("herder") else world.worker)(one)
    for _ in range(3):
        world.client()
    time.sleep(2)
    servers.redis.start()
    if servers.rabbit is not None:
        servers.rabbit.start()

    blows = ["process"] * ROUNDS + ["tasks", "tasks", "redis"]
    if servers.postgres is not None:
        # On SQLite a process that stands with the write lock in hand stops all others.
        blows += ["postgres", "stop", "stop", "stop"]
    chance.shuffle(blows)
    for blow in blows:
        time.sleep(chance.uniform(0.2, 1.2))
        if blow == "tasks":
            servers.forget_tasks()
        elif blow == "redis":
            servers.restart_redis()
        elif blow == "postgres":
            servers.postgres.crash()
            time.sleep(1)
            servers.postgres.start()
        elif blow == "stop":
            chance.choice(world.kept).stand(chance.uniform(0.5, 5))
        else:
            chance.choice(world.kept).send(chance.choice([signal.SIGKILL, signal.SIGTERM]))
    ends = judged(world)
    assert ends["completed"] > 10
    assert sum(one.deaths for one in world.kept) > 0
