"""Servers that may be killed, and herds on them whose processes are; all is judged at the end."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator

import pytest

from tests.chaos.judge import judge
from tests.chaos.servers import WAYS, Servers
from tests.chaos.world import SETTINGS, World
from tests.support.rabbit_server import RabbitServer, require_rabbit
from tests.support.redis_server import RedisServer
from tests.support.running import RunningHerd

LOG_SHOWN = 5000
"""Characters of each process's log that a test which failed shows."""


@pytest.fixture
def own_redis(tmp_path) -> Iterator[RedisServer]:
    """A Redis that a test may kill."""
    server = RedisServer(tmp_path / "redis")
    yield server
    server.kill()


@pytest.fixture
def own_rabbit(tmp_path) -> Iterator[RabbitServer]:
    """A RabbitMQ that a test may kill."""
    require_rabbit()
    server = RabbitServer(tmp_path / "rabbit")
    yield server
    server.close()


@pytest.fixture
def servers(request, own_redis) -> Servers:
    """The servers of one of `WAYS`."""
    postgres, rabbit = WAYS[request.param]
    return Servers(
        own_redis,
        request.getfixturevalue(rabbit) if rabbit else None,
        request.getfixturevalue(postgres) if postgres else None,
    )


@pytest.fixture
def seed(request) -> str:
    """What decides a run, as far as anything does; a test that failed shows how to run it again."""
    chosen = os.environ.get("CHAOS_SEED") or str(random.randrange(10**6))
    again = f"'{request.node.nodeid}'"
    print(f"again: CHAOS_SEED={chosen} .venv/bin/python -m pytest -n 0 {again}")
    return chosen


@pytest.fixture
def make_world(tmp_path, seed, clean_environment) -> Iterator[Callable[..., World]]:
    """Makes a world. What a failure needs to be understood is printed at the end."""
    worlds: list[World] = []

    def make(servers: Servers, **settings: str) -> World:
        given = {**SETTINGS, **settings}
        if servers.rabbit is not None:
            given["HERD_BROKER_URL"] = servers.rabbit.url()
        if servers.postgres is not None:
            database = servers.postgres.new_database()
            given["HERD_DATABASE_URL"] = servers.postgres.url(database)
        herd = RunningHerd(tmp_path / "herd", servers.redis, **given)
        worlds.append(World(herd, seed))
        return worlds[-1]

    yield make
    for world in worlds:
        world.close()
        world.herd.close()
        for name in sorted({child.log_path for child in world.herd.children}):
            print(f"== {name}\n{name.read_text(errors='replace')[-LOG_SHOWN:]}")


@pytest.fixture
def judged() -> Callable[[World], dict[str, int]]:
    """Let a world come to its end, and judge it."""

    def settle(world: World) -> dict[str, int]:
        world.settle_down()
        world.close()
        most = int(SETTINGS["HERD_MAX_ATTEMPTS"])
        return judge(world.herd.database, world.seen, max_attempts=most)

    return settle
