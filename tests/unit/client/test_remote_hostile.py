"""Whatever a server sends, a client gets an answer or an error of ours, within a bounded time."""

from __future__ import annotations

import asyncio
import gzip
import json
import random

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from herder import AsyncClient, Client, errors
from herder.client.http import async_client as aio
from herder.client.http import bounds, retrying, sse
from herder.client.http import remote_herd as sync
from herder.client.http.failures import error_of
from workers.wire.messages import MAX_TEXT_CHARS

pytestmark = pytest.mark.usefixtures("clean_environment")

RECEIPT = {
    **dict.fromkeys(("order", "account", "model"), "x"),
    **dict.fromkeys(("needed", "fee", "words", "tokens", "generated", "charged", "returned"), 1),
    **dict.fromkeys(("held", "refunded", "attempts", "submitted_us", "waited_ms", "took_ms"), 1),
    **dict.fromkeys(("worker", "weights", "reference", "failure"), None),
    "state": "completed",
    "multiplier": "1",
    "bid_factor": "1",
    "automatic": True,
    "rates": {"prompt_fee": 1, "fee_per_token": 1},
}
ORDER = {
    "id": "o1",
    "state": "completed",
    "receipt": RECEIPT,
    "text": "so it is",
    "text_deleted": False,
    "finish_reason": "stop",
    "usage": None,
}

NAMES = st.sampled_from(
    ["message", "self", "args", "code", "data", "__class__", "__dict__", "retry_after_s", "tag"]
)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(10**400, 10**401)
    | st.floats()
    | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(NAMES | st.text(), inner, max_size=3)
    ),
    max_leaves=8,
)
CODES = st.sampled_from([*sorted(retrying.errors.__dict__), "rate_limited", "invalid_message"])


@pytest.fixture(autouse=True)
def pauses(monkeypatch):
    slept: list[float] = []

    async def doze(seconds):
        slept.append(seconds)

    monkeypatch.setattr(sync.time, "sleep", slept.append)
    monkeypatch.setattr(aio.asyncio, "sleep", doze)
    return slept


def transport(*answers):
    """Gives each answer in turn, and the last one for ever."""
    left = list(answers)

    def answer(_: httpx.Request) -> httpx.Response:
        return left.pop(0) if len(left) > 1 else left[0]

    return httpx.MockTransport(answer)


@pytest.mark.parametrize(
    "header",
    [
        *("²", "٣", "9" * 5000, "-5", "1e3", "0", "", "Wed, 21 Oct 99999999999999 07:28:00 GMT"),
        *("Mon, 01 Jan 2001 00:00:00 +9999999999", "Wed, 21 Oct 2099 07:28:00 GMT", "\x00"),
    ],
)
def test_a_retry_after_of_any_kind_is_a_bounded_wait(pauses, header):
    given_back = httpx.Response(
        503, headers=[(b"retry-after", header.encode())], json={"detail": "away"}
    )
    with pytest.raises(errors.HerdUnavailable):
        Client("http://x", "k", transport=transport(given_back)).info()
    assert len(pauses) == retrying.MAX_TRIES - 1
    assert all(0 < one <= retrying.MAX_PAUSE_S for one in pauses)


def test_a_retry_after_may_be_a_date():
    chance, now_s = random.Random(1), 1_445_412_480 - 7  # of the date below
    date = "Wed, 21 Oct 2015 07:28:00 GMT"
    assert retrying.pause_s(1, date, chance, now_s) == 7
    assert retrying.pause_s(1, date, chance, now_s + 3600) < 1
    error = error_of(429, b"", {"retry-after": date}, "it", now_s)
    assert isinstance(error, errors.RateLimited)
    assert error.retry_after_s == 7


@pytest.mark.parametrize("name", ["message", "self", "args", "code", "data", "__class__", "result"])
def test_names_in_an_errors_data_change_nothing_else(name):
    data = {name: {"any": "thing"}, "needed": 5}
    told = {"error": {"code": "fee_too_low", "message": "Too low.", "data": data}}
    error = error_of(402, json.dumps(told).encode())
    assert type(error) is errors.FeeTooLow
    assert (error.message, error.code, error.args) == ("Too low.", "fee_too_low", ("Too low.",))
    assert error.data == data


