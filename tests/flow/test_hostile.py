"""Hostile requests to every route that takes a body: refused in the one form, at no cost.

Which routes there are, and what they take, the gateway's OpenAPI document says.
"""

from __future__ import annotations

import http.client
import itertools
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx
import jsonschema_rs
import pytest
from support.hostile import bodies
from support.running import RunningHerd

SEED = 20260101
EACH = 1000
"""Hostile bodies for each route."""
AT_ONCE = 4
LIMIT_S = 30.0


@dataclass
class Target:
    """A gateway with one order that waits, and what it says of itself."""

    herd: RunningHerd
    url: str
    key: str
    poor: str
    order: str
    document: dict

    @property
    def routes(self):
        """Method, path and schema of each route that takes a body."""
        for path, operations in self.document["paths"].items():
            for method, operation in operations.items():
                content = operation.get("requestBody", {}).get("content", {})
                if "application/json" in content:
                    real = path.replace("{order_id}", self.order)
                    yield method.upper(), real, content["application/json"]["schema"]

    def told(self, key):
        """All that an account can see of its money and orders."""
        with httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {key}"}) as web:
            paths = ("/v1/account", "/v1/account/statement", "/v1/orders")
            return [web.get(path).json() for path in paths]

    @property
    def state(self):
        return self.told(self.key), self.told(self.poor)


@pytest.fixture(scope="module")
def target(tmp_path_factory, redis_server):
    redis_server.client().flushall()
    herd = RunningHerd(tmp_path_factory.mktemp("hostile"), redis_server)
    _, key = herd.client.api_keys.create("default", scopes=["buy", "read", "operate"])
    herd.client.accounts.create("poor")
    _, poor = herd.client.api_keys.create("poor")
    _, url = herd.start_gateway(HERD_MAX_BODY_BYTES="1048576")
    order = herd.client.submit("Hi", 10, fee=20, account="default").order
    document = httpx.get(f"{url}/openapi.json").json()
    yield Target(herd, url, key, poor, order, document)
    herd.close()
    assert "Traceback" not in herd.logs, herd.logs
    assert "call_broke" not in herd.logs, herd.logs
    herd.check()


@pytest.fixture
def judge(target):
    form = {"$ref": "#/components/schemas/ErrorAnswer", "components": target.document["components"]}
    return jsonschema_rs.validator_for(form)


def test_a_thousand_hostile_bodies_to_each_route_are_refused_and_cost_nothing(target, judge):
    before = target.state
    routes = list(target.routes)
    assert len(routes) >= 5
    at = urlsplit(target.url)

    def send(part):
        line = http.client.HTTPConnection(at.hostname, at.port, timeout=LIMIT_S)
        seen = []
        for method, path, body in part:
            # What the route says that it takes is for an account that cannot pay for it.
            key = target.key if body.wrong else target.poor
            headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
            line.request(method, path, body.content, headers)
            answer = line.getresponse()
            seen.append((method, path, body, answer.status, answer.read()))
        line.close()
        return seen

    calls = [
        (method, path, body)
        for number, (method, path, schema) in enumerate(routes)
        for body in wrong_ones(schema, target.document, SEED + number)
    ]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        parts = pool.map(send, [calls[start::AT_ONCE] for start in range(AT_ONCE)])
        answers = list(itertools.chain(*parts))
    assert sum(body.wrong for _, _, body, _, _ in answers) == EACH * len(routes)
    for method, path, body, status, said in answers:
        about = f"{method} {path} {body.content[:300]!r}: {status} {said[:300]!r}"
        if body.wrong:
            assert 400 <= status < 500, about
        if status >= 400:
            assert status < 500, about
            assert judge.is_valid(json.loads(said)), about
            assert len(said) < 2000, about
    assert target.state == before


def wrong_ones(schema, document, seed):
    """So many bodies that the route does not take, and those that it does among them."""
    wrong = 0
    for body in bodies(schema, document, seed):
        if wrong == EACH:
            return
        wrong += body.wrong
        yield body
