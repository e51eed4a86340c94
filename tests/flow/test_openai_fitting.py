"""Calls of OpenAI's routes without a number of tokens, or with one above what fits."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import httpx
import openai
import pytest
from pydantic import BaseModel

from tests.support.wait import wait_for

HI = [{"role": "user", "content": "What is it?"}]
LONG = 700
"""Words of an answer that the former default of 256 tokens had cut."""


@pytest.fixture
def gateway(herd):
    _, url = herd.start_gateway()
    return url


@pytest.fixture
def buyer(herd, gateway):
    """Makes a client for an account that has so much and no more."""
    made = []

    def make(amount, **key):
        name = f"buyer{len(made)}"
        herd.client.accounts.create(name)
        if amount:
            herd.client.accounts.deposit(name, amount, str(uuid4()))
        _, shown = herd.client.api_keys.create(name, **key)
        client = openai.OpenAI(base_url=f"{gateway}/v1", api_key=shown, max_retries=0, timeout=120)
        made.append(client)
        return client, name

    yield make
    for client in made:
        client.close()


def receipt_of(herd, answer):
    return herd.client.receipt(answer.id.partition("-")[2])


class Said(BaseModel):
    """An answer that a program parses."""

    said: str


def test_an_answer_ends_by_itself_however_long_and_programs_can_parse_it(herd, buyer):
    herd.start_worker()
    client, name = buyer(100_000)
    text = Said(said=" ".join(["llama"] * LONG)).model_dump_json()
    asked = [{"role": "user", "content": f"[[say:{text} STOP]]"}]
    answer = client.chat.completions.parse(
        model="stub", messages=asked, stop="STOP", response_format=Said
    )
    assert answer.choices[0].finish_reason == "stop"
    assert len(answer.choices[0].message.parsed.said.split()) == LONG
    receipt = receipt_of(herd, answer)
    assert receipt.charged < receipt.fee
    assert receipt.charged == 1 + receipt.words + receipt.generated
    assert herd.client.balance(name).available == 100_000 - receipt.charged


def test_an_answer_that_does_not_end_has_what_the_prompt_leaves_of_the_context(herd, buyer):
    herd.start_worker(HERD_CONTEXT="64")
    client, name = buyer(100_000)
    charged = 0
    for ask, given in (
        (client.chat.completions, {"messages": HI}),
        (client.completions, {"prompt": "Once upon"}),
    ):
        answer = ask.create(model="stub", **given)
        assert answer.choices[0].finish_reason == "length"
        assert answer.usage.total_tokens == 64
        assert answer.usage.max_tokens == answer.usage.completion_tokens
        assert not hasattr(answer.usage, "max_tokens_requested") or (
            answer.usage.max_tokens_requested is None
        )
        charged += receipt_of(herd, answer).charged
        chunks = list(
            ask.create(model="stub", stream=True, stream_options={"include_usage": True}, **given)
        )
        assert chunks[-1].usage.total_tokens == 64
        charged += receipt_of(herd, chunks[0]).charged
    assert herd.client.balance(name).available == 100_000 - charged


def test_a_number_above_what_fits_is_cut_and_the_answer_says_so(herd, buyer):
    herd.start_worker(HERD_CONTEXT="64")
    client, _ = buyer(100_000)
    raw = client.chat.completions.with_raw_response
    for name in ("max_tokens", "max_completion_tokens"):
        told = raw.create(model="stub", messages=HI, **{name: 128_000})
        answer = told.parse()
        fitted = answer.usage.completion_tokens
        assert answer.choices[0].finish_reason == "length"
        assert answer.usage.prompt_tokens + fitted == 64
        assert (answer.usage.max_tokens, answer.usage.max_tokens_requested) == (fitted, 128_000)
        assert told.headers["x-max-tokens"] == str(fitted)
        assert told.headers["x-max-tokens-requested"] == "128000"
    told = raw.create(model="stub", messages=HI, max_tokens=2_000_000, stream=True)
    assert told.headers["x-max-tokens"] == str(fitted)
    assert told.headers["x-max-tokens-requested"] == "2000000"
    assert len(list(told.parse())) > 1
    told = raw.create(model="stub", messages=HI, max_tokens=5)
    assert told.headers["x-max-tokens"] == "5"
    assert "x-max-tokens-requested" not in told.headers
    assert "max_tokens_requested" not in told.parse().usage.model_dump()


def test_what_was_asked_before_a_worker_came_is_cut_to_its_context(herd, buyer):
    client, name = buyer(100_000)

    def ask(tokens):
        return client.chat.completions.create(model="stub", messages=HI, **tokens)

    with ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(ask, one) for one in ({}, {"max_tokens": 32_000}, {"max_tokens": 90})]
        wait_for(lambda: len(herd.client.orders(account=name)) == 3, "they wait")
        herd.start_worker(HERD_CONTEXT="64")
        answers = [one.result(timeout=120) for one in asked]
    for answer in answers:
        assert answer.choices[0].finish_reason == "length"
        assert answer.usage.total_tokens == 64
    charged = sum(receipt_of(herd, answer).charged for answer in answers)
    assert herd.client.balance(name).available == 100_000 - charged


def test_what_the_prompt_alone_exceeds_is_refused(herd, buyer):
    herd.start_worker(HERD_CONTEXT="64")
    client, name = buyer(1000)
    for tokens in ({}, {"max_tokens": 32_000}):
        with pytest.raises(openai.BadRequestError) as refused:
            client.completions.create(model="stub", prompt="word " * 64, **tokens)
        assert refused.value.code == "context_length_exceeded"
        assert "in the prompt, 1 in the completion)" in refused.value.message
    assert herd.client.balance(name).available == 1000


def test_no_more_is_held_than_there_is_and_calls_beside_find_money_too(herd, buyer):
    herd.start_worker()
    client, name = buyer(400)
    hanging = [{"role": "user", "content": "[[hang]]"}]
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(client.chat.completions.create, model="stub", messages=hanging)
        (order,) = wait_for(lambda: herd.client.orders(account=name), "it is taken")
        assert 0 < order.tokens <= 200, "at most half of what there was"
        wait_for(lambda: herd.client.receipt(order.order).state == "running", "it runs")
        beside = client.chat.completions.create(model="stub", messages=HI)
        assert beside.usage.completion_tokens > 0
        assert herd.client.balance(name).held == order.fee
        herd.client.cancel(order.order)
        with pytest.raises(openai.APIError):
            first.result(timeout=120)
    named = client.chat.completions.create(model="stub", messages=HI, max_tokens=32_000)
    assert named.usage.max_tokens_requested == 32_000
    assert herd.client.balance(name).available == 0, "who asks for all may have all"
    for tokens in ({}, {"max_tokens": 32_000}):
        with pytest.raises(openai.APIStatusError) as refused:
            client.chat.completions.create(model="stub", messages=HI, **tokens)
        assert (refused.value.status_code, refused.value.code) == (402, "insufficient_balance")


def test_the_same_call_under_a_key_is_the_same_order_whatever_fits_by_then(herd, buyer):
    herd.start_worker()
    client, name = buyer(400)
    for number, tokens in enumerate(({}, {"max_tokens": 32_000})):
        call = {"model": "stub", "messages": HI, **tokens}
        call["extra_headers"] = {"Idempotency-Key": f"key-{number}"}
        first = client.chat.completions.with_raw_response.create(**call)
        herd.client.accounts.deposit(name, 50_000, str(uuid4()))
        again = client.chat.completions.with_raw_response.create(**call)
        assert again.parse() == first.parse()
        assert again.headers["x-max-tokens"] == first.headers["x-max-tokens"]
        with pytest.raises(openai.UnprocessableEntityError, match="tokens"):
            client.chat.completions.create(**{**call, "max_tokens": 17})
    assert len(herd.client.orders(account=name)) == 2


def test_a_fee_that_is_named_and_a_quote_keep_their_meaning(herd, gateway, buyer):
    herd.start_worker()
    client, _ = buyer(10_000)
    answer = client.chat.completions.create(
        model="stub", messages=HI, extra_headers={"X-Fee": "60"}
    )
    receipt = receipt_of(herd, answer)
    assert (receipt.fee, receipt.needed, receipt.charged) == (60, 60, 60)
    with httpx.Client(headers={"Authorization": f"Bearer {client.api_key}"}) as web:
        asked = {"prompt": "Once upon", "tokens": 9}
        quote = web.post(f"{gateway}/v1/quotes", json=asked, timeout=60).json()
    answer = client.completions.create(
        model="stub", prompt="Once upon", extra_body={"quote": quote["quote"]}
    )
    assert answer.usage.completion_tokens == 9
    assert receipt_of(herd, answer).fee == quote["fee"]
    bounded = client.completions.create(model="stub", prompt="Hi", extra_body={"max_fee": 50})
    assert receipt_of(herd, bounded).fee <= 50
    careful, _ = buyer(10_000, max_fee=40)
    assert receipt_of(herd, careful.completions.create(model="stub", prompt="Hi")).fee <= 40


def test_an_operator_may_bound_what_nobody_named(herd, buyer):
    herd.start_worker()
    _, url = herd.start_gateway(HERD_DEFAULT_TOKENS="12")
    client, _ = buyer(10_000)
    bounded = client.with_options(base_url=f"{url}/v1")
    answer = bounded.chat.completions.create(model="stub", messages=HI)
    assert (answer.usage.completion_tokens, answer.usage.max_tokens) == (12, 12)
    answer = bounded.chat.completions.create(model="stub", messages=HI, max_tokens=20)
    assert answer.usage.completion_tokens == 20
