"""What callers may not do: long heads, too many calls and streams, lines that nobody reads."""

from __future__ import annotations

import json
import socket
from contextlib import ExitStack, suppress
from urllib.parse import urlsplit

import httpx
import pytest

from tests.support.wait import wait_for

HI = [{"role": "user", "content": "What is it?"}]


@pytest.fixture
def key(herd):
    _, shown = herd.client.api_keys.create("default")
    return shown


def bearer(key):
    return {"Authorization": f"Bearer {key}"}


def code(answer):
    return answer.status_code, answer.json()["error"]["code"]


def plain(url, receive_bytes=None):
    """A connection without a client's help."""
    at = urlsplit(url)
    line = socket.socket()
    if receive_bytes is not None:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    line.settimeout(60)
    line.connect((at.hostname, at.port))
    return line


def all_of(line):
    """What comes until the other side closes."""
    had = b""
    try:
        while more := line.recv(65_536):
            had += more
    except ConnectionResetError:
        pass
    return had


def asks(path, key, **headers):
    """A GET, as bytes."""
    named = {"Host": "herd", **bearer(key), **headers}
    lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in named.items())]
    return "\r\n".join([*lines, "", ""]).encode()


# Heads and requests


def test_a_head_that_is_too_long_is_refused_in_our_form(shared_web):
    answer = shared_web.get("/healthz", headers={"X-Long": "x" * 40_000})
    assert code(answer) == (431, "head_too_long")
    assert shared_web.get("/healthz", headers={"X-Long": "x" * 20_000}).status_code == 200
    answer = shared_web.get("/healthz", params={"q": "x" * 40_000})
    assert code(answer) == (431, "head_too_long")


def test_a_head_without_an_end_is_refused_while_it_comes(shared_web):
    with plain(str(shared_web.base_url)) as line:
        line.sendall(b"GET /healthz HTTP/1.1\r\n" + b"X-Long: " + b"x" * 200_000)
        head, _, body = all_of(line).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 431 ")
    assert json.loads(body)["error"]["code"] == "head_too_long"


def test_what_is_no_http_is_told_so_in_our_form(shared_web):
    with plain(str(shared_web.base_url)) as line:
        line.sendall(b"HELLO\r\n\r\n")
        head, _, body = all_of(line).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert json.loads(body)["error"]["code"] == "invalid_request"


def test_a_request_that_never_comes_whole_is_waited_for_in_vain_once(herd, key):
    _, url = herd.start_gateway(HERD_MAX_REQUEST_S="1")
    parts = (
        b"",
        b"GET /healthz HTTP/1.1\r\nHost:",
        b"POST /v1/orders HTTP/1.1\r\nHost: herd\r\nContent-Length: 100\r\n\r\n{",
    )
    with ExitStack() as held:
        lines = [held.enter_context(plain(url)) for _ in parts]
        for line, part in zip(lines, parts, strict=True):
            line.sendall(part)
        assert [all_of(line) for line in lines] == [b"", b"", b""]
    with httpx.Client(base_url=url, headers=bearer(key), timeout=60) as web:
        order = web.post("/v1/orders", json={"prompt": "Hi", "tokens": 5}).json()["id"]
        waited = web.get(f"/v1/orders/{order}", params={"wait": 3})
        assert waited.json()["state"] == "queued", "an answer may take longer than a request"
        assert web.get("/healthz").status_code == 200


# Calls a minute


def test_a_key_that_calls_too_often_is_told_to_wait_at_every_gateway(herd, key):
    limit = {"HERD_REQUESTS_PER_MINUTE_PER_KEY": "5"}
    (_, here), (_, there) = (herd.start_gateway(**limit) for _ in range(2))
    answers = [httpx.get(f"{here}/v1/account", headers=bearer(key)) for _ in range(7)]
    assert [answer.status_code for answer in answers] == [200] * 5 + [429] * 2
    assert code(answers[-1]) == (429, "rate_limited")
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 12

    shared = f"rate:key:{key.split('_')[1]}"
    wait_for(lambda: herd.redis.client().exists(shared), "the first gateway tells of it")
    calls = []

    def refused_there():
        calls.append(httpx.get(f"{there}/v1/account", headers=bearer(key)).status_code)
        return calls[-1] == 429

    wait_for(refused_there, "the second one hears of it")
    assert calls.count(200) < 5, "it would have let five through by itself"
    _, other = herd.client.api_keys.create("default")
    assert httpx.get(f"{here}/v1/account", headers=bearer(other)).status_code == 200


