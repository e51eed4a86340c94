"""OpenAI's routes, with the published `openai` package, unmodified, as the client."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import openai
import pytest

from tests.support.wait import wait_for

USAGE = {"include_usage": True}
HI = [{"role": "user", "content": "What is it?"}]


@pytest.fixture
def key(herd):
    _, shown = herd.client.api_keys.create("default")
    return shown


@pytest.fixture
def gateway(herd):
    _, url = herd.start_gateway(HERD_MODEL_ALIASES="gpt-4o-mini=stub", HERD_DEFAULT_TOKENS="12")
    return url


@pytest.fixture
def client(gateway, key):
    with openai.OpenAI(base_url=f"{gateway}/v1", api_key=key, max_retries=0) as made:
        yield made


def test_a_chat_is_answered_and_paid(herd, client):
    herd.start_worker()
    answer = client.chat.completions.create(
        model="gpt-4o-mini", messages=HI, max_tokens=7, extra_body={"fee": 40}
    )
    assert answer.object == "chat.completion"
    assert answer.model == "stub"
    (choice,) = answer.choices
    assert (choice.message.role, choice.finish_reason) == ("assistant", "length")
    assert len(choice.message.content.split()) == 7
    assert answer.usage.completion_tokens == 7
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 7
    order = answer.id.removeprefix("chatcmpl-")
    receipt = herd.client.receipt(order)
    assert (receipt.fee, receipt.charged, receipt.tokens) == (40, 40, 7)
    assert answer.receipt["charged"] == 40
    assert herd.client.accounts.balance("default").available == 1_000_000 - 40


def test_a_completion_gets_the_prompt_as_it_is(herd, client):
    herd.start_worker()
    answer = client.completions.create(model="stub", prompt="Once [[end:3]]", stop="ENOUGH")
    assert answer.object == "text_completion"
    assert (answer.choices[0].finish_reason, answer.usage.completion_tokens) == ("stop", 3)
    raw = answer.usage.prompt_tokens
    chat = client.chat.completions.create(
        model="stub", messages=[{"role": "user", "content": "Once [[end:3]]"}]
    )
    assert chat.usage.prompt_tokens > raw, "a template has words of its own"
    order = herd.client.receipt(answer.id.removeprefix("cmpl-"))
    assert order.tokens == 12, "HERD_DEFAULT_TOKENS"


def test_a_stream_gives_the_text_as_it_comes(herd, client):
    herd.start_worker(HERD_STUB_STEP_MS="30")
    stream = client.chat.completions.create(
        model="stub",
        messages=HI,
        max_completion_tokens=30,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk.id for chunk in chunks}) == 1
    assert len(chunks) > 5
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "length"
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == 30
    assert text == herd.client.answer(chunks[0].id.removeprefix("chatcmpl-")).text

    pieces = client.completions.create(model="stub", prompt="Once", max_tokens=5, stream=True)
    said = list(pieces)
    whole = "".join(piece.choices[0].text for piece in said)
    assert whole == herd.client.answer(said[0].id.removeprefix("cmpl-")).text


def test_a_stream_that_waits_is_kept_alive_by_chunks_that_the_package_takes(herd, client):
    """Comments alone do not hold every client: some ask again, and buy a second order."""
    kept_alive = threading.Barrier(4, timeout=120)

    def plain() -> str:
        stream = client.chat.completions.create(
            model="stub", messages=HI, max_tokens=5, stream=True
        )
        text, waits = "", True
        for chunk in stream:
            if not chunk.choices and waits:
                waits = False
                kept_alive.wait()
            text += "".join(choice.delta.content or "" for choice in chunk.choices)
        return text

    def helper() -> str:
        with client.chat.completions.stream(
            model="stub", messages=HI, max_completion_tokens=5, stream_options=USAGE
        ) as stream:
            waits = True
            for event in stream:
                if event.type == "chunk" and not event.chunk.choices and waits:
                    waits = False
                    kept_alive.wait()
            return stream.current_completion_snapshot.choices[0].message.content

    def completion() -> str:
        waits, text = True, ""
        for piece in client.completions.create(
            model="stub", prompt="Once", max_tokens=5, stream=True
        ):
            if not piece.choices and waits:
                waits = False
                kept_alive.wait()
            text += "".join(choice.text for choice in piece.choices)
        return text

    with ThreadPoolExecutor(3) as pool:
        texts = [pool.submit(read) for read in (plain, helper, completion)]
        kept_alive.wait()  # each has had such a chunk, and nobody has answered yet
        herd.start_worker()
        for text in texts:
            assert len(text.result(timeout=60).split()) == 5


def test_stop_strings_and_what_the_sampling_asks_reach_the_worker(herd, client):
    herd.start_worker()
    answer = client.chat.completions.create(
        model="stub",
        messages=[{"role": "user", "content": "[[say:one two STOP three]]"}],
        stop=["STOP"],
        temperature=0.5,
        top_p=0.9,
        seed=1,
        presence_penalty=0.1,
        frequency_penalty=0.1,
        logit_bias={"5": -1},
        n=1,
        user="me",
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "x", "schema": {"type": "object"}},
        },
        extra_body={"top_k": 5, "min_p": 0.1, "repeat_penalty": 1.1},
    )
    assert answer.choices[0].message.content.strip() == "one two"
    order = answer.id.removeprefix("chatcmpl-")
    assert herd.client.receipt(order).reference == "me"
    from sqlalchemy import select

    from herder.db.tables import order_text
    from herder.store import orders as order_sql

    with herd.database.read() as connection:
        stored = select(order_sql.REQUEST).where(order_text.c.order_id == order)
        asked = order_sql.StoredRequest.from_text(connection.execute(stored).scalar_one())
    assert asked.stop == ("STOP",)
    sampling = asked.sampling
    assert (sampling.temperature, sampling.top_p, sampling.seed) == (0.5, 0.9, 1)
    assert (sampling.top_k, sampling.min_p, sampling.repeat_penalty) == (5, 0.1, 1.1)
    assert (sampling.presence_penalty, sampling.frequency_penalty) == (0.1, 0.1)
    assert dict(sampling.logit_bias) == {5: -1}
    assert json.loads(sampling.json_schema) == {"type": "object"}


def test_a_schema_that_cannot_be_followed_costs_nothing(herd, client):
    schema = {"type": "object", "properties": {"a": {"type": "string", "not": {"const": "x"}}}}
    for wanted in (
        {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": schema}},
        {"type": "json_object", "schema": schema},
    ):
        with pytest.raises(openai.BadRequestError, match=r'"not" at #/properties/a') as refused:
            client.chat.completions.create(model="stub", messages=HI, response_format=wanted)
        assert (refused.value.code, refused.value.param) == ("bad_grammar", "response_format")
        assert refused.value.body["data"] == {"keyword": "not", "path": "#/properties/a"}
    for kind, asked in (("json", schema), ("regex", "a(?=b)")):
        with pytest.raises(openai.BadRequestError) as refused:
            client.chat.completions.create(
                model="stub", messages=HI, extra_body={"structured_outputs": {kind: asked}}
            )
        where = (refused.value.code, refused.value.param)
        assert where == ("bad_grammar", f"structured_outputs.{kind}")
    assert herd.client.accounts.balance("default").available == 1_000_000


def test_the_fee_may_come_in_headers_and_stays_within_the_keys_limit(herd, client, gateway):
    herd.start_worker()
    answer = client.chat.completions.create(
        model="stub", messages=HI, max_tokens=7, extra_headers={"X-Fee": "30"}
    )
    assert answer.receipt["fee"] == 30
    twice = client.chat.completions.create(
        model="stub", messages=HI, max_tokens=7, extra_headers={"X-Multiplier": "2"}
    )
    assert twice.receipt["bid_factor"] == "2"
    assert twice.receipt["automatic"]
    both = client.chat.completions.create(
        model="stub", messages=HI, max_tokens=7, extra_body={"multiplier": 1.5, "max_fee": 500}
    )
    assert both.receipt["bid_factor"] == "1.5"
    with pytest.raises(openai.APIStatusError) as refused:
        client.chat.completions.create(
            model="stub", messages=HI, max_tokens=7, extra_headers={"X-Max-Fee": "2"}
        )
    assert (refused.value.status_code, refused.value.code) == (402, "fee_above_max")
    for price in ({"extra_headers": {"X-Fee": "base"}}, {"extra_body": {"fee": "base"}}):
        paid = client.chat.completions.create(model="stub", messages=HI, max_tokens=7, **price)
        assert paid.receipt["fee"] == paid.receipt["needed"]
        assert (paid.receipt["multiplier"], paid.receipt["automatic"]) == ("1", False)
    _, shown = herd.client.api_keys.create("default", max_fee=20)
    bounded = openai.OpenAI(base_url=f"{gateway}/v1", api_key=shown, max_retries=0)
    with pytest.raises(openai.APIStatusError) as refused:
        bounded.chat.completions.create(
            model="stub", messages=HI, max_tokens=7, extra_headers={"X-Fee": "30"}
        )
    assert (refused.value.status_code, refused.value.code) == (402, "key_limit_reached")


def test_errors_are_those_that_the_package_knows(herd, client, gateway):
    def ask(**given):
        call = {"model": "stub", "messages": HI, "max_tokens": 5, **given}
        return client.chat.completions.create(**call)

    with pytest.raises(openai.BadRequestError, match="tools") as refused:
        ask(tools=[{"type": "function", "function": {"name": "f"}}])
    assert refused.value.param == "tools"
    with pytest.raises(openai.BadRequestError) as refused:
        ask(n=2)
    assert refused.value.param == "n"
    with pytest.raises(openai.NotFoundError) as refused:
        ask(model="gpt-99")
    assert refused.value.code == "model_not_found"
    stranger = openai.OpenAI(base_url=f"{gateway}/v1", api_key="sk-no", max_retries=0)
    with pytest.raises(openai.AuthenticationError) as refused:
        stranger.models.list()
    assert (refused.value.status_code, refused.value.type) == (401, "authentication_error")
    _, shown = herd.client.api_keys.create("default", scopes=["read"])
    reader = openai.OpenAI(base_url=f"{gateway}/v1", api_key=shown, max_retries=0)
    assert list(reader.models.list())
    with pytest.raises(openai.PermissionDeniedError) as refused:
        reader.completions.create(model="stub", prompt="a")
    assert refused.value.code == "forbidden"
    once = {"model": "stub", "stream": True, "extra_headers": {"Idempotency-Key": "once"}}
    client.completions.create(prompt="a", **once).close()
    with pytest.raises(openai.UnprocessableEntityError) as refused:
        client.completions.create(prompt="b", **once)
    assert refused.value.code == "idempotency_key_reused"
    with pytest.raises(openai.APIStatusError) as refused:
        ask(messages=[{"role": "user", "content": "a" * 2_000_000}])
    assert (refused.value.status_code, refused.value.code) == (413, "body_too_long")
    for price in ({"extra_body": {"fee": 1}}, {"extra_headers": {"X-Fee": "1"}}):
        with pytest.raises(openai.APIStatusError) as refused:
            ask(**price)
        assert (refused.value.status_code, refused.value.code) == (402, "fee_too_low")
        assert refused.value.type == "insufficient_quota"
    with pytest.raises(openai.APIStatusError) as refused:
        ask(extra_body={"max_fee": 2})
    assert (refused.value.status_code, refused.value.code) == (402, "fee_above_max")
    with pytest.raises(openai.APIStatusError) as refused:
        ask(extra_body={"fee": 10_000_000})
    assert (refused.value.status_code, refused.value.code) == (402, "insufficient_balance")
    herd.client.accounts.set_limits("default", max_open_orders=None, tokens_per_minute=10)
    client.completions.create(model="stub", prompt="a", max_tokens=6, stream=True).close()
    with pytest.raises(openai.RateLimitError) as refused:
        client.completions.create(model="stub", prompt="a", max_tokens=6)
    assert int(refused.value.response.headers["retry-after"]) > 0


IMAGE = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]


@pytest.mark.parametrize(
    ("param", "given"),
    [
        ("n", {"n": 2}),
        ("tools", {"tools": [{"type": "function", "function": {"name": "f"}}]}),
        ("functions", {"functions": [{"name": "f"}]}),
        ("logprobs", {"logprobs": True}),
        ("top_logprobs", {"top_logprobs": 3}),
        ("messages.0.content.0", {"messages": [{"role": "user", "content": IMAGE}]}),
        ("audio", {"audio": {"format": "wav", "voice": "alloy"}}),
        ("reasoning_effort", {"reasoning_effort": "extreme"}),
        ("chat_template_kwargs", {"extra_body": {"chat_template_kwargs": {"tools": True}}}),
        ("service_tier", {"service_tier": "flex"}),
        ("web_search_options", {"web_search_options": {}}),
        ("invented", {"extra_body": {"invented": 1}}),
    ],
)
def test_what_is_not_honoured_is_refused_by_its_name(herd, client, param, given):
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(**{"model": "stub", "messages": HI, **given})
    assert refused.value.param == param
    assert herd.client.orders() == []


def test_a_refusal_for_being_too_many_says_when_to_come_back_and_the_package_does(
    herd, gateway, key
):
    herd.start_worker()
    herd.client.accounts.set_limits("default", max_open_orders=1, tokens_per_minute=None)
    first = herd.submit("[[hang]]", 5, account="default")
    herd.running(first)
    hasty = openai.OpenAI(base_url=f"{gateway}/v1", api_key=key, max_retries=0)
    with pytest.raises(openai.RateLimitError) as refused:
        hasty.completions.create(model="stub", prompt="a", max_tokens=5)
    assert refused.value.code == "rate_limited"
    assert int(refused.value.response.headers["retry-after"]) >= 1
    with ThreadPoolExecutor(1) as pool:
        patient = openai.OpenAI(base_url=f"{gateway}/v1", api_key=key, max_retries=20)
        answer = pool.submit(patient.completions.create, model="stub", prompt="a", max_tokens=5)
        first.cancel()
        assert answer.result(timeout=60).usage.completion_tokens == 5


def test_a_herd_that_fails_is_not_the_callers_fault(herd, client):
    herd.start_worker()
    with pytest.raises(openai.BadRequestError) as refused:
        client.completions.create(model="stub", prompt="[[fail]]", max_tokens=5)
    assert refused.value.code == "stub_failure"
    with pytest.raises(openai.InternalServerError) as refused:
        client.completions.create(model="stub", prompt="[[trouble]]", max_tokens=5)
    assert refused.value.status_code == 503
    assert refused.value.response.headers["retry-after"] == "1"
    with pytest.raises(openai.APIError) as broken:
        list(client.completions.create(model="stub", prompt="[[fail:3]]", stream=True))
    assert broken.value.code == "stub_failure"
    assert herd.client.accounts.balance("default").available == 1_000_000


def test_a_prompt_that_does_not_fit_is_a_bad_request_and_costs_nothing(herd, client):
    herd.start_worker(HERD_CONTEXT="64")
    long = [{"role": "user", "content": "word " * 80}]
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="stub", messages=long)
    assert refused.value.code == "context_length_exceeded"
    with pytest.raises(openai.APIError) as broken:
        list(client.chat.completions.create(model="stub", messages=long, stream=True))
    assert broken.value.code == "context_length_exceeded"
    assert herd.client.accounts.balance("default").available == 1_000_000


def test_a_stream_whose_worker_is_lost_ends_with_an_error_and_is_cancelled(herd, client):
    worker = herd.start_worker(HERD_STUB_STEP_MS="50")
    stream = client.chat.completions.create(model="stub", messages=HI, max_tokens=200, stream=True)
    order = stream.response.headers["x-order"]
    wait_for(lambda: herd.client.receipt(order).state == "running", "it runs")
    # A chunk without choices keeps a line alive where a machine takes its time.
    next(chunk for chunk in stream if chunk.choices and chunk.choices[0].delta.content)
    worker.kill()
    herd.start_worker(HERD_STUB_STEP_MS="50")
    with pytest.raises(openai.APIError) as broken:
        list(stream)
    assert broken.value.code == "stream_restarted"
    wait_for(lambda: herd.client.receipt(order).state == "cancelled", "it is cancelled")


@pytest.mark.parametrize("stream", [True, False])
def test_a_caller_who_goes_away_cancels_the_order(herd, gateway, key, stream):
    herd.start_worker(HERD_STUB_STEP_MS="50")
    body = {"model": "stub", "messages": HI, "max_tokens": 1000, "stream": stream}
    headers = {"Authorization": f"Bearer {key}"}
    url = f"{gateway}/v1/chat/completions"
    with httpx.Client(timeout=60 if stream else 1.5) as browser:
        if stream:
            with browser.stream("POST", url, json=body, headers=headers) as answer:
                order = answer.headers["x-order"]
                next(answer.iter_lines())
        else:
            with pytest.raises(httpx.ReadTimeout):
                browser.post(url, json=body, headers=headers)
            (receipt,) = wait_for(lambda: herd.client.orders(account="default"), "it is taken")
            order = receipt.order
    wait_for(lambda: herd.client.receipt(order).state == "cancelled", "it is cancelled")


def test_models_are_listed_with_their_other_names(herd, client):
    found = {model.id: model for model in client.models.list()}
    assert set(found) == {"stub", "gpt-4o-mini"}
    assert found["gpt-4o-mini"].alias_of == "stub"
    assert found["stub"].rates == {"prompt_fee": 1, "fee_per_token": 1}


def test_thirty_two_at_once(herd, gateway, key):
    herd.start_worker(HERD_SLOTS="8", HERD_STUB_STEP_MS="2")

    async def all_of_them():
        async with openai.AsyncOpenAI(base_url=f"{gateway}/v1", api_key=key) as client:

            async def one(number):
                call = {"model": "stub", "max_tokens": 10}
                asked = [{"role": "user", "content": f"Number {number}"}]
                if number % 2:
                    answer = await client.chat.completions.create(messages=asked, **call)
                    return answer.choices[0].message.content
                stream = await client.chat.completions.create(messages=asked, stream=True, **call)
                return "".join([c.choices[0].delta.content or "" async for c in stream])

            return await asyncio.gather(*(one(number) for number in range(32)))

    texts = asyncio.run(all_of_them())
    assert all(len(text.split()) == 10 for text in texts)
    assert len(set(texts)) > 16, "each has its own"


def test_an_order_ended_by_its_run_limit_is_an_answer(herd, client):
    herd.start_worker(HERD_STUB_STEP_MS="100")
    begin = time.monotonic()
    answer = client.chat.completions.create(
        model="stub", messages=HI, max_tokens=500, extra_body={"run_limit_s": 1}
    )
    assert time.monotonic() - begin < 60
    assert answer.choices[0].finish_reason == "length"
    assert answer.choices[0].message.content
    assert answer.receipt["state"] == "expired"
    assert 0 < answer.receipt["charged"] < answer.receipt["fee"]
