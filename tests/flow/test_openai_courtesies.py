"""What programs send to OpenAI's routes by habit, with the published package as the client."""

from __future__ import annotations

import json

import httpx
import openai
import pytest
from sqlalchemy import select

from herder.db.tables import order_text
from herder.store import orders as order_sql
from tests.support.typed import typed

HI = [{"role": "user", "content": "What is it?"}]


@pytest.fixture
def client(herd):
    herd.start_worker()
    _, url = herd.start_gateway()
    _, key = herd.client.api_keys.create("default")
    with openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0) as made:
        yield made


def sampling_of(herd, order):
    with herd.database.read() as connection:
        stored = select(order_sql.REQUEST).where(order_text.c.order_id == order)
        return order_sql.StoredRequest.from_text(connection.execute(stored).scalar_one()).sampling


def test_an_answer_may_go_on_where_the_model_would_end(herd, client):
    short = [{"role": "user", "content": "Say it. [[end:3]]"}]
    call = {"model": "stub", "messages": short, "max_tokens": 9}
    ended = client.chat.completions.create(**call)
    assert (ended.choices[0].finish_reason, ended.usage.completion_tokens) == ("stop", 3)
    whole = client.chat.completions.create(**call, extra_body={"ignore_eos": True})
    assert (whole.choices[0].finish_reason, whole.usage.completion_tokens) == ("length", 9)
    assert sampling_of(herd, whole.id.removeprefix("chatcmpl-")).ignore_eos
    before = herd.client.accounts.balance("default")
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(
            **call, response_format={"type": "json_object"}, extra_body={"ignore_eos": True}
        )
    assert refused.value.code == "invalid_sampling"
    assert refused.value.body["message"].startswith("ignore_eos goes on where an answer ends")
    assert herd.client.accounts.balance("default") == before


def test_what_programs_send_by_habit_is_taken(herd, client):
    habits = {
        "service_tier": "auto",
        "store": True,
        "verbosity": "low",
        "function_call": "none",
        "safety_identifier": "somebody",
        "prompt_cache_key": "cache",
        "prediction": None,
        "seed": 2**63,
        "top_p": 0,
        "user": "u" * 1000,
    }
    answer = client.chat.completions.create(
        model="stub", messages=HI, max_tokens=5, **habits, extra_body={"repetition_penalty": 1.5}
    )
    assert answer.service_tier == "default"
    order = answer.id.removeprefix("chatcmpl-")
    assert herd.client.receipt(order).reference == "u" * 256
    sampling = sampling_of(herd, order)
    assert sampling.repeat_penalty == 1.5
    assert 0 <= sampling.seed < 2**32 - 1
    assert 0 < sampling.top_p < 1e-6
    # An answer's own message, as the package dumps it, is a turn of the next call.
    said = answer.choices[0].message
    turns = [*HI, {**said.model_dump(), "annotations": [], "tool_calls": []}, *HI]
    stream = client.chat.completions.create(
        model="stub",
        messages=turns,
        max_tokens=5,
        seed=-1,
        stream=True,
        stream_options={"include_usage": True, "continuous_usage_stats": True},
    )
    chunks = list(stream)
    assert chunks[-1].usage.completion_tokens == 5
    assert {chunk.service_tier for chunk in chunks} == {"default"}
    order = chunks[0].id.removeprefix("chatcmpl-")
    assert sampling_of(herd, order).seed is None


def test_metadata_and_the_requests_id_are_kept_with_the_order_and_shown(herd, client):
    metadata = {"ticket": "4711", "team": "herders\x1b[2J"}
    with client.chat.completions.with_streaming_response.create(
        model="stub",
        messages=HI,
        max_tokens=5,
        metadata=metadata,
        extra_headers={"X-Request-Id": "mine-1", "Idempotency-Key": "noted"},
    ) as answer:
        assert answer.headers["x-request-id"] == "mine-1"
        order = answer.headers["x-order"]
        answer.read()
    result = herd.client.result(order, 60)
    assert (result.metadata, result.request_id) == (metadata, "mine-1")
    told = json.loads(typed(herd, "order", "show", order, "--json").communicate(timeout=60)[0])
    assert (told["metadata"], told["request_id"]) == (metadata, "mine-1")
    shown = typed(herd, "order", "show", order).communicate(timeout=60)[0].splitlines()
    assert "request id       mine-1" in shown
    assert "metadata ticket  4711" in shown
    assert "\x1b" not in "".join(shown)
    headers = {"Authorization": f"Bearer {client.api_key}"}
    told = httpx.get(f"{client.base_url}orders/{order}", headers=headers).json()
    assert (told["metadata"], told["request_id"]) == (metadata, "mine-1")
    # The same key with other metadata is another call, as with any other parameter.
    with pytest.raises(openai.UnprocessableEntityError, match="metadata"):
        client.chat.completions.create(
            model="stub",
            messages=HI,
            max_tokens=5,
            metadata={"ticket": "4712"},
            extra_headers={"Idempotency-Key": "noted"},
        )
    # What stood with the prompt goes with the prompt.
    herd.client.purge(order=order)
    assert herd.client.answer(order).metadata is None
    many = {str(number): "x" for number in range(17)}
    for wrong in ({"a": 1}, {"a": "x" * 513}, {"n" * 65: "x"}, many):
        with pytest.raises(openai.BadRequestError) as refused:
            client.chat.completions.create(model="stub", messages=HI, metadata=wrong)
        assert refused.value.param.partition(".")[0] == "metadata"


def test_each_answer_has_a_request_id_even_a_refusal(herd, client):
    def ask(path, **headers):
        return httpx.get(str(client.base_url).removesuffix("/v1/") + path, headers=headers)

    drawn = [ask("/healthz").headers["x-request-id"] for _ in range(2)]
    assert len(set(drawn)) == 2
    assert ask("/v1/info", **{"X-Request-Id": "no-key"}).headers["x-request-id"] == "no-key"
    assert ask("/nowhere", **{"X-Request-Id": "n"}).headers["x-request-id"] == "n"
    for unfit in ("a b", "x" * 129, ""):
        assert ask("/healthz", **{"X-Request-Id": unfit}).headers["x-request-id"] not in (unfit, "")
    taken = httpx.post(
        f"{client.base_url}orders",
        json={"prompt": "Hi", "tokens": 5},
        headers={"Authorization": f"Bearer {client.api_key}", "X-Request-Id": "own"},
    ).json()
    assert herd.client.answer(taken["id"]).request_id == "own"