def test_an_address_that_calls_too_often_is_told_to_wait_whatever_it_shows(herd, key):
    limit = {"HERD_REQUESTS_PER_MINUTE_PER_ADDRESS": "3"}
    _, url = herd.start_gateway(**limit)

    def ask(at, path="/v1/account", shown=key, address="192.0.2.1"):
        headers = bearer(shown) | {"X-Forwarded-For": address}
        return httpx.get(f"{at}{path}", headers=headers)

    _, other = herd.client.api_keys.create("default")
    assert [ask(url).status_code for _ in range(3)] == [200, 200, 200]
    assert code(ask(url, shown=other)) == (429, "rate_limited")
    assert [ask(url, "/healthz").status_code for _ in range(5)] == [200] * 5
    assert ask(url, "/readyz").status_code == 503, "it has no worker, and says so"
    assert ask(url, address="192.0.2.2").status_code == 200, "a proxy here is believed"
    _, strict = herd.start_gateway(**limit, HERD_TRUSTED_PROXIES="")
    # Nobody is believed: all are one address, which no other gateway has counted yet.
    answers = [ask(strict, address=f"192.0.2.{number}").status_code for number in range(5)]
    assert answers == [200, 200, 200, 429, 429]


def test_who_guesses_keys_is_slowed_and_shuts_out_nobody_who_was_there(herd, key):
    _, url = herd.start_gateway(HERD_UNAUTHORIZED_PER_MINUTE="3")
    key_id = key.split("_")[1]
    guess = f"herd_{key_id[::-1]}_{'x' * 43}"

    def ask(shown, address="192.0.2.1", path="/v1/account"):
        headers = bearer(shown) | {"X-Forwarded-For": address}
        return httpx.get(f"{url}{path}", headers=headers)

    assert ask(key).status_code == 200
    assert [ask(guess).status_code for _ in range(5)] == [401, 401, 401, 429, 429]
    assert ask(guess, path="/metrics").status_code == 429, "nor there"
    assert ask(key).status_code == 200, "it was good here before"
    _, fresh = herd.client.api_keys.create("default")
    assert code(ask(fresh)) == (429, "rate_limited")
    assert ask(fresh, address="192.0.2.9").status_code == 200


def test_without_redis_calls_go_on_and_are_counted_all_the_same(own_redis, make_herd):
    herd = make_herd(own_redis)
    _, key = herd.client.api_keys.create("default")
    gateway, url = herd.start_gateway(HERD_REQUESTS_PER_MINUTE_PER_KEY="4")
    own_redis.kill()
    answers = [httpx.get(f"{url}/v1/account", headers=bearer(key)) for _ in range(6)]
    assert [answer.status_code for answer in answers] == [200] * 4 + [429] * 2
    gateway.says("out_of_reach")


# Streams


def test_a_key_has_so_many_streams_and_no_more(herd, key):
    _, url = herd.start_gateway(HERD_MAX_STREAMS_PER_KEY="2")
    with httpx.Client(base_url=url, headers=bearer(key), timeout=60) as web:
        order = web.post("/v1/orders", json={"prompt": "Hi", "tokens": 5}).json()["id"]
        path = f"/v1/orders/{order}/events"
        chat = {"model": "stub", "messages": HI, "stream": True}
        with web.stream("GET", path) as one:
            ones = one.iter_lines()  # who drops it closes the line
            next(ones)
            with web.stream("GET", path) as two:
                twos = two.iter_lines()
                next(twos)
                refused = web.get(path)
                assert code(refused) == (429, "too_many_streams")
                assert int(refused.headers["retry-after"]) >= 1
                assert code(web.get(f"/v1/orders/{order}", params={"wait": 5}))[0] == 429
                assert code(web.post("/v1/chat/completions", json=chat))[0] == 429
                _, other = herd.client.api_keys.create("default")
                with web.stream("GET", path, headers=bearer(other)) as theirs:
                    assert theirs.status_code == 200
        held = web.get("/v1/account").json()["held"]
        assert held == herd.client.receipt(order).held, "what was refused holds nothing"

        def again():
            with web.stream("GET", path) as answer:
                return answer.status_code == 200

        wait_for(again, "what was closed is free again")


def test_a_reader_who_goes_away_leaves_the_order_or_cancels_it_as_he_said(herd, key):
    herd.start_worker(HERD_STUB_STEP_MS="30", HERD_SLOTS="3")
    _, url = herd.start_gateway(HERD_DISCONNECT_GRACE_S="0")
    _, reader = herd.client.api_keys.create("default", scopes=["read"])

    def left(order, shown, **params):
        """Read a little of an order's text, and go away."""
        with (
            httpx.Client(base_url=url, headers=bearer(shown), timeout=60) as browser,
            browser.stream("GET", f"/v1/orders/{order}/events", params=params) as answer,
        ):
            assert answer.status_code == 200
            for line in answer.iter_lines():
                if line == "event: text":
                    return

    with httpx.Client(base_url=url, headers=bearer(key), timeout=60) as web:
        # The one that is cancelled would run for half a minute.
        kept, other, ended = (
            web.post("/v1/orders", json={"prompt": f"Tell {n}", "tokens": n}).json()["id"]
            for n in (100, 100, 1000)
        )
        refused = web.get(
            f"/v1/orders/{ended}/events",
            params={"on_disconnect": "cancel"},
            headers=bearer(reader),
        )
        assert code(refused) == (403, "forbidden"), "who may not cancel may not do it so either"
        wrong = web.get(f"/v1/orders/{ended}/events", params={"on_disconnect": "explode"})
        assert code(wrong) == (400, "invalid_request")
        wait_for(lambda: herd.client.receipt(ended).state == "running", "it runs")
        left(ended, key, on_disconnect="cancel")
        left(kept, reader)
        left(other, key, on_disconnect="continue")
        wait_for(lambda: herd.client.receipt(ended).state == "cancelled", "it is cancelled")
        for order in (kept, other):
            done = web.get(f"/v1/orders/{order}", params={"wait": 60}).json()
            assert (done["state"], done["usage"]["generated"]) == ("completed", 100)
        receipt = herd.client.receipt(ended)
        assert 0 < receipt.charged < receipt.fee


