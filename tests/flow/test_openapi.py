"""The OpenAPI document is true: Schemathesis asks every route of a real gateway what it says.

Routes that are added are asked too: the document names them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from uuid import uuid4

import httpx
import jsonschema_rs
import pytest

from tests.support.house import MODEL
from tests.support.running import UNCOUNTED

SEED = "20260101"
CONFIG = """
hooks = "{hooks}"

[generation]
database = "none"

[checks.positive_data_acceptance]
# A call in the right shape may still offer too little, or want more than the model can hold.
expected-statuses = ["2xx", 400, 401, 402, 403, 404, 409, 422, 429]
"""

ENDLESS = """
[[operations]]
include-name = "{}"
# A stream may have no end: so much of it is read.
request-timeout = 1.0
"""

BUYING = {
    *("POST /v1/orders", "GET /v1/orders", "GET /v1/orders/{order_id}"),
    *("GET /v1/orders/{order_id}/events", "GET /v1/orders/{order_id}/receipt"),
    *("POST /v1/orders/{order_id}/cancel", "POST /v1/quotes", "POST /v1/tokenize"),
    *("GET /v1/account",),
    *("POST /v1/chat/completions", "POST /v1/completions", "GET /v1/models"),
}
"""Calls that must have been taken too: to be refused each time shows little."""


@pytest.fixture
def served(herd):
    """The address of a gateway of a herd that answers, and a key of an account that can pay."""
    herd.start_worker(HERD_SLOTS="8")
    herd.client.accounts.deposit("default", 10**12, str(uuid4()))
    _, key = herd.client.api_keys.create("default")
    _, url = herd.start_gateway(HERD_MODEL_ALIASES=f"smollm2-135m-instruct={MODEL}", **UNCOUNTED)
    return url, key


def document(url):
    return httpx.get(f"{url}/openapi.json", timeout=60).json()


def operations(document):
    return {
        f"{method.upper()} {path}": operation
        for path, found in document["paths"].items()
        for method, operation in found.items()
    }


def streams(call, operation):
    """Whether it may have no end of its own."""
    content = operation["responses"].get("200", {}).get("content", {})
    return call.startswith("GET ") and "text/event-stream" in content


class Schemathesis:
    """Schemathesis, with what it was answered.

    Args:
        url: of the gateway.
        folder: where its files may lie.
        told: the OpenAPI document.
    """

    def __init__(self, url, folder, told):
        self._url = url
        self._folder = folder
        endless = [call for call, one in operations(told).items() if streams(call, one)]
        hooks = Path(__file__).with_name("openapi_hooks.py")
        self._config = folder / "schemathesis.toml"
        self._config.write_text(CONFIG.format(hooks=hooks) + "".join(map(ENDLESS.format, endless)))

    def asks(self, key, calls=()):
        """Ask these calls, else all, with this API key; gives (call, status) of each answer."""
        answers = self._folder / f"answers{len(calls)}"
        command = [
            *(sys.executable, "-m", "schemathesis.cli", "--config-file", self._config),
            *("run", f"{self._url}/openapi.json", "--header", f"Authorization: Bearer {key}"),
            *("--checks", "all", "--max-examples", "10", "--seed", SEED, "--no-shrink"),
            *("--continue-on-failure", "--request-timeout", "60", "--warnings", "off"),
            *(word for call in calls for word in ("--include-name", call)),
        ]
        done = subprocess.run(
            command,
            cwd=self._folder,
            env={**os.environ, "ANSWERS": str(answers), "MODEL": MODEL},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        print(done.stdout[-20_000:], done.stderr[-2000:])
        assert done.returncode == 0
        heard = [tuple(json.loads(line)) for line in answers.read_text().splitlines()]
        print(*sorted(Counter(heard).items()), sep="\n")
        return heard


def test_every_answer_is_one_that_the_document_tells(herd, served, tmp_path):
    url, key = served
    told = document(url)
    schemathesis = Schemathesis(url, tmp_path, told)
    heard = schemathesis.asks(key)
    assert {call for call, _ in heard} == set(operations(told))
    taken = {call for call, status in heard if status < 300}
    assert not BUYING - taken, "these were refused each time"
    # By itself: an operator sends workers away and revokes keys, and then there is less to ask.
    operators = {call for call, status in heard if status == 403} - taken
    _, key = herd.client.api_keys.create("default", scopes=["operate"])
    if operators:
        assert {call for call, _ in schemathesis.asks(key, sorted(operators))} == operators


def test_what_streams_bring_is_what_the_document_tells(served):
    url, key = served
    told = document(url)
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}) as web:
        order = web.post("/v1/orders", json={"prompt": "Hi", "tokens": 20}).json()["id"]
        calls = [
            ("GET /v1/orders/{order_id}/events", f"/v1/orders/{order}/events", None),
            ("POST /v1/chat/completions", None, {"messages": [{"role": "user", "content": "Hi"}]}),
            ("POST /v1/completions", None, {"prompt": "Hi"}),
        ]
        for call, path, body in calls:
            method, template = call.split()
            if body is not None:
                options = {"stream": True, "stream_options": {"include_usage": True}}
                body = {"model": MODEL, "max_tokens": 20, **body, **options}
            content = operations(told)[call]["responses"]["200"]["content"]["text/event-stream"]
            shape = content["itemSchema"]["properties"]["data"]["contentSchema"]
            judge = jsonschema_rs.validator_for({**shape, "components": told["components"]})
            answer = web.request(method, path or template, json=body, timeout=60)
            assert answer.headers["content-type"].startswith("text/event-stream")
            found = [one[6:] for one in answer.text.splitlines() if one.startswith("data: ")]
            found = [json.loads(one) for one in found if one != "[DONE]"]
            assert len(found) > 2
            for one in found:
                assert judge.is_valid(one), one


def test_a_refusal_has_one_form_whoever_refuses(served):
    url, _ = served
    told = document(url)
    form = {"$ref": "#/components/schemas/ErrorAnswer", "components": told["components"]}
    judge = jsonschema_rs.validator_for(form)
    with httpx.Client(base_url=url) as web:
        for call in operations(told):
            method, path = call.split()
            refused = web.request(method, path, headers={"Authorization": "Bearer herd_no"})
            if refused.status_code >= 400 and path != "/readyz":
                judge.validate(refused.json())
                assert refused.status_code == 401
            other = web.request("PROPFIND", path)
            assert other.status_code == 405
            judge.validate(other.json())
            assert method in other.headers["allow"].split(", ")
    for call, operation in operations(told).items():
        for status, answer in operation["responses"].items():
            if int(status) >= 400 and call != "GET /readyz":
                told_form = {"application/json": {"schema": {"$ref": form["$ref"]}}}
                assert answer["content"] == told_form, (call, status)
    # FastAPI's own 422, which nobody is told.
    assert "ValidationError" not in json.dumps(told)
