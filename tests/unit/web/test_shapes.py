"""What is said of a body that has the wrong shape: our sentences, and never pydantic's."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

import pytest
from pydantic import BaseModel, Field, StrictBool, ValidationError
from pydantic_core import core_schema

from herder.gateway.schemas.operators import LimitsBody, NewApiKeyBody
from herder.gateway.schemas.orders import OrderBody, QuoteBody, RebidBody
from herder.web.shapes import Must, Refused, said, sentence_of
from workers.wire.faults import TOLD

HI = {"prompt": "Hi", "tokens": 5}


def told(kind, body):
    with pytest.raises(ValidationError) as refused:
        kind.model_validate(body)
    return sentence_of(refused.value.errors())


@pytest.mark.parametrize(
    ("kind", "body", "sentence"),
    [
        (OrderBody, {"prompt": "Hi"}, "tokens is missing."),
        (OrderBody, {**HI, "tokens": "5"}, "tokens must be a whole number."),
        (OrderBody, {**HI, "tokens": 1.5}, "tokens must be a whole number."),
        (OrderBody, {**HI, "prompt": 5}, "prompt must be text."),
        (
            OrderBody,
            {**HI, "fee": 0},
            'fee must be a whole number of winston of at least 1, or "base".',
        ),
        (
            QuoteBody,
            {**HI, "fee": "bases"},
            'fee must be a whole number of winston of at least 1, or "base".',
        ),
        (OrderBody, {**HI, "raw": "yes"}, "raw must be true or false."),
        (OrderBody, {**HI, "stop": {"a": 1}}, "stop must be text or a list of texts."),
        (OrderBody, {**HI, "stop": [5]}, "stop must be text or a list of texts."),
        (OrderBody, {**HI, "multiplier": []}, "multiplier must be a number."),
        (OrderBody, {**HI, "sampling": []}, "sampling must be an object."),
        (OrderBody, {**HI, "sampling": {"seed": 1.5}}, "sampling.seed must be a whole number."),
        (OrderBody, {**HI, "sampling": {"top_p": "1"}}, "sampling.top_p must be a number."),
        (OrderBody, {**HI, "model_": 1}, "model_ is not supported here; leave it out."),
        (
            OrderBody,
            {"tokens": 5, "messages": [{"role": "x", "content": "a"}]},
            "messages.0.role must be 'system', 'user' or 'assistant'.",
        ),
        (QuoteBody, {**HI, "bids": 5}, "bids must be a list."),
        (QuoteBody, {**HI, "bids": [{"fe": 5}]}, "bids.0.fe is not supported here; leave it out."),
        (RebidBody, {"fee": "26"}, "fee must be a whole number."),
        (RebidBody, [], "The body must be an object."),
        (NewApiKeyBody, {"expires_s": 0}, "expires_s must be at least 1."),
        (LimitsBody, {"max_open_orders": 1}, "tokens_per_minute is missing."),
    ],
)
def test_a_body_is_refused_in_our_words(kind, body, sentence):
    message, param = told(kind, body)
    assert message == sentence
    assert param is None or sentence.startswith(f"{param} ")


def test_a_name_that_is_unknown_is_told_before_the_one_that_is_missing():
    assert told(RebidBody, {"fe": 5})[1] == "fe"


def test_what_a_field_must_be_is_told_in_its_own_words():
    class Body(BaseModel):
        n: Annotated[Literal[1] | None, Refused("is not supported here")] = None
        lines: Annotated[
            list[Annotated[StrictBool, Must("true or false")]],
            Field(min_length=1),
            Must("a list of switches", inside=True),
        ] = [True]

    assert told(Body, {"n": 2}) == ("n is not supported here.", "n")
    assert told(Body, {"n": True})[1] == "n", "true is no 1"
    assert Body(n=1).n == 1
    assert told(Body, {"lines": []})[0] == "lines must be a list of switches."
    assert told(Body, {"lines": [True, 1]})[0] == "lines.1 must be true or false."


def test_every_sentence_is_about_a_fault_that_there_is():
    assert TOLD.keys() <= set(get_args(core_schema.ErrorType))
    assert str(said("is odd")) == "is odd"
    unheard = {"type": "callable_type", "loc": ("body", "x"), "msg": "Input should be callable"}
    assert sentence_of([unheard], skip=1) == ("x is invalid.", "x")
    broken = {"type": "json_invalid", "loc": ("body", 17), "msg": "JSON decode error"}
    assert sentence_of([broken], skip=1) == ("The body is not valid JSON.", None)
    assert sentence_of([{**unheard, "loc": ("body",)}], skip=1) == ("body is invalid.", "body")
