"""Variables for the chat template, as they are typed."""

from __future__ import annotations

import pytest

from herder.cli.order_options import template_kwargs_of
from herder.errors import InvalidTemplateArguments
from herder.gateway.schemas.orders import OrderBody, TokenizeBody

TOLD = {"reasoning_effort": "low", "chat_template_kwargs": {"enable_thinking": False}}


def test_they_are_json_and_judged_with_the_call():
    assert template_kwargs_of(None) is None
    assert template_kwargs_of('{"enable_thinking": false}') == {"enable_thinking": False}
    assert template_kwargs_of("[]") == [], "order intake says what it must be"
    for typed in ("", "enable_thinking=false", "{'a': 1}", "[" * 100_000):
        with pytest.raises(InvalidTemplateArguments, match="must be a JSON object, such as"):
            template_kwargs_of(typed)


def test_the_routes_of_orders_and_counts_hand_them_on():
    order = OrderBody.model_validate({"prompt": "Hi", "tokens": 5, **TOLD})
    assert order.call().items() >= TOLD.items()
    assert TokenizeBody.model_validate({"prompt": "Hi", **TOLD}).asked().items() >= TOLD.items()
    bare = OrderBody.model_validate({"prompt": "Hi", "tokens": 5}).call()
    assert not bare.keys() & TOLD.keys()
