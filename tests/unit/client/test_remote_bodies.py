"""What JSON cannot hold is refused by a client before anything is sent, in one sentence."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from datetime import date
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType

import httpx
import pytest

from herder import errors
from herder.client.http.async_client import AsyncClient
from herder.client.http.bodies import encoded
from herder.client.http.client import Client

pytestmark = pytest.mark.usefixtures("clean_environment")


def _deep():
    inner = {}
    for _ in range(100_000):
        inner = {"a": inner}
    return inner


def _round():
    inner = {}
    inner["again"] = inner
    return inner


WRONG = {
    "a date": (
        {"chat_template_kwargs": {"today": date(2026, 1, 1)}},
        "chat_template_kwargs contains a value of type date; JSON cannot hold that.",
    ),
    "a set": (
        {"chat_template_kwargs": {"names": {1}}},
        "chat_template_kwargs contains a value of type set; JSON cannot hold that.",
    ),
    "bytes": ({"reference": b"r"}, "reference contains a value of type bytes"),
    "a decimal": ({"multiplier": Decimal("1.5")}, "multiplier contains a value of type Decimal"),
    "a path": ({"model": Path("m")}, "model contains a value of type PosixPath"),
    "a pair for a name": (
        {"chat_template_kwargs": {(1, 2): 3}},
        "chat_template_kwargs contains an object with a name that is no text; JSON cannot",
    ),
    "no number": (
        {"temperature": float("nan")},
        "temperature contains a number that is not finite",
    ),
    "a long number": ({"seed": 10**5000}, "seed contains a number that is not finite or has"),
    "a loop": ({"chat_template_kwargs": _round()}, "chat_template_kwargs contains .* itself"),
    "depth": ({"chat_template_kwargs": _deep()}, "chat_template_kwargs is nested too deeply"),
    "half a pair": ({"reference": "\ud800"}, "reference contains a lone surrogate"),
    "biases": ({"logit_bias": {7: {1}}}, "logit_bias contains a value of type set"),
    "no biases": ({"logit_bias": object()}, "logit_bias contains a value of type object"),
    "stops": ({"stop": {"a", "b"}}, "stop contains a value of type set"),
    "messages": ({"prompt": None, "messages": [{"role": b"user"}]}, "messages contains a value"),
    "fee": ({"fee": 1j}, "fee contains a value of type complex"),
}


@pytest.fixture
def transport():
    def refuse(request):
        raise AssertionError("nothing may be sent")

    return httpx.MockTransport(refuse)


@pytest.mark.parametrize("name", WRONG)
def test_what_json_cannot_hold_is_refused_by_name_and_nothing_is_sent(transport, name):
    options, told = WRONG[name]
    asked = {"prompt": "Hi", "tokens": 9, **options}
    with (
        Client("http://gateway/", "herd_k_s", transport=transport) as herd,
        pytest.raises(errors.InvalidRequest, match=f"^{told}"),
    ):
        herd.submit(**asked)

    async def call():
        async with AsyncClient("http://gateway/", "herd_k_s", transport=transport) as herd:
            await herd.submit(**asked)

    with pytest.raises(errors.InvalidRequest, match=f"^{told}"):
        asyncio.run(call())


def test_quotes_and_counts_and_bids_refuse_the_same(transport):
    told = "^{} contains a value of type set; JSON cannot hold that.$"
    with Client("http://gateway/", "herd_k_s", transport=transport) as herd:
        with pytest.raises(errors.InvalidRequest, match=told.format("bids")):
            herd.quote("Hi", 9, bids=[{"fee": {1}}])
        with pytest.raises(errors.InvalidRequest, match=told.format("chat_template_kwargs")):
            herd.count_tokens("Hi", chat_template_kwargs={"names": {1}})
        with pytest.raises(errors.InvalidRequest, match=told.format("prompt")):
            herd.submit({"Hi"}, 9)
        with pytest.raises(errors.InvalidRequest, match=told.format("tokens")):
            herd.submit("Hi", {9})


def test_mappings_and_sequences_of_any_kind_are_what_json_has_for_them():
    body = {"kwargs": MappingProxyType({"a": (1, 2)}), "stop": deque(["x"]), 'a "name"': "é"}
    assert json.loads(encoded(body, sampling={"logit_bias": {7: -1.0}}, left_out={})) == {
        "kwargs": {"a": [1, 2]},
        "stop": ["x"],
        'a "name"': "é",
        "sampling": {"logit_bias": {"7": -1.0}},
    }
    assert json.loads(encoded({}, sampling={"top_k": 1})) == {"sampling": {"top_k": 1}}
