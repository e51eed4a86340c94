"""One list of what an order may be asked with, from the program that asks to order intake.

`workers.wire.Sampling` says which sampling parameters there are, `herder.interface.OrderCall` what
else a call says. Whatever is added there and forgotten on the way is found here.
"""

from __future__ import annotations

import contextlib
import inspect
from pathlib import Path

import pytest

from herder.cli import submit as command
from herder.client import api
from herder.client.http import calls
from herder.domain.parsing import parse_submission
from herder.gateway.schemas.orders import OrderBody, QuoteBody, SamplingBody
from herder.interface import (
    SAMPLING_NAMES,
    OrderArguments,
    OrderCall,
    OrderOptions,
    QuoteCall,
    QuoteOptions,
    order_call_of,
)
from workers.wire import Sampling

NO_OPTION = {"logit_bias"}
"""What `herd submit` has no option for."""

VALUES = {
    "temperature": 0.5,
    "top_p": 0.9,
    "top_k": 7,
    "min_p": 0.25,
    "repeat_penalty": 1.5,
    "frequency_penalty": -1.5,
    "presence_penalty": 0.5,
    "seed": 3,
    "logit_bias": {12: -1.5},
    "ignore_eos": True,
    "grammar": 'root ::= "yes"',
    "json_schema": '{"type": "object"}',
    "regex": "[a-z]+",
    "choice": ["yes", "no"],
}


class Taken(Exception):
    """An order reached the herd."""


class FakeHerd:
    """Keeps what it is asked, and ends the call there."""

    asked: dict

    def submit(self, prompt, tokens, **call):
        self.asked = {"prompt": prompt, "tokens": tokens, **call}
        raise Taken

    def quote(self, prompt, tokens, **call):
        self.submit(prompt, tokens, **call)


@pytest.fixture
def herd(monkeypatch):
    found = FakeHerd()
    monkeypatch.setattr(api, "connect", lambda: found)
    monkeypatch.setattr(command, "buying", lambda: contextlib.nullcontext(found))
    return found


def names(kind) -> set[str]:
    return set(kind.__annotations__)


def parameters(function) -> set[str]:
    return set(inspect.signature(function).parameters)


def test_every_sampling_parameter_of_the_workers_is_named():
    assert set(Sampling.model_fields) == SAMPLING_NAMES == set(VALUES)
    assert set(SamplingBody.model_fields) == SAMPLING_NAMES


def test_what_the_gateway_says_of_sampling_is_what_the_workers_hold_it_to():
    def bounds(kind, name):
        told = kind.model_json_schema()["properties"][name]
        told = {**told, **told.get("anyOf", [{}])[0]}
        told = {**told, **(told.get("additionalProperties") or {})}
        kept = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "maxLength", "type")
        found = {one: told[one] for one in kept if one in told}
        if "exclusiveMaximum" in found:  # only of whole numbers
            found["maximum"] = found.pop("exclusiveMaximum") - 1
        return found

    for name in SAMPLING_NAMES:
        assert bounds(SamplingBody, name) == bounds(Sampling, name), name


def test_the_signatures_say_all_that_a_call_may():
    asked = names(OrderCall) - {"sampling"} | SAMPLING_NAMES
    assert parameters(api.submit) == asked | {"prompt", "tokens", "callback", "on_error"}
    assert names(OrderOptions) == asked - {"account"}
    assert parameters(api.quote) == names(QuoteCall) | {"prompt", "tokens"}
    assert names(QuoteOptions) == names(QuoteCall) - {"account"}
    parsed = names(OrderArguments) | {"prompt", "tokens", "account", "quote", "api_key"}
    assert parameters(parse_submission) == parsed | {"max_prompt_bytes"}


def test_the_bodies_say_all_that_a_call_may():
    carried = {"account", "idempotency_key"}  # by the API key, and in a header
    assert set(OrderBody.model_fields) == names(OrderCall) - carried | {"prompt", "tokens"}
    assert set(QuoteBody.model_fields) == names(QuoteCall) - carried | {"prompt", "tokens"}


def test_all_that_submit_is_given_arrives(herd):
    given = {name: object() for name in parameters(api.submit) - {"callback", "on_error"}}
    with pytest.raises(Taken):
        api.submit(**given)
    sampling = herd.asked.pop("sampling")
    assert {**herd.asked, **sampling} == given
    assert set(sampling) == SAMPLING_NAMES


def test_all_that_quote_is_given_arrives(herd):
    given = {name: object() for name in parameters(api.quote)}
    with pytest.raises(Taken):
        api.quote(**given)
    assert herd.asked == given


def test_what_stands_side_by_side_over_http_is_told_apart():
    given = {name: name for name in names(OrderOptions)}
    made = order_call_of(given)
    assert made["sampling"] == {name: name for name in SAMPLING_NAMES}
    assert set(made) == names(OrderCall) - {"account"}


def test_sampling_comes_through_a_gateway_as_it_was_given():
    call = calls.order_call("Hi", 5, order_call_of(VALUES), "key")
    body = OrderBody.model_validate_json(call.content)
    assert Sampling.model_validate(body.call()["sampling"]) == Sampling(**VALUES)


def test_what_the_command_is_given_arrives_as_numbers_that_json_has(herd, tmp_path):
    options = parameters(command.submit)
    assert options >= SAMPLING_NAMES - NO_OPTION
    typed = {name: str(VALUES[name]) for name in SAMPLING_NAMES - NO_OPTION}
    typed["choice"] = VALUES["choice"]
    for name in ("grammar", "json_schema"):
        file: Path = tmp_path / name
        file.write_text(VALUES[name])
        typed[name] = file
    with pytest.raises(Taken):
        command.submit("Hi", tokens="5", fee="9", multiplier="1.5", **typed)
    asked = herd.asked
    assert asked["sampling"] == {name: VALUES[name] for name in SAMPLING_NAMES - NO_OPTION}
    left_out = {"prompt", "tokens"}
    call = {name: value for name, value in asked.items() if name not in left_out}
    sent = calls.order_call(asked["prompt"], asked["tokens"], call, "key").content
    # A gateway takes no text for a number.
    assert OrderBody.model_validate_json(sent).tokens == 5
