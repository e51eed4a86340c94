"""The published `openai` package against the real model, through a gateway: what it generates."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.support.running import RunningHerd

pytestmark = pytest.mark.live

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 20},
        "legs": {"type": "integer", "minimum": 0, "maximum": 9},
        "diet": {"enum": ["plants", "meat", "both"]},
    },
    "required": ["name", "legs", "diet"],
    "additionalProperties": False,
}
ASKED: Any = [{"role": "user", "content": "Describe a llama as JSON."}]


@pytest.fixture(scope="module")
def client(real_herd: RunningHerd) -> Iterator[openai.OpenAI]:
    _, key = real_herd.client.api_keys.create("default")
    _, url = real_herd.start_gateway(HERD_MODEL_ALIASES="gpt-4o-mini=stub")
    with openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0) as made:
        yield made


def test_an_answer_follows_its_json_schema(client: openai.OpenAI) -> None:
    wanted: Any = {"type": "json_schema", "json_schema": {"name": "animal", "schema": SCHEMA}}
    call: dict[str, Any] = {
        "model": "gpt-4o-mini",
        "messages": ASKED,
        "max_completion_tokens": 120,
        "temperature": 0,
        "response_format": wanted,
    }
    answer = client.chat.completions.create(**call)
    said = json.loads(answer.choices[0].message.content)
    assert set(said) == {"name", "legs", "diet"}
    assert type(said["legs"]) is int
    assert said["diet"] in ("plants", "meat", "both")
    assert answer.choices[0].finish_reason == "stop"

    pieces = list(client.chat.completions.create(**call, stream=True))
    streamed = "".join(one.choices[0].delta.content or "" for one in pieces)
    assert set(json.loads(streamed)) == {"name", "legs", "diet"}


def test_the_assistants_last_message_is_continued(client: openai.OpenAI) -> None:
    call: dict[str, Any] = {
        "model": "stub",
        "messages": [
            {"role": "user", "content": "Say the alphabet."},
            {"role": "assistant", "content": "a b c d e f g h i j k"},
        ],
        "max_completion_tokens": 6,
        "temperature": 0,
    }
    answer = client.chat.completions.create(**call, extra_body={"continue_final_message": True})
    assert answer.choices[0].message.content.startswith(" l m n o")
    other = client.chat.completions.create(**call, extra_body={"add_generation_prompt": False})
    assert other.choices[0].message.content == answer.choices[0].message.content


def test_an_answer_is_a_json_object_where_no_more_is_asked(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="gpt-4o-mini",
        messages=ASKED,
        max_tokens=200,
        seed=7,
        response_format={"type": "json_object"},
        extra_body={"temperature": 0},
    )
    text = answer.choices[0].message.content or ""
    assert text.lstrip().startswith("{")
    if answer.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(text), dict)


def test_a_schema_that_cannot_be_followed_is_the_callers_fault(client: openai.OpenAI) -> None:
    wanted: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "no"}}}
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(
            model="gpt-4o-mini", messages=ASKED, max_tokens=20, response_format=wanted
        )
    assert refused.value.code == "bad_grammar"


def test_the_bias_of_a_token_and_the_seed_reach_the_model(client: openai.OpenAI) -> None:
    def said(**given: Any) -> str:
        answer = client.completions.create(
            model="gpt-4o-mini", prompt="Once upon a time", max_tokens=12, **given
        )
        return answer.choices[0].text

    assert said(seed=5, temperature=1) == said(seed=5, temperature=1)
    plain = said(temperature=0)
    # Forbids a whole range of tokens, among them common words.
    other = said(temperature=0, logit_bias={str(token): -100 for token in range(250, 1200)})
    assert plain != other
    stop = plain.split()[2]
    assert stop not in said(temperature=0, stop=stop)