@pytest.mark.parametrize("seconds", ["soon", None, True, -3, 10**400, [1], 1.5])
def test_how_long_to_wait_is_a_number_whatever_is_sent(seconds):
    told = {"code": "rate_limited", "message": "Later.", "data": {"retry_after_s": seconds}}
    error = error_of(429, json.dumps({"error": told}).encode())
    assert isinstance(error, errors.RateLimited)
    assert type(error.retry_after_s) is int
    assert 0 <= error.retry_after_s <= 86_400


def test_a_message_is_one_line_without_orders_to_a_terminal():
    told = {"code": "herd_error", "message": "a\x1b[2J\nb" + "c" * 10_000}
    message = error_of(400, json.dumps({"error": told}).encode()).message
    assert message.isprintable()
    assert message.startswith("a [2J b")
    assert len(message) <= 2000


@given(status=st.integers(300, 599), code=JSON | CODES, message=JSON, data=JSON)
def test_any_error_is_an_error_of_ours(status, code, message, data):
    body = json.dumps({"error": {"code": code, "message": message, "data": data}})
    error = error_of(status, body.encode("utf-8", "replace"))
    assert isinstance(error, errors.HerdError)
    assert isinstance(error.message, str)
    assert isinstance(type(error).code, str)
    assert error.code == type(error).code
    assert isinstance(error.data, dict)
    assert not isinstance(error, errors.OrderEnded)


def changed(found, path, value):
    """A copy with one thing in it replaced."""
    if not path:
        return value
    inner = {**found}
    inner[path[0]] = changed(found[path[0]], path[1:], value)
    return inner


PATHS = [[name] for name in ORDER] + [["receipt", name] for name in RECEIPT]


@settings(max_examples=300)
@given(path=st.sampled_from(PATHS), value=JSON)
def test_an_order_of_any_form_is_an_answer_or_an_error_of_ours(path, value):
    try:
        content = json.dumps(changed(ORDER, path, value)).encode()
    except ValueError:
        return
    answer = httpx.Response(200, content=content)
    web = Client("http://x", "k", transport=transport(answer))
    try:
        result = web.order("o1").result(timeout=0)
    except errors.HerdError:
        return
    assert isinstance(result.text, str)
    assert isinstance(result.receipt.state, str)
    assert type(result.receipt.charged) is int


@pytest.mark.parametrize("following", [None, "x" * 100_000, 5, {}, "more"])
def test_pages_without_an_end_end(following):
    page = httpx.Response(200, json={"orders": [], "next": following})
    herd = sync.RemoteHerd("http://x", "k", transport=transport(page))
    assert herd.orders(limit=5) == []
    page = httpx.Response(200, json={"entries": [], "next": following})
    herd = sync.RemoteHerd("http://x", "k", transport=transport(page))
    assert herd.statement(limit=5) == []
    full = httpx.Response(200, json={"orders": [RECEIPT] * 50, "next": "more"})
    herd = sync.RemoteHerd("http://x", "k", transport=transport(full))
    assert len(herd.orders(limit=5)) == 5


EVENTS = [
    'event: text\ndata: {"text": 5}\nid: 1.1\n\n',
    "event: text\ndata: [1]\n\n",
    "event: text\ndata: {\n\n",
    "event: text\ndata\n\n",
    'event: text\ndata: {"text": "a"}\nid: ²\n\nevent: receipt\ndata: {\n\n',
    "event: restart\n\n",
    "event: text\ndata: " + "[" * 100_000 + "\n\n",
    "retry: ²\nid: \x00\n: \n\nevent: receipt\n\n",
]


@pytest.mark.parametrize("events", EVENTS)
def test_events_of_any_kind_are_text_or_an_error_of_ours(events):
    head = {"content-type": "text/event-stream"}

    def answer(request: httpx.Request) -> httpx.Response:
        assert request.headers.get("last-event-id", "1.1").isascii()
        if request.url.path.endswith("/events"):
            return httpx.Response(200, content=events.encode(), headers=head)
        return httpx.Response(200, json=ORDER)

    def read() -> list[str]:
        return list(
            sync.RemoteHerd("http://x", "k", transport=httpx.MockTransport(answer)).stream("o1")
        )

    async def read_too() -> list[str]:
        async with AsyncClient("http://x", "k", transport=httpx.MockTransport(answer)) as web:
            return [one async for one in (await web.order("o1")).stream()]

    for reading in (read, lambda: asyncio.run(read_too())):
        try:
            found = reading()
        except errors.HerdError:
            continue
        assert all(isinstance(one, str) for one in found)


