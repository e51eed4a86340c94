"""Real processes for the flow tests: Redis, herder, workers; each test's books are checked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.redis_server import RedisServer
from support.running import RunningHerd


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory) -> Iterator[RedisServer]:
    """One Redis for all tests of a pytest process; each herd begins with nothing in it."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.kill()


@pytest.fixture
def make_herd(tmp_path, redis_server, request) -> Iterator[Callable[..., RunningHerd]]:
    """Makes herds, one at a time on the same Redis; at the end their books are checked."""
    herds: list[RunningHerd] = []

    def make(server: RedisServer | None = None, **settings: str) -> RunningHerd:
        if server is None:
            redis_server.client().flushall()
        herd = RunningHerd(tmp_path / f"herd{len(herds)}", server or redis_server, **settings)
        herds.append(herd)
        return herd

    yield make
    for herd in herds:
        herd.close()
    for herd in herds:
        print(herd.logs)
        herd.check()


@pytest.fixture
def herd(make_herd) -> Any:
    """A herder and no worker yet."""
    made = make_herd()
    made.start_herder()
    return made


@pytest.fixture
def own_redis(tmp_path) -> Iterator[RedisServer]:
    """A Redis that a test may kill."""
    server = RedisServer(tmp_path / "redis")
    yield server
    server.kill()
