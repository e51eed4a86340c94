"""A model's reasoning comes apart from its answer, by every way that answers come."""

from __future__ import annotations

import json

import httpx
import openai
import pytest

import herder
from herder.errors import OrderCancelled
from tests.support.wait import wait_for

THINKS = "[[think:hum or not]] [[say:Yes.]] [[end:6]]"
"""Five tokens of a thought, its marks among them, and one of the answer."""
ASK = {"model": "stub", "messages": [{"role": "user", "content": THINKS}], "max_tokens": 50}


@pytest.fixture
def address(herd):
    herd.start_worker()
    _, url = herd.start_gateway()
    _, key = herd.client.api_keys.create("default")
    return url, key


@pytest.fixture
def client(address):
    url, key = address
    with openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0) as made:
        yield made


def streamed(client, **more):
    """(reasoning, content) of a stream, and its last chunk."""
    call = ASK | {"stream": True, "stream_options": {"include_usage": True}}
    chunks = list(client.chat.completions.create(**call, **more))
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    kinds = [
        bool(getattr(one, "reasoning_content", None))
        for one in deltas
        if one.content or (getattr(one, "reasoning_content", None))
    ]
    assert kinds == sorted(kinds, reverse=True), "what is thought comes first"
    thought = "".join(getattr(one, "reasoning_content", None) or "" for one in deltas)
    return thought, "".join(one.content or "" for one in deltas), chunks[-1]


def test_openais_routes_tell_them_apart(herd, client):
    answer = client.chat.completions.create(**ASK)
    said = answer.choices[0].message
    assert (said.reasoning_content, said.content) == ("hum or not", "Yes.")
    assert answer.usage.completion_tokens == 6
    assert answer.usage.completion_tokens_details.reasoning_tokens == 5
    receipt = herd.client.receipt(answer.id.removeprefix("chatcmpl-"))
    assert receipt.generated == 6
    assert receipt.charged == answer.usage.cost
    thought, content, last = streamed(client)
    assert (thought, content) == ("hum or not", "Yes.")
    assert last.usage.completion_tokens_details.reasoning_tokens == 5
    # A client may send the message back as it got it.
    turns = [*ASK["messages"], said.model_dump(exclude_none=True), *ASK["messages"]]
    again = client.chat.completions.create(**ASK | {"messages": turns})
    assert again.choices[0].message.content == "Yes."


@pytest.mark.parametrize("hidden", [{"reasoning": "hide"}, {"include_reasoning": False}])
def test_a_caller_may_hide_it_and_pays_for_it_all_the_same(client, hidden):
    answer = client.chat.completions.create(**ASK, extra_body=hidden)
    said = answer.choices[0].message
    assert (said.content, "reasoning_content" in said.model_dump()) == ("Yes.", False)
    assert answer.usage.completion_tokens == 6
    assert answer.usage.completion_tokens_details.reasoning_tokens == 5
    thought, content, last = streamed(client, extra_body=hidden)
    assert (thought, content, last.usage.completion_tokens) == ("", "Yes.", 6)


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"reasoning": "maybe"}, "reasoning"),
        ({"reasoning": {"effort": "low"}}, "reasoning"),
        ({"include_reasoning": "no"}, "include_reasoning"),
        ({"reasoning": "include", "include_reasoning": False}, "include_reasoning"),
    ],
)
def test_what_is_neither_shown_nor_hidden_is_refused(herd, client, more, param):
    before = herd.client.accounts.balance("default")
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(**ASK, extra_body=more)
    assert refused.value.body["param"] == param
    assert herd.client.accounts.balance("default") == before


def test_a_raw_prompt_and_a_stop_string_leave_marks_and_thoughts_as_they_are(client):
    raw = client.completions.create(model="stub", prompt=THINKS, max_tokens=50)
    assert raw.choices[0].text == "<think>hum or not</think>Yes."
    assert raw.usage.completion_tokens_details.reasoning_tokens == 0
    stopped = client.chat.completions.create(**ASK, stop=["or", "s."])
    assert stopped.choices[0].message.reasoning_content == "hum or not"
    assert stopped.choices[0].message.content == "Ye"


