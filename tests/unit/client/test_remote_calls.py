"""What the HTTP clients send and how they read answers; no connection."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime
from types import MappingProxyType

import httpx
import pytest
from httpx_sse import ServerSentEvent

from herder import errors
from herder.client.api import connect
from herder.client.http import calls, retrying, sse
from herder.client.http import remote_herd as sync
from herder.client.http.async_client import AsyncClient
from herder.client.http.client import Client

pytestmark = pytest.mark.usefixtures("clean_environment")

RECEIPT = {
    "order": "o1",
    "account": "ada",
    "model": "stub",
    "state": "completed",
    "needed": 12,
    "fee": 24,
    "multiplier": "2",
    "bid_factor": "1",
    "automatic": False,
    "rates": {"prompt_fee": 1, "fee_per_token": 1},
    "words": 1,
    "tokens": 10,
    "generated": 10,
    "charged": 24,
    "returned": 0,
    "held": 0,
    "refunded": 0,
    "attempts": 1,
    "worker": "w",
    "weights": None,
    "reference": "r",
    "submitted_us": 1,
    "waited_ms": 2,
    "took_ms": 3,
    "failure": None,
}


def order(state="completed", **changes):
    answer = {"id": "o1", "state": state, "receipt": {**RECEIPT, "state": state}, "queue": None}
    answer |= {"text": "so it is", "text_deleted": False, "finish_reason": "length"}
    return {**answer, "usage": {"prompt_tokens": 3, "generated": 10}, **changes}


class Gateway:
    """Answers in turn with what it was given; keeps what it was sent."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.sent: list[httpx.Request] = []

    def __call__(self, request):
        self.sent.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, tuple):
            return httpx.Response(answer[0], json=answer[1], headers=dict(answer[2:]))
        return httpx.Response(200, json=answer)

    @property
    def transport(self):
        return httpx.MockTransport(self)


def sent(call):
    return json.loads(call.content)


@pytest.fixture
def slept(monkeypatch):
    pauses: list[float] = []
    monkeypatch.setattr(sync.time, "sleep", pauses.append)
    return pauses


def client(gateway):
    return Client("http://gateway/", "herd_k_s", transport=gateway.transport)


def told(code, message="No.", **data):
    return {"error": {"message": message, "type": "x", "param": None, "code": code, "data": data}}


def test_a_submission_is_one_order_however_often_it_is_sent(slept):
    gateway = Gateway(httpx.ReadError("cut"), (503, {}), order())
    made = client(gateway).submit("Hi", 10, fee=24, stop=("A", "B"), top_k=5, logit_bias={7: -1.0})
    assert (made.id, made.fee) == ("o1", 24)
    bodies = [json.loads(one.content) for one in gateway.sent]
    assert (
        bodies
        == [
            {
                "prompt": "Hi",
                "tokens": 10,
                "fee": 24,
                "stop": ["A", "B"],
                "sampling": {"top_k": 5, "logit_bias": {"7": -1.0}},
            }
        ]
        * 3
    )
    keys = {one.headers["idempotency-key"] for one in gateway.sent}
    assert len(keys) == 1
    assert gateway.sent[0].headers["authorization"] == "Bearer herd_k_s"
    assert len(slept) == 2


def test_a_key_of_the_callers_own_is_used():
    gateway = Gateway(order())
    client(gateway).submit("Hi", 10, idempotency_key="mine")
    assert gateway.sent[0].headers["idempotency-key"] == "mine"
    assert "idempotency_key" not in json.loads(gateway.sent[0].content)


def test_retry_after_is_kept_to_and_bounded():
    chance = random.Random(1)
    assert retrying.pause_s(1, "3", chance) == 3
    assert retrying.pause_s(1, "3600", chance) == retrying.MAX_PAUSE_S
    assert 0 < retrying.pause_s(1, None, chance) < retrying.pause_s(9, None, chance) <= 20
    assert retrying.pause_s(1, "soon", chance) < 1


