"""IPv6: a gateway on ::1 and on both kinds at once, and a herd whose servers are on [::1]."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import httpx
import pytest

from herder.errors import HerdUnavailable
from tests.support.house import MODEL
from tests.support.postgres_server import PostgresServer, why_not
from tests.support.redis_server import RedisServer
from tests.support.running import HERD


@pytest.fixture(autouse=True)
def ipv6():
    """Skip where this machine has no IPv6."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")


def works(url: str) -> bool:
    return httpx.get(f"{url}/healthz", timeout=60).status_code == 200


@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_a_gateway_listens_on_an_ipv6_address_and_says_it_as_a_url_has_it(make_herd, host):
    herd = make_herd()
    arguments = ["gateway", "--host", host, "--port", "0"]
    gateway = herd.start("gateway", arguments, HERD)
    gateway.says("gateway_ready")
    assert "The gateway listens on http://[::1]:" in gateway.log
    (url,) = [word.rstrip(",") for word in gateway.log.split() if word.startswith("http://[::1]:")][
        :1
    ]
    assert works(url)


def test_a_gateway_on_two_colons_takes_both_kinds_and_counts_ipv4_as_itself(make_herd):
    herd = make_herd()
    _, key = herd.client.api_keys.create("default")
    _, url = herd.start_gateway(
        HERD_GATEWAY_HOST="::",
        HERD_TRUSTED_PROXIES="127.0.0.1",
        HERD_REQUESTS_PER_MINUTE_PER_ADDRESS="0",
        HERD_UNAUTHORIZED_PER_MINUTE="2",
    )
    port = url.rpartition(":")[2]
    for host in ("127.0.0.1", "[::1]"):
        assert works(f"http://{host}:{port}")
    # A proxy that is trusted by its IPv4 address is, though it comes to a socket of both kinds:
    # each of its callers is counted alone.
    for number in range(6):
        answer = httpx.get(
            f"http://127.0.0.1:{port}/v1/account",
            headers={"X-Forwarded-For": f"192.0.2.{number}", "Authorization": "Bearer wrong"},
            timeout=60,
        )
        assert answer.status_code == 401, answer.text
    good = {"Authorization": f"Bearer {key}"}
    assert httpx.get(f"http://[::1]:{port}/v1/account", headers=good).status_code == 200


@pytest.mark.parametrize("host", ["::1", "nowhere.invalid"])
def test_an_address_that_cannot_be_had_is_named_in_one_line(make_herd, host):
    herd = make_herd()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server(("::1" if ":" in host else "127.0.0.1", 0), family=family) as taken:
        port = taken.getsockname()[1]
        arguments = ["gateway", "--host", host, "--port", str(port)]
        gateway = herd.start("gateway", arguments, HERD)
        assert gateway.ended() == 2
    shown = f"[::1]:{port}" if ":" in host else f"nowhere.invalid:{port}"
    assert f"cannot listen on {shown}" in gateway.log
    assert "Traceback" not in gateway.log


@pytest.fixture
def servers(tmp_path) -> Iterator[tuple[RedisServer, PostgresServer]]:
    """A Redis and a PostgreSQL that are reached at [::1]."""
    if (reason := why_not()) is not None:
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    redis = RedisServer(tmp_path / "redis", bind=("127.0.0.1", "::1"))
    server = PostgresServer(settings="listen_addresses = '127.0.0.1,::1'\n")
    redis.url = redis.url.replace("127.0.0.1", "[::1]")
    yield redis, server
    server.close()
    redis.kill()


def test_redis_and_postgresql_on_ipv6_serve_a_herd(servers, make_herd):
    redis, server = servers
    url = server.url(server.new_database()).replace("127.0.0.1", "[::1]")
    herd = make_herd(redis, HERD_DATABASE_URL=url)
    herd.start_herder()
    herd.start_worker()
    result = herd.submit("Over six", 5).result(timeout=120)
    assert (result.receipt.state, result.receipt.model) == ("completed", MODEL)
    server.stop()
    with pytest.raises(HerdUnavailable, match=r"PostgreSQL at \[::1\]:"):
        herd.submit("while it is away", 5)
    server.start()
