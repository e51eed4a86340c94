"""Hostile requests to every route that takes a body: refused in the one form, at no cost.

Which routes there are, and what they take, the gateway's OpenAPI document says.
"""

from __future__ import annotations

import http.client
import itertools
import json
import os
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx
import jsonschema_rs
import pytest

from tests.support.hostile import bodies
from tests.support.house import MODEL
from tests.support.running import UNCOUNTED, RunningHerd
from tests.support.wait import wait_for

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
    # The model of the document's examples is there: not for its name shall a body be refused.
    aliases = f"smollm2-135m-instruct={MODEL}"
    _, url = herd.start_gateway(
        HERD_MAX_BODY_BYTES="1048576", HERD_MODEL_ALIASES=aliases, **UNCOUNTED
    )
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
            # Nobody counts tokens where there is no worker.
            assert status < 500 or (path, status) == ("/v1/tokenize", 503), about
            assert b"model_not_found" not in said or b"smollm2" not in body.content, about
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


GOOD = b'{"prompt": "Hi", "tokens": 5, "fee": 20, "model": "stub", "max_tokens": 5}'
"""What one route or another takes; nothing here may get it that far."""

JSON = b"Content-Type: application/json\r\n"


LAST = b"Host: x\r\nConnection: close\r\n"


def said(length, content=b""):
    return JSON + b"Content-Length: %s\r\n\r\n%s" % (str(length).encode(), content)


def chunked(*parts, head=b""):
    return JSON + head + b"Transfer-Encoding: chunked\r\n\r\n" + b"".join(parts)


def whole(head=b"", content=b"{}", kind=JSON):
    return kind + head + b"Content-Length: %d\r\n\r\n" % len(content) + content


REQUESTS = {
    "shorter than it says": said(500, b'{"prompt": "Hi"'),
    "longer than it says": said(3, GOOD),
    "a length that is none": said("abc", GOOD),
    "a length below zero": said(-1, GOOD),
    "a length beyond all bounds": said("9" * 30, GOOD),
    "a length of thousands of digits": said("9" * 5000, GOOD),
    "two lengths": JSON + b"Content-Length: 2\r\nContent-Length: 300\r\n\r\n{}",
    "a length and chunks": chunked(b"2\r\n{}\r\n0\r\n\r\n", head=b"Content-Length: 2\r\n"),
    "no length": JSON + b"\r\n" + GOOD,
    "chunks that never end": chunked(b"2\r\n{}\r\n"),
    "a chunk shorter than it says": chunked(b"fff\r\n{}\r\n0\r\n\r\n"),
    "a chunk longer than it says": chunked(b"1\r\n{}\r\n0\r\n\r\n"),
    "a chunk without a size": chunked(b"xyz\r\n{}\r\n0\r\n\r\n"),
    "a chunk beyond all bounds": chunked(b"f" * 16 + b"\r\n{}\r\n0\r\n\r\n"),
    "a chunk of minus one": chunked(b"-1\r\n{}\r\n0\r\n\r\n"),
    "many small chunks": chunked(b"1\r\n[\r\n" * 5000, b"0\r\n\r\n"),
    "chunks with trailers": chunked(b"2\r\n{}\r\n0\r\nX-Fee: 1\r\n\r\n"),
    "chunks beyond the bound": chunked(b"40000\r\n" + b"x" * 0x40000 + b"\r\n", b"0\r\n\r\n"),
    "another encoding of the transfer": JSON + b"Transfer-Encoding: gzip\r\n\r\n{}",
    "an encoding of the content": whole(b"Content-Encoding: gzip\r\n", b"\x1f\x8b\x08\0\0\0"),
    "text": whole(kind=b"Content-Type: text/plain\r\n", content=GOOD),
    "a form": whole(kind=b"Content-Type: application/x-www-form-urlencoded\r\n", content=b"a=1"),
    "parts": whole(kind=b"Content-Type: multipart/form-data\r\n", content=b"--b--"),
    "no type": whole(kind=b"", content=GOOD),
    "a type that is none": whole(kind=b"Content-Type: \xff\xfe/;;==\r\n", content=GOOD),
    "a type of 5000 characters": whole(kind=b"Content-Type: " + b"a" * 5000 + b"\r\n"),
    "another character set": whole(kind=b"Content-Type: application/json; charset=utf-16\r\n"),
    "an expectation that nobody meets": whole(b"Expect: the-unexpected\r\n"),
    "a wish to talk otherwise": whole(b"Upgrade: websocket\r\nConnection: Upgrade\r\n"),
    "a name with a space": whole(b"Bad Name: 1\r\n"),
    "a name without a value": whole(b"Nothing\r\n"),
    "a zero byte": whole(b"X-Fee: 1\0\r\n"),
    "a folded line": whole(b"X-Fee: 1\r\n 2\r\n"),
    "bare line ends": whole(b"X-A: 1\nX-B: 2\n"),
    "a thousand headers": whole(b"".join(b"X-%d: 1\r\n" % n for n in range(1000))),
    "a header of 60 kB": whole(b"X-Long: " + b"a" * 60_000 + b"\r\n"),
    "a header of a megabyte": whole(b"X-Long: " + b"a" * 1_000_000 + b"\r\n"),
    "a key of the same call that is none": whole(b"Idempotency-Key: \xff\xfe\r\n"),
    "a key of the same call of 9000 letters": whole(b"Idempotency-Key: %s\r\n" % (b"k" * 9000)),
    "a price below zero": whole(b"X-Fee: -1\r\n"),
    "a price that is a float": whole(b"X-Fee: 1e3\r\nX-Max-Fee: 0x10\r\n"),
    "a price beyond all bounds": whole(b"X-Fee: " + b"9" * 5000 + b"\r\n"),
    "a factor beyond all bounds": whole(b"X-Multiplier: 1e999999999\r\n"),
    "a place to go on that is none": whole(b"Last-Event-ID: " + b"9" * 4000 + b"\r\n"),
    "a proxy's word": whole(b"X-Forwarded-For: \xff, ::1\r\nForwarded: for=x\r\n"),
}
"""What is not wrong JSON but a wrong request."""