def test_after_enough_tries_it_is_told(slept):
    gateway = Gateway(*[httpx.ConnectError("no")] * retrying.MAX_TRIES)
    with pytest.raises(errors.HerdUnavailable, match="out of reach"):
        client(gateway).info()
    assert len(slept) == retrying.MAX_TRIES - 1
    gateway = Gateway(*[(503, told("herd_unavailable", "Busy."))] * retrying.MAX_TRIES)
    with pytest.raises(errors.HerdUnavailable, match="Busy"):
        client(gateway).info()


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (402, told("fee_too_low", "Too low.", fee=5, needed=22), errors.FeeTooLow),
        (429, told("rate_limited", "Later.", retry_after_s=7), errors.RateLimited),
        (404, told("order_not_found", order="o1"), errors.OrderNotFound),
        (400, told("something_new"), errors.InvalidRequest),
        (429, told("something_new", retry_after_s=7), errors.RateLimited),
        (500, told("something_new"), errors.HerdUnavailable),
        (502, {"detail": "a proxy's own"}, errors.HerdUnavailable),
        (403, told("forbidden", key="k", scope="buy"), errors.Forbidden),
    ],
)
def test_errors_are_those_of_the_local_herd(slept, status, body, kind):
    gateway = Gateway(*[(status, body)] * retrying.MAX_SETTLING_TRIES)
    with pytest.raises(errors.HerdError) as raised:
        client(gateway).submit("Hi", 10)
    assert type(raised.value) is kind
    if "error" in body:
        assert raised.value.message == body["error"]["message"]
        assert raised.value.data == body["error"]["data"]
    if kind is errors.RateLimited:
        assert raised.value.retry_after_s == 7


def test_a_submission_that_may_have_been_taken_is_settled_and_else_its_key_is_told(slept):
    gateway = Gateway(*[httpx.ReadError("cut")] * (retrying.MAX_TRIES + 1), order())
    assert client(gateway).submit("Hi", 10).id == "o1"
    gateway = Gateway((504, {}), *[httpx.ConnectError("no")] * (retrying.MAX_SETTLING_TRIES - 1))
    with pytest.raises(errors.HerdUnavailable, match="may have been taken") as raised:
        client(gateway).submit("Hi", 10, idempotency_key="mine")
    assert raised.value.data == {"idempotency_key": "mine"}
    assert "'mine'" in raised.value.message


def test_a_submission_that_was_not_taken_is_not_said_to_be(slept):
    for refusal in (httpx.ConnectError("no"), (503, told("herd_unavailable", "Busy."))):
        gateway = Gateway(*[refusal] * retrying.MAX_TRIES)
        with pytest.raises(errors.HerdUnavailable) as raised:
            client(gateway).submit("Hi", 10)
        assert "taken" not in raised.value.message
        assert raised.value.data == {}


def test_a_result_is_waited_for_while_the_gateway_is_away(slept):
    away = [httpx.ConnectError("no"), (503, told("herd_unavailable", "Busy."))] * 20
    gateway = Gateway(order("queued"), *away, order())
    assert client(gateway).submit("Hi", 10).result().text == "so it is"
    assert max(slept) <= retrying.MAX_PAUSE_S


def test_a_result_is_waited_for_no_longer_than_asked(slept):
    gateway = Gateway(order("queued"), *[httpx.ConnectError("no")] * retrying.MAX_TRIES)
    made = client(gateway).submit("Hi", 10)
    with pytest.raises(errors.HerdUnavailable):
        made.result(timeout=0)
    assert set(slept) == set(), "no time is left to wait in"


def test_a_gateway_that_holds_no_lines_is_not_asked_without_a_pause(slept, monkeypatch):
    monkeypatch.setattr(sync, "HOT_S", 60.0)  # however slow this machine is, it answers sooner
    gateway = Gateway(order("queued"), *[order("queued", text=None, usage=None)] * 3, order())
    client(gateway).submit("Hi", 10).result()
    assert slept == [60.0] * 3


@pytest.mark.parametrize("key", ["", "ключ", "a\nb", " a", 7])
def test_a_key_that_no_header_holds_is_refused(key):
    with pytest.raises(errors.InvalidIdempotencyKey):
        client(Gateway()).submit("Hi", 10, idempotency_key=key)


def test_a_result_is_waited_for_and_raises_how_it_ended(slept):
    gateway = Gateway(order("queued"), order("queued", text=None, usage=None), order())
    made = client(gateway).submit("Hi", 10)
    result = made.result()
    assert (result.text, result.usage.generated, result.reference) == ("so it is", 10, "r")
    assert [one.url.params.get("wait") for one in gateway.sent[1:]] == ["30", "30"]
    gateway.answers = [order("failed", text=None, usage=None)]
    with pytest.raises(errors.OrderFailed):
        made.result()
    gateway.answers = [order("running", text=None, usage=None)]
    with pytest.raises(errors.ResultTimeout, match="running"):
        made.result(timeout=0)


