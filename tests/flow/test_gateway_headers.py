"""Headers that clients go by: limits of calls, what is compressed, the next order's price."""

from __future__ import annotations

import gzip
import json
import re
from fractions import Fraction

import httpx
import pytest

from tests.support.wait import wait_for

HI = [{"role": "user", "content": "What is it?"}]
LIMIT, LEFT, RESET = (f"x-ratelimit-{one}-requests" for one in ("limit", "remaining", "reset"))


@pytest.fixture
def web(herd):
    herd.start_worker(HERD_CONTEXT="64")
    _, url = herd.start_gateway()
    _, key = herd.client.api_keys.create("default")
    headers = {"Authorization": f"Bearer {key}"}
    with httpx.Client(base_url=url, headers=headers, timeout=60) as made:
        yield made


def test_a_key_is_told_how_often_it_may_still_call(herd):
    herd.start_worker()
    _, url = herd.start_gateway(HERD_REQUESTS_PER_MINUTE_PER_KEY="1")

    def call(method, path, key=None, **more):
        body = {"model": "stub", "messages": HI, "max_tokens": 3, **more}
        return httpx.request(
            method,
            f"{url}{path}",
            headers={"Authorization": f"Bearer {key or herd.client.api_keys.create('default')[1]}"},
            json=body if method == "POST" else None,
            timeout=60,
        )

    # An answer, refusals, a whole completion and a streamed one, each with a key of its own.
    chat = "/v1/chat/completions"
    for status, answer in (
        (200, call("GET", "/v1/models")),
        (404, call("GET", "/v1/orders/nothing")),
        (400, call("POST", chat, messages=[])),
        (200, call("POST", chat)),
        (200, call("POST", chat, stream=True)),
    ):
        assert answer.status_code == status
        assert (answer.headers[LIMIT], answer.headers[LEFT]) == ("1", "0")
        assert answer.headers[RESET].endswith("s")
    _, key = herd.client.api_keys.create("default")

    def refused():
        answer = call("GET", "/v1/account", key)
        return answer if answer.status_code == 429 else None

    answer = wait_for(refused, "the key is refused")
    assert (answer.headers[LIMIT], answer.headers[LEFT]) == ("1", "0")
    assert answer.headers[RESET].endswith("s")
    # Who is not known is told nothing; nor is anybody where there is no limit.
    assert LIMIT not in call("GET", "/v1/account", "herd_nobody").headers
    assert LIMIT not in httpx.get(f"{url}/", timeout=60).headers
    _, free = herd.start_gateway(HERD_REQUESTS_PER_MINUTE_PER_KEY="0")
    answer = httpx.get(f"{free}/v1/models", headers={"Authorization": f"Bearer {key}"}, timeout=60)
    assert answer.status_code == 200
    assert LIMIT not in answer.headers