def test_a_gateway_that_ends_is_no_reader_who_goes_away(herd, key):
    herd.start_worker(HERD_STUB_STEP_MS="30")
    gateway, url = herd.start_gateway()
    with httpx.Client(base_url=url, headers=bearer(key), timeout=60) as web:
        order = web.post("/v1/orders", json={"prompt": "Tell", "tokens": 100}).json()["id"]
        path = f"/v1/orders/{order}/events"
        with web.stream("GET", path, params={"on_disconnect": "cancel"}) as answer:
            lines = answer.iter_lines()  # who drops it closes the line
            next(lines)
            assert gateway.stop() == 0
    assert herd.client.result(order, 60).receipt.state == "completed"


@pytest.mark.parametrize("stream", [True, False])
def test_a_caller_of_openais_routes_may_have_his_order_go_on(herd, key, stream):
    herd.start_worker(HERD_STUB_STEP_MS="30")
    _, url = herd.start_gateway()
    body = {"model": "stub", "messages": HI, "max_tokens": 100, "stream": stream}
    asked = {"on_disconnect": "continue"} if stream else {}
    headers = {**bearer(key), **({} if stream else {"X-On-Disconnect": "continue"})}
    address = f"{url}/v1/chat/completions"
    with httpx.Client(timeout=60 if stream else 2) as browser:
        if stream:
            with browser.stream("POST", address, json=body | asked, headers=headers) as answer:
                order = answer.headers["x-order"]
                next(answer.iter_lines())
        else:
            with pytest.raises(httpx.ReadTimeout):
                browser.post(address, json=body, headers=headers)
            (receipt,) = wait_for(lambda: herd.client.orders(account="default"), "it is taken")
            order = receipt.order
    assert herd.client.result(order, 60).usage.generated == 100


def resident_kib(child):
    """Memory that a process has."""
    with open(f"/proc/{child.process.pid}/status") as status:
        (line,) = (line for line in status if line.startswith("VmRSS:"))
    return int(line.split()[1])


READERS = 40


def test_readers_who_do_not_read_hold_up_nobody_and_take_little_memory(herd, key):
    herd.start_worker(HERD_CONTEXT="32768", HERD_SLOTS="2")
    gateway, url = herd.start_gateway(HERD_SLOW_READER_S="2", HERD_METRICS="open")
    with httpx.Client(base_url=url, headers=bearer(key), timeout=120) as web, ExitStack() as held:
        web.get("/v1/account")
        before_kib = resident_kib(gateway)
        body = {"prompt": "Tell [[say:somewhat]]", "tokens": 20_000}
        order = web.post("/v1/orders", json=body).json()["id"]
        for _ in range(READERS):
            line = held.enter_context(plain(url, receive_bytes=4096))
            line.sendall(asks(f"/v1/orders/{order}/events", key))
        quick = web.post("/v1/orders", json={"prompt": "Quick", "tokens": 5}).json()["id"]
        for one, tokens in ((quick, 5), (order, 20_000)):
            result = herd.client.result(one, 120)
            assert (result.receipt.state, result.usage.generated) == ("completed", tokens)
        assert resident_kib(gateway) - before_kib < READERS * 1024

        def lines():
            scrape = web.get("/metrics").text.splitlines()
            (found,) = (line for line in scrape if line.startswith("llama_herder_gateway_streams "))
            return float(found.split()[1])

        wait_for(lambda: lines() == 0, "their lines are given back")
        assert web.get(f"/v1/orders/{order}").json()["text"] == "somewhat" * 20_000


def test_a_line_that_nobody_reads_is_cut(herd, key):
    """Answer after answer is asked for and none is read, until no buffer holds any more."""
    gateway, url = herd.start_gateway(HERD_SLOW_READER_S="1")
    with plain(url, receive_bytes=4096) as line:
        line.settimeout(0.5)
        asked = asks("/openapi.json", key) * 400
        with suppress(TimeoutError, ConnectionError):  # it is no longer read either
            line.sendall(asked)
        gateway.says("slow_reader_cut")
    assert httpx.get(f"{url}/healthz").status_code == 200