def test_times_travel_with_their_zone_and_accounts_do_not():
    asked = calls.quote_call("Hi", 5, {"start_by": datetime(2030, 1, 1, tzinfo=UTC), "raw": False})
    assert sent(asked) == {"prompt": "Hi", "tokens": 5, "start_by": "2030-01-01T00:00:00+00:00"}
    asked = calls.order_call("Hi", 5, {"raw": True, "special": True}, "k")
    assert sent(asked) == {"prompt": "Hi", "tokens": 5, "raw": True, "special": True}
    asked = calls.order_call("Hi", 5, {"special": False, "continue_final_message": False}, "k")
    assert sent(asked) == {"prompt": "Hi", "tokens": 5}, "gateways of before know neither"
    told = {"reasoning_effort": None, "chat_template_kwargs": {"enable_thinking": False}}
    asked = calls.order_call("Hi", 5, told, "k")
    assert sent(asked)["chat_template_kwargs"] == {"enable_thinking": False}
    assert "reasoning_effort" not in sent(asked)
    counted = {"prompt": "Hi", "chat_template_kwargs": {"enable_thinking": False}}
    assert sent(calls.count_call("Hi", told)) == counted
    told["chat_template_kwargs"] = MappingProxyType({"enable_thinking": False})
    for asked in (calls.order_call("Hi", 5, told, "k"), calls.count_call("Hi", told)):
        assert sent(asked)["chat_template_kwargs"] == {"enable_thinking": False}
    with pytest.raises(errors.InvalidRequest, match="API key"):
        calls.quote_call("Hi", 5, {"account": "ada"})


def test_a_quote_is_asked_for_and_named():
    curve = [{"fee": 26, "multiplier": "2", "place": 1, "place_exact": True, "wait_s": None}]
    found = {
        **{name: RECEIPT[name] for name in ("account", "model", "words", "tokens", "rates")},
        "needed": 12,
        "fee": 24,
        "multiplier": "2",
        "place": 1,
        "place_exact": True,
        "wait_s": 3,
        "waiting_for_workers": False,
        "curve": curve,
        "expires": "2030-01-01T00:00:00+00:00",
        "quote": "a.b.c",
        "newer": 1,
    }
    gateway = Gateway(found, order())
    web = client(gateway)
    quote = web.quote("Hi", 10, bids=[{"fee": 26}])
    assert json.loads(gateway.sent[0].content)["bids"] == [{"fee": 26}]
    assert (quote.curve[0].fee, quote.curve[0].place, quote.rates.prompt_fee) == (26, 1, 1)
    web.submit("Hi", 10, quote=quote.quote)
    assert json.loads(gateway.sent[1].content)["quote"] == "a.b.c"


def test_a_restart_is_told_with_what_was_shown():
    text = sse.TextOf("o1")
    assert text.take(ServerSentEvent("text", '{"text": "abc"}', "1.3")) == "abc"
    assert text.last == "1.3"
    assert text.take(ServerSentEvent("place", '{"place": 1}', "1.3")) == ""
    with pytest.raises(errors.StreamRestarted, match="3 characters"):
        text.take(ServerSentEvent("restart", '{"shown": 3}'))


def test_a_restart_is_no_matter_to_who_was_shown_nothing():
    text = sse.TextOf("o1")
    assert text.take(ServerSentEvent("reasoning", '{"text": "hm"}', "1.2")) == ""
    assert text.take(ServerSentEvent("restart", '{"shown": 2}')) == ""
    assert text.take(ServerSentEvent("text", '{"text": "abc"}', "2.3")) == "abc"
    assert text.last == "2.3"


def test_a_program_goes_over_http_where_it_is_told_to(monkeypatch):
    from herder.client import api as library

    monkeypatch.setattr(library, "_connected", None)
    monkeypatch.setenv("HERD_URL", "herd.example")
    with pytest.raises(errors.SetupError, match="HERD_URL"):
        connect()
    monkeypatch.setenv("HERD_URL", "https://herd.example")
    with pytest.raises(errors.SetupError, match="HERD_API_KEY"):
        connect()
    monkeypatch.setenv("HERD_API_KEY", "herd_k_s")
    assert isinstance(connect(), sync.RemoteHerd)


async def _async_story():
    gateway = Gateway(order("queued"), httpx.ReadError("cut"), order())
    async with AsyncClient("http://gateway", "k", transport=gateway.transport) as herd:
        made = await herd.submit("Hi", 10)
        return (await made.result()).text


def test_the_same_for_programs_with_an_event_loop():
    import asyncio

    assert asyncio.run(_async_story()) == "so it is"