def test_bodies_and_answers_are_compressed_and_streams_come_piece_by_piece(herd, web):
    body = json.dumps({"model": "stub", "messages": HI, "max_tokens": 5}).encode()
    asked = {"Content-Type": "application/json", "Content-Encoding": "gzip"}

    def post(content, path="/v1/chat/completions", **headers):
        return web.post(path, content=content, headers=asked | headers)

    assert post(gzip.compress(body)).json()["usage"]["completion_tokens"] == 5
    order = gzip.compress(b'{"prompt": "Hello", "tokens": 5}')
    assert post(order, "/v1/orders").status_code == 202
    had = len(web.get("/v1/orders").json()["orders"])

    # What is refused takes nothing: what is bounded is what comes out.
    bomb = gzip.compress(b'{"model": "' + b" " * 50_000_000)
    assert len(bomb) < 1_000_000
    for path in ("/v1/chat/completions", "/v1/orders", "/v1/quotes"):
        for content, status, code in (
            (bomb, 413, "body_too_long"),
            (body, 400, "invalid_request"),
            (gzip.compress(body)[:-3], 400, "invalid_request"),
            (b"", 400, "invalid_request"),
        ):
            refused = post(content, path)
            error = refused.json()["error"]
            assert (refused.status_code, error["code"]) == (status, code), (path, error)
        refused = post(body, path, **{"Content-Encoding": "br"})
        assert (refused.status_code, refused.headers["accept-encoding"]) == (415, "gzip")
    assert len(web.get("/v1/orders").json()["orders"]) == had

    answer = web.get("/openapi.json", headers={"Accept-Encoding": "gzip"})
    assert (answer.headers["content-encoding"], answer.headers["vary"]) == (
        "gzip",
        "Accept-Encoding",
    )
    plain = web.get("/openapi.json", headers={"Accept-Encoding": "gzip;q=0"})
    assert "content-encoding" not in plain.headers
    assert plain.json() == answer.json()
    assert "content-encoding" not in web.get("/health").headers
    head = web.head("/openapi.json", headers={"Accept-Encoding": "gzip"})
    assert (head.content, head.headers["content-encoding"]) == (b"", "gzip")

    # The worker says no more, so what comes had not to wait for the end.
    hangs = [{"role": "user", "content": "[[hang:3]]"}]
    stream = {"model": "stub", "messages": hangs, "max_tokens": 5, "stream": True}
    with web.stream(
        "POST",
        "/v1/chat/completions",
        content=gzip.compress(json.dumps(stream).encode()),
        headers=asked | {"Accept-Encoding": "gzip"},
    ) as streamed:
        assert "content-encoding" not in streamed.headers
        order = streamed.headers["x-order"]
        chunks = (line for line in streamed.iter_lines() if line.startswith("data: {"))
        texts = (
            json.loads(line.removeprefix("data: "))["choices"][0]["delta"]["content"]
            for line in chunks
        )
        assert next(text for text in texts if text)
        wait_for(lambda: herd.client.receipt(order).state == "running", "it runs, and hangs")
    herd.client.cancel(order)
    wait_for(lambda: herd.client.receipt(order).state == "cancelled", "it is cancelled")


PRICE = re.compile(
    r'model="stub", multiplier=([0-9.]+), prompt_fee=([0-9]+), fee_per_token=([0-9]+)'
)


def fee_by(header, words, tokens):
    """The fee of an order that needs so much."""
    multiplier, prompt_fee, fee_per_token = PRICE.fullmatch(header).groups()
    return int(Fraction(multiplier) * (int(prompt_fee) + int(fee_per_token) * (words + tokens)))


def test_each_answer_tells_what_the_next_order_pays(web):
    body = {"model": "stub", "messages": HI, "max_tokens": 5}
    order = web.post("/v1/orders", json={"prompt": "Say it", "tokens": 4}).json()["id"]
    web.get(f"/v1/orders/{order}?wait=60")
    answers = [
        web.post("/v1/chat/completions", json=body),
        web.post("/v1/chat/completions", json=body | {"stream": True}),
        web.post("/v1/completions", json={"model": "stub", "prompt": "Hi", "max_tokens": 3}),
        web.post("/v1/chat/completions", json=body | {"model": "none"}),
        web.post("/v1/orders", json={"prompt": "Hi", "tokens": 3, "fee": 1}),
        *(web.get("/v1/orders"), web.get(f"/v1/orders/{order}"), web.get("/v1/orders/none")),
        web.get(f"/v1/orders/{order}/events"),
    ]
    assert [one.status_code for one in answers] == [200, 200, 200, 404, 402, 200, 200, 404, 200]
    for one in answers:
        assert fee_by(one.headers["x-next-price"], 0, 9) == 10, one.headers

    # Somebody pays three times as much: so will the next.
    paid = web.post("/v1/orders", json={"prompt": "Say it", "tokens": 4, "fee": 21}).json()["id"]
    web.get(f"/v1/orders/{paid}?wait=60")

    def told():
        header = web.get("/v1/orders").headers["x-next-price"]
        return header if fee_by(header, 2, 4) == 21 else None

    header = wait_for(told, "the price has risen")
    (page,) = httpx.get(f"{web.base_url}/", timeout=60).json()["next_prices"]
    assert page == {
        "model": "stub",
        "default": True,
        "multiplier": "3",
        "prompt_fee": 1,
        "fee_per_token": 1,
    }
    next_one = web.post("/v1/orders", json={"prompt": "Say it again", "tokens": 9}).json()
    assert next_one["receipt"]["fee"] == fee_by(header, 3, 9) == 39