def test_events_are_read_however_their_lines_come():
    content = ': ping\n\nevent: text\r\ndata: {"text":\r\ndata: "a"}\r\nid: 1.1\r\n\r\n'
    content += "event: receipt\rdata: {}\r\r"
    head = {"content-type": "text/event-stream"}

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/events"):
            return httpx.Response(200, content=content.encode(), headers=head)
        return httpx.Response(200, json=ORDER)

    herd = sync.RemoteHerd("http://x", "k", transport=httpx.MockTransport(answer))
    assert list(herd.stream("o1")) == ["a"]
    assert sse.TextOf("o1").last is None


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(bounds, "MAX_ANSWER_BYTES", 2**20)


def served(status, piece, times, head, last=b""):
    """A server that sends a piece so many times, and what was taken from it."""
    taken = []

    class Body(httpx.SyncByteStream, httpx.AsyncByteStream):
        def __iter__(self):
            for _ in range(times):
                taken.append(1)
                yield piece
            yield last

        async def __aiter__(self):
            for one in self:
                yield one

    def answer(request: httpx.Request) -> httpx.Response:
        if not request.url.path.endswith(("/info", "/events")):
            return httpx.Response(200, json=ORDER)
        return httpx.Response(status, stream=Body(), headers=head)

    return httpx.MockTransport(answer), taken


async def over_async(web, call):
    async with web:
        if call == "info":
            return await web.info()
        return [one async for one in (await web.order("o1")).stream()]


def in_both_clients(transport, call):
    herd = sync.RemoteHerd("http://x", "k", transport=transport)
    yield lambda: herd.info() if call == "info" else list(herd.stream("o1"))
    web = AsyncClient("http://x", "k", transport=transport)
    yield lambda: asyncio.run(over_async(web, call))


BOMB = gzip.compress(b" " * 2**21)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("status", [200, 400, 503])
@pytest.mark.parametrize(
    ("call", "piece", "head"),
    [
        ("info", b" " * 1000, {}),
        ("info", BOMB, {"content-encoding": "gzip"}),
        ("stream", b"a" * 1000, {"content-type": "text/event-stream"}),
        ("stream", b"data: " + b"a" * 993 + b"\n", {"content-type": "text/event-stream"}),
        ("stream", BOMB, {"content-type": "text/event-stream", "content-encoding": "gzip"}),
    ],
    ids=["answer", "packed answer", "line", "lines", "packed line"],
)
def test_what_has_no_end_is_not_read_to_it(status, call, piece, head):
    transport, taken = served(status, piece, 4000, head)
    for ask in in_both_clients(transport, call):
        taken.clear()
        with pytest.raises(errors.SetupError, match=r"is longer than 1 MiB, which no herd's"):
            ask()
        assert len(taken) < 1100


@pytest.mark.usefixtures("small")
def test_a_stream_may_be_longer_than_an_event():
    event = b'event: text\ndata: {"text": "' + b"a" * 900 + b'"}\nid: 1.1\n\n'
    head = {"content-type": "text/event-stream; charset=latin-1"}
    transport, _ = served(200, event * 10, 400, head, b"event: receipt\ndata: {}\n\n")
    for read in in_both_clients(transport, "stream"):
        assert "".join(read()) == "a" * 900 * 4000


def test_the_longest_text_is_read():
    assert len(json.dumps("🦙")) * MAX_TEXT_CHARS + 2**20 < bounds.MAX_ANSWER_BYTES
    unpacked = {**ORDER, "text": "é" * 1000}
    content = gzip.compress(json.dumps(unpacked, ensure_ascii=False).encode())
    head = {"content-encoding": "gzip", "content-type": "application/json"}
    web = Client(
        "http://x", "k", transport=transport(httpx.Response(200, content=content, headers=head))
    )
    assert web.order("o1").result().text == unpacked["text"]


def test_text_that_no_utf8_holds_is_an_answer():
    answer = httpx.Response(200, content=json.dumps({**ORDER, "text": "\ud800"}).encode())
    web = Client("http://x", "k", transport=transport(answer))
    assert web.order("o1").result().text == "\ud800"
