"""Small courtesies of a gateway: paths, methods and pages that programs try."""

from __future__ import annotations

import httpx
import openai
import pytest

from tests.support.wait import wait_for

HI = [{"role": "user", "content": "What is it?"}]


@pytest.fixture
def web(herd):
    herd.start_worker(HERD_CONTEXT="64")
    _, url = herd.start_gateway(HERD_MODEL_ALIASES="team/gpt-4o=stub")
    _, key = herd.client.api_keys.create("default")
    with httpx.Client(
        base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=60, follow_redirects=False
    ) as made:
        yield made


@pytest.fixture
def client(web):
    key = web.headers["authorization"].removeprefix("Bearer ")
    with openai.OpenAI(base_url=f"{web.base_url}/v1", api_key=key, max_retries=0) as made:
        yield made


def test_pages_say_what_this_is_and_that_it_answers(web):
    for path in ("/", "/v1", "/v1/"):
        page = httpx.get(f"{web.base_url}{path}")
        assert page.status_code == 200
        assert (page.json()["name"], page.json()["base_url"]) == ("Llama Herder", "/v1")
    assert httpx.get(f"{web.base_url}/health").json() == httpx.get(f"{web.base_url}/healthz").json()


def test_one_model_is_shown_by_each_of_its_names(web, client):
    assert client.models.retrieve("stub").id == "stub"
    assert client.models.retrieve("team/gpt-4o").alias_of == "stub"
    listed = {model["id"]: model for model in web.get("/v1/models").json()["data"]}
    assert web.get("/v1/models/stub").json() == listed["stub"]
    with pytest.raises(openai.NotFoundError) as refused:
        client.models.retrieve("gpt-99")
    assert refused.value.code == "model_not_found"


def test_a_slash_at_the_end_changes_nothing(web):
    assert web.get("/v1/models/").json() == web.get("/v1/models").json()
    body = {"model": "stub", "messages": HI, "max_tokens": 5}
    answer = web.post("/v1/chat/completions/", json=body)
    assert answer.status_code == 200
    assert answer.json()["usage"]["completion_tokens"] == 5


def test_head_is_answered_wherever_get_is(web):
    order = web.post("/v1/orders", json={"prompt": "Hi", "tokens": 5}).json()["id"]
    web.get(f"/v1/orders/{order}?wait=60")
    gets = {
        path.replace("{order_id}", order).replace("{model}", "stub")
        for path, operations in web.get("/openapi.json").json()["paths"].items()
        if "get" in operations and not path.startswith(("/v1/webhooks", "/v1/operate", "/v1/usage"))
    }
    assert len(gets) > 12
    for path in gets | {"/openapi.json"}:
        head = web.head(path)
        assert head.content == b""
        if "events" in path:
            assert head.status_code == 200
            assert head.headers["content-type"].startswith("text/event-stream")
        else:
            assert head.status_code == web.get(path).status_code, path
    refused = web.head("/v1/orders/nothing")
    assert (refused.status_code, refused.content) == (404, b"")
    assert web.head("/v1/chat/completions").status_code == 405
    assert "HEAD" in web.delete("/v1/models").headers["allow"].split(", ")


def test_looking_at_the_head_of_a_stream_reads_and_cancels_nothing(herd, web):
    order = web.post("/v1/orders", json={"prompt": "[[hang:3]]", "tokens": 5}).json()["id"]
    wait_for(lambda: herd.client.receipt(order).state == "running", "it runs")
    assert web.head(f"/v1/orders/{order}/events?on_disconnect=cancel").status_code == 200
    assert herd.client.receipt(order).state == "running"
    herd.client.cancel(order)
    wait_for(lambda: herd.client.receipt(order).state == "cancelled", "it is cancelled")
    assert herd.client.receipt(order).charged == 0
    assert herd.client.accounts.balance("default").available == 1_000_000


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("/chat/completions", "/v1/chat/completions"),
        ("/models", "/v1/models"),
        ("/v1/v1/chat/completions", "/v1/chat/completions"),
    ],
)
def test_a_path_without_v1_is_told_what_was_meant(web, path, meant):
    refused = web.post(path, json={})
    assert refused.status_code == 404
    error = refused.json()["error"]
    assert meant in error["message"]
    assert error["code"] == "not_found"
    assert web.post("/nowhere", json={}).json()["error"]["message"] == "Not Found."


def test_the_cost_stands_beside_the_tokens(herd, client):
    answer = client.chat.completions.create(
        model="stub", messages=HI, max_tokens=7, extra_body={"fee": 40}
    )
    assert answer.usage.cost == answer.receipt["charged"] == 40
    chunks = list(
        client.chat.completions.create(
            model="stub",
            messages=HI,
            max_tokens=7,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    order = chunks[0].id.removeprefix("chatcmpl-")
    assert chunks[-1].usage.cost == herd.client.receipt(order).charged > 0


def test_what_does_not_fit_is_told_in_the_words_that_clients_look_for(client):
    long = [{"role": "user", "content": "word " * 80}]
    for call in ({"messages": long, "max_tokens": 5},):
        with pytest.raises(openai.BadRequestError) as refused:
            client.chat.completions.create(model="stub", **call)
        assert refused.value.code == "context_length_exceeded"
        # litellm looks for the sentence in lower case, langchain-openai for the code.
        told = str(refused.value)
        assert "this model's maximum context length is 64 tokens" in told.lower()
        assert "context_length_exceeded" in refused.value.message
