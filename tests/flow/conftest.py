"""Real processes for the flow tests: brokers, herder, workers; each test's books are checked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from tests.support.rabbit_server import RabbitServer, require_rabbit
from tests.support.redis_server import RedisServer
from tests.support.running import RunningHerd

SOON_CLOSED = httpx.Limits(max_connections=100, max_keepalive_connections=20, keepalive_expiry=2.0)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "both_brokers: runs with Redis and with RabbitMQ as broker")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.definition.get_closest_marker("both_brokers"):
        metafunc.parametrize("broker", ["redis", "rabbitmq"], indirect=True)


@pytest.fixture(autouse=True)
def patient_httpx(monkeypatch) -> None:
    """What calls a gateway waits for a minute: by itself httpx gives up after five seconds.

    And it uses no connection again that was idle for two seconds: a gateway closes one after five,
    maybe as it is used, and a call that may have been taken is not sent once more.
    """
    for call in (httpx.request, httpx.get, httpx.post, httpx.Client.__init__):
        monkeypatch.setitem(call.__kwdefaults__, "timeout", httpx.Timeout(60))
    monkeypatch.setitem(httpx.Client.__init__.__kwdefaults__, "limits", SOON_CLOSED)


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory) -> Iterator[RedisServer]:
    """One Redis for all tests of a pytest process; each herd begins with nothing in it."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.kill()


@pytest.fixture(scope="session")
def rabbit_server(tmp_path_factory) -> Iterator[RabbitServer]:
    """One RabbitMQ for all tests of a pytest process."""
    require_rabbit()
    server = RabbitServer(tmp_path_factory.mktemp("rabbit"))
    yield server
    server.close()


@pytest.fixture
def broker(request) -> RabbitServer | None:
    """What carries the herds' tasks: a RabbitMQ with nothing in it, or None for the Redis."""
    if getattr(request, "param", "redis") == "redis":
        return None
    server: RabbitServer = request.getfixturevalue("rabbit_server")
    server.clear()
    return server


@pytest.fixture
def make_herd(tmp_path, redis_server, broker) -> Iterator[Callable[..., RunningHerd]]:
    """Makes herds, one at a time on the same servers; at the end their books are checked."""
    herds: list[RunningHerd] = []

    def make(server: RedisServer | None = None, **settings: str) -> RunningHerd:
        if server is None:
            redis_server.client().flushall()
        if broker is not None:
            settings = {"HERD_BROKER_URL": broker.url(), **settings}
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


@pytest.fixture(scope="module")
def shared_web(tmp_path_factory, redis_server) -> Iterator[Any]:
    """A gateway without a herder or a worker, for calls that never get as far as those."""
    herd = RunningHerd(tmp_path_factory.mktemp("shared"), redis_server)
    _, key = herd.client.api_keys.create("default")
    _, url = herd.start_gateway()
    headers = {"Authorization": f"Bearer {key}"}
    with httpx.Client(base_url=url, headers=headers, timeout=60, limits=SOON_CLOSED) as client:
        yield client
    herd.close()
    herd.check()