def test_the_library_gives_both_here_and_over_http(herd, address):
    url, key = address
    here = herd.client.submit(THINKS, 50, account="default")
    found = herd.client.result(here.order, 60)
    assert (found.reasoning, found.text) == ("hum or not", "Yes.")
    assert found.usage.reasoning_tokens == 5
    assert "".join(herd.client.stream(here.order)) == "Yes."
    with herder.Client(url, key) as web:
        order = web.submit(THINKS, 50)
        assert "".join(order.stream()) == "Yes."
        assert order.result(timeout=60).reasoning == "hum or not"
        assert web.submit("[[end:3]]", 5).result(timeout=60).reasoning == ""
        head = {"Authorization": f"Bearer {key}"}
        kinds = []
        with httpx.stream("GET", f"{url}/v1/orders/{order.id}/events", headers=head) as answer:
            for line in answer.iter_lines():
                if line.startswith("event: "):
                    kinds.append(line.removeprefix("event: "))
                elif line.startswith("data: ") and kinds[-1] in ("reasoning", "text"):
                    kinds[-1] += f" {json.loads(line.removeprefix('data: '))['text']}"
        assert "reasoning hum or not" in kinds
        assert "text Yes." in kinds
        asked = httpx.get(f"{url}/v1/orders/{order.id}", headers=head).json()
        assert (asked["reasoning"], asked["text"]) == ("hum or not", "Yes.")
        # Who was cut off amid the thought goes on there.
        rest = httpx.get(
            f"{url}/v1/orders/{order.id}/events", headers=head | {"Last-Event-ID": "1.4"}
        ).text
        assert '"or not"' in rest
        assert "hum" not in rest


def test_a_thought_that_was_read_is_paid_when_its_order_is_cancelled(herd, address):
    url, key = address
    endless = f"[[think:{'hum ' * 12}]] [[hang:8]]"
    order = herd.client.submit(endless, 100, fee=900, account="default")
    head = {"Authorization": f"Bearer {key}"}
    read = ""
    with httpx.stream("GET", f"{url}/v1/orders/{order.order}/events", headers=head) as answer:
        lines = answer.iter_lines()
        while read.count("hum") < 6:
            line = next(lines)
            if line.startswith("data: ") and "hum" in line:
                read += json.loads(line.removeprefix("data: "))["text"]
        herd.client.cancel(order.order)
        wait_for(lambda: herd.client.order(order.order).state.ended, "the order is cancelled")
    with pytest.raises(OrderCancelled) as cancelled:
        herd.client.result(order.order, 60)
    found = cancelled.value.result
    assert found.text == ""
    assert found.reasoning.startswith(read)
    # What opens the thought is a token, too.
    assert found.usage.reasoning_tokens == found.reasoning.count("hum") + 1 == found.usage.generated
    paid = found.receipt
    parts = paid.rates.prompt_fee + paid.rates.fee_per_token * (paid.words + paid.generated)
    assert paid.charged == -(-paid.fee * parts // paid.needed)


def test_a_thought_that_nobody_was_shown_is_not_paid_when_its_order_is_cancelled(herd, address):
    url, key = address
    endless = f"[[think:{'hum ' * 12}]] [[hang:8]]"
    order = herd.client.submit(endless, 100, fee=900, account="default").order
    events = f"{url}/v1/orders/{order}/events?reasoning=hide"
    redis = herd.redis.client()
    with httpx.stream("GET", events, headers={"Authorization": f"Bearer {key}"}) as answer:
        lines = answer.iter_lines()
        while next(lines) != "event: start":
            pass
        wait_for(lambda: b"hum" in redis.dump(f"text:{order}:1") or b"", "it thinks")
        herd.client.cancel(order)
        told = "\n".join(lines)
    assert "hum" not in told
    with pytest.raises(OrderCancelled) as cancelled:
        herd.client.result(order, 60)
    found = cancelled.value.result
    assert (found.reasoning, found.text, found.receipt.charged) == ("", "", 0)