LINES = {
    "no version": b"%s %s\r\n",
    "the version 0.9": b"%s %s HTTP/0.9\r\n",
    "the version 1.0": b"%s %s HTTP/1.0\r\n",
    "the version 9.9": b"%s %s HTTP/9.9\r\n",
    "an unknown method": b"%sX %s HTTP/1.1\r\n",
    "a small method": b"post %.0s%s HTTP/1.1\r\n",
    "two spaces": b"%s  %s HTTP/1.1\r\n",
    "a zero byte in the path": b"%s %s%%00 HTTP/1.1\r\n",
    "no UTF-8 in the path": b"%s %s/%%ff%%fe HTTP/1.1\r\n",
    "raw bytes in the path": b"%s %s/\xff\xfe HTTP/1.1\r\n",
    "a path out of here": b"%s /../../etc/passwd%.0s HTTP/1.1\r\n",
    "a long path": b"%s %s/" + b"a" * 50_000 + b" HTTP/1.1\r\n",
    "a long query": b"%s %s?wait=" + b"9" * 50_000 + b" HTTP/1.1\r\n",
    "a whole address": b"%s http://example.org%s HTTP/1.1\r\n",
    "another protocol": b"PRI * HTTP/2.0\r\n\r\nSM%.0s%.0s\r\n",
}
"""Request lines."""

KEYS = {
    "no key": b"",
    "an empty key": b"Authorization: Bearer \r\n",
    "only the word": b"Authorization: Bearer\r\n",
    "another scheme": b"Authorization: Basic aGk6aGk=\r\n",
    "raw bytes": b"Authorization: Bearer \xff\xfe\xfd\r\n",
    "a key of 50 kB": b"Authorization: Bearer herd_" + b"a" * 50_000 + b"\r\n",
    "a key that nearly is one": b"Authorization: Bearer herd_%s_%s\r\n" % (b"0" * 16, b"A" * 43),
    "two keys": b"Authorization: Bearer a\r\nAuthorization: Bearer b\r\n",
}


SILENT = {
    *("shorter than it says", "chunks that never end"),
    *("a chunk shorter than it says", "a chunk beyond all bounds"),
}
"""Those that are waited for until the caller has gone."""


def spoken(url, request, *, goes=False):
    """What comes back for bytes, until the line is closed; the caller closes it if he goes."""
    at = urlsplit(url)
    with socket.create_connection((at.hostname, at.port), timeout=LIMIT_S) as line:
        heard = b""
        try:
            line.sendall(request)
            if goes:
                line.shutdown(socket.SHUT_WR)
            while more := line.recv(65_536):
                heard += more
        except (ConnectionResetError, BrokenPipeError):
            pass  # it was told no before it had said all
        except TimeoutError:
            pytest.fail(f"nothing more came for {request[:400]!r} after {heard!r}")
    return heard


def answers_in(heard):
    """Status, type and body of each answer."""
    while heard:
        head, _, rest = heard.partition(b"\r\n\r\n")
        status = int(head.split()[1])
        fields = dict(
            line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line
        )
        length = int(fields.get(b"content-length", len(rest)))
        if status != 100:
            yield status, fields.get(b"content-type", b""), rest[:length]
        heard = rest if status == 100 else rest[length:]


def test_requests_that_lie_about_themselves_are_refused_and_cost_nothing(target, judge):
    before = target.state
    key = f"Authorization: Bearer {target.key}\r\n".encode()
    refused = set()
    for method, path, _ in target.routes:
        begin = f"{method} {path} HTTP/1.1\r\n".encode() + LAST
        requests = {name: begin + key + rest for name, rest in REQUESTS.items()}
        requests |= {name: begin + rest + whole() for name, rest in KEYS.items()}
        requests |= {
            name: line % (method.encode(), path.encode())
            + b"Host: x\r\nConnection: close\r\n"
            + key
            + whole()
            for name, line in LINES.items()
        }
        for name, request in requests.items():
            for status, kind, body in answers_in(spoken(target.url, request, goes=name in SILENT)):
                about = f"{name}: {method} {path}: {status} {body[:300]!r}"
                assert 400 <= status < 500, about
                if kind == b"application/json":
                    assert judge.is_valid(json.loads(body)), about
                refused.add(name)
    assert refused >= {*REQUESTS, *LINES, *KEYS} - SILENT
    assert target.state == before
    assert httpx.get(f"{target.url}/healthz").status_code == 200


def test_callers_who_stop_in_the_middle_hold_nothing(target):
    """They say that more comes, and go."""
    before = target.state
    at = urlsplit(target.url)
    lines = []
    for method, path, _ in itertools.islice(itertools.cycle(target.routes), 100):
        line = socket.create_connection((at.hostname, at.port), timeout=LIMIT_S)
        begin = f"{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {target.key}\r\n"
        line.sendall(begin.encode() + said(100_000, b'{"prompt": "'))
        lines.append(line)
    with httpx.Client(base_url=target.url) as web:
        assert web.get("/healthz").status_code == 200, "others are served meanwhile"
    for line in lines:
        line.close()
    gateway = next(child for child in target.herd.children if child.name.startswith("gateway"))
    sockets = f"/proc/{gateway.process.pid}/fd"
    wait_for(lambda: len(os.listdir(sockets)) < 60, "their lines are closed")
    assert target.state == before
