"""Quotes that bind, over a real gateway, with the client library and with the `herd` command."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import httpx
import pytest

import herder
from herder.domain.signed_tokens import read_quote, sign_quote
from herder.errors import InvalidQuote, QuoteExpired, QuoteMismatch
from herder.herd.herder_key import load_herder_key
from herder.market.policy import set_rates
from tests.support.running import HERD

PROMPT = "What is the meaning of life?"


@pytest.fixture
def key(herd):
    _, shown = herd.client.api_keys.create("default")
    return shown


@pytest.fixture
def url(herd):
    _, found = herd.start_gateway()
    return found


@pytest.fixture
def web(url, key):
    with herder.Client(url, key) as client:
        yield client


def expired(herd, token):
    """The same quote, as it would be an hour later: signed by the herder, and over."""
    terms = read_quote(token, herd.client.public_keys())
    key = load_herder_key(herd.client.settings)
    return sign_quote(replace(terms, expires_s=terms.expires_s - 3600), key, 1)


def test_a_quoted_order_is_charged_by_what_was_quoted(herd, web):
    quote = web.quote(PROMPT, 20)
    set_rates(herd.client.database, "stub", prompt_fee=70, fee_per_token=9)
    assert web.quote(PROMPT, 20).needed == 70 + 26 * 9
    herd.start_worker()
    order = web.submit(PROMPT, 20, quote=quote.quote)
    receipt = order.result(timeout=60).receipt
    assert (receipt.needed, receipt.fee, receipt.charged) == (27, 27, 27)
    assert receipt.rates == herder.Rate(1, 1)
    assert receipt.automatic
    more = web.submit(PROMPT, 20, quote=quote.quote, multiplier=2)
    assert more.fee == 54
    more.cancel()


def test_what_is_no_quote_for_this_order_is_refused_and_costs_nothing(herd, url, web):
    quote = web.quote(PROMPT, 20)
    old = expired(herd, quote.quote)
    with pytest.raises(QuoteExpired) as refused:
        web.submit(PROMPT, 20, quote=old)
    assert refused.value.data["expires"] < quote.expires
    with pytest.raises(QuoteMismatch, match="tokens"):
        web.submit(PROMPT, 21, quote=quote.quote)
    receipt = herd.client.signed_receipt(herd.submit().id)
    for forged in (receipt, quote.quote[:-6] + "AAAAAA", "x"):
        with pytest.raises(InvalidQuote):
            web.submit(PROMPT, 20, quote=forged)
    herd.client.accounts.create("bob")
    herd.client.accounts.deposit("bob", 1000, "0b0e9f0e-6a0e-4f0c-9d5e-1f0c7c2f3b11")
    _, others = herd.client.api_keys.create("bob")
    with herder.Client(url, others) as bob, pytest.raises(QuoteMismatch, match="account"):
        bob.submit(PROMPT, 20, quote=quote.quote)
    assert len(herd.client.orders()) == 1


def test_over_http_the_refusals_have_their_status(herd, url, key):
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}) as web:
        asked = {"prompt": PROMPT, "tokens": 20}
        quote = web.post("/v1/quotes", json=asked).json()
        for changes, status, code in (
            ({"quote": expired(herd, quote["quote"])}, 409, "quote_expired"),
            ({"quote": quote["quote"], "tokens": 5}, 400, "quote_mismatch"),
            ({"quote": "none"}, 400, "invalid_quote"),
            ({"quote": 5}, 400, "invalid_request"),
            ({"quote": quote["quote"], "fee": 5}, 402, "fee_too_low"),
        ):
            answer = web.post("/v1/orders", json={**asked, **changes})
            assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
        headers = {"Idempotency-Key": "k"}
        named = {**asked, "quote": quote["quote"]}
        first, again = (web.post("/v1/orders", json=named, headers=headers) for _ in range(2))
        assert first.status_code == 202
        assert first.json()["id"] == again.json()["id"]
        other = web.post("/v1/orders", json=asked, headers=headers)
        assert (other.status_code, other.json()["error"]["code"]) == (422, "idempotency_key_reused")


def test_the_curve_is_the_same_from_everywhere(herd, web, url, key):
    for fee in (27, 40, 60):
        herd.submit(PROMPT, 20, fee=fee)
    bids = [{"fee": 30}, {"multiplier": 1.5}, {"multiplier": "4"}]
    found = web.quote(PROMPT, 20, bids=bids).curve
    assert [(bid.fee, bid.place) for bid in found] == [(30, 3), (41, 2), (108, 1)]
    assert found == herd.client.quote(PROMPT, 20, account="default", bids=bids).curve

    async def asked():
        async with herder.AsyncClient(url, key) as client:
            quote = await client.quote(PROMPT, 20, bids=bids)
            order = await client.submit(PROMPT, 20, quote=quote.quote)
            await order.cancel()
            return quote, order

    quote, order = asyncio.run(asked())
    assert quote.curve == found
    assert order.fee == quote.fee
    headers = {"Authorization": f"Bearer {key}"}
    asking = {"prompt": PROMPT, "tokens": 20, "bids": [*bids, {"fee": 5}]}
    answer = httpx.post(f"{url}/v1/quotes", json=asking, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (402, "fee_too_low")
    answer = httpx.post(f"{url}/v1/quotes", json=asking | {"bids": [{}]}, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_bids")
    usual = httpx.post(f"{url}/v1/quotes", json=asking | {"bids": None}, headers=headers).json()
    assert [bid["fee"] for bid in usual["curve"]] == [27, 30, 34, 41, 54, 81, 135, 270]


def test_a_person_orders_what_was_quoted(herd):
    def typed(*words):
        child = herd.start(f"typed{len(words)}{words[0]}", list(words), HERD)
        assert child.ended() == 0, child.log
        return child.log[child.log.index("{") :] if "--json" in words else child.log

    quote = json.loads(typed("quote", PROMPT, "-n", "20", "--bid", "2x", "--json"))
    assert [bid["fee"] for bid in quote["curve"]] == [54]
    typed("model", "set", "stub", "--prompt-fee", "400")
    herd.start_worker()
    asked = ("submit", PROMPT, "-n", "20", "--quote", quote["quote"], "--json")
    result = json.loads(typed(*asked))
    assert (result["receipt"]["charged"], result["receipt"]["needed"]) == (27, 27)
