"""What a call may set for a chat template, and what it is told otherwise."""

from __future__ import annotations

import pytest

from herder.domain.prompts import parse_prompt
from herder.domain.template_args import EFFORTS, parse_template_args
from herder.errors import InvalidPrompt, InvalidTemplateArguments
from workers.wire import MAX_TEMPLATE_ARG_CHARS, MAX_TEMPLATE_ARGS, InferenceJob


def test_texts_numbers_true_and_false_are_taken_and_fit_into_a_job():
    given = {
        "enable_thinking": False,
        "thinking_budget": 2**53,
        "share": 0.5,
        "mode": "x" * MAX_TEMPLATE_ARG_CHARS,
        "_own": "Grüße 水",
    }
    found = parse_template_args(given, "low")
    assert found == {**given, "reasoning_effort": "low"}
    job = InferenceJob(
        order="o",
        attempt=1,
        nonce="n",
        rank=0,
        model="m",
        prompt="Hi",
        tokens=1,
        run_limit_s=1,
        template_args=dict(found),
    )
    read = InferenceJob.model_validate_json(job.model_dump_json(exclude_defaults=True))
    assert read.template_args == found
    assert read.template_args["enable_thinking"] is False
    for effort in EFFORTS:
        assert parse_template_args(None, effort) == {"reasoning_effort": effort}
        assert (
            parse_template_args({"reasoning_effort": effort}, effort)["reasoning_effort"] == effort
        )
    assert not parse_template_args(None, None)
    assert not parse_template_args({}, None)


@pytest.mark.parametrize(
    ("kwargs", "said"),
    [
        ([], "must be an object of at most"),
        ("enable_thinking", "must be an object of at most"),
        ({f"v{n}": 1 for n in range(MAX_TEMPLATE_ARGS + 1)}, "must be an object of at most"),
        ({"": 1}, "not a variable's name"),
        ({"a b": 1}, "not a variable's name"),
        ({"v" * 65: 1}, "not a variable's name"),
        ({1: 1}, "not a variable's name"),
        ({"messages": "none"}, "may not set messages; give messages beside them"),
        ({"tools": True}, "may not set tools; tools are not supported here"),
        (
            {"add_generation_prompt": False},
            "add_generation_prompt or continue_final_message beside",
        ),
        ({"bos_token": ""}, "may not set bos_token; it is the herd's to set"),
        ({"strftime_now": "x"}, "may not set strftime_now"),
        ({"self": 1}, "may not set self; it is the herd's to set"),
        ({"namespace": 1}, "may not set namespace"),
        ({"budget": None}, "and budget is not one"),
        ({"budget": [1]}, "and budget is not one"),
        ({"budget": {"a": 1}}, "and budget is not one"),
        ({"budget": 2**53 + 1}, "and budget is not one"),
        ({"budget": float("nan")}, "and budget is not one"),
        ({"budget": "x" * (MAX_TEMPLATE_ARG_CHARS + 1)}, "and budget is not one"),
        ({"budget": "\ud800"}, "and budget is not one"),
    ],
)
def test_what_no_call_may_set_is_refused_by_its_name(kwargs, said):
    with pytest.raises(InvalidTemplateArguments, match=said) as refused:
        parse_template_args(kwargs, None)
    assert refused.value.param == "chat_template_kwargs"


def test_an_effort_is_one_of_a_few_and_is_said_once():
    for effort in ("maximum", "", 3, True, ["low"]):
        with pytest.raises(InvalidTemplateArguments, match="must be one of none, minimal") as told:
            parse_template_args(None, effort)
        assert told.value.param == "reasoning_effort"
    with pytest.raises(InvalidTemplateArguments, match="contradict each other"):
        parse_template_args({"reasoning_effort": "low"}, "high")


def test_a_raw_prompt_has_no_template_to_set_anything_for():
    found = parse_prompt("Hi", None, 100, chat_template_kwargs={"enable_thinking": True})
    assert found.template_args == {"enable_thinking": True}
    messages = [{"role": "user", "content": "Hi"}]
    found = parse_prompt(None, messages, 100, reasoning_effort="none")
    assert found.template_args == {"reasoning_effort": "none"}
    for asked in ({"reasoning_effort": "low"}, {"chat_template_kwargs": {"thinking": True}}):
        with pytest.raises(InvalidPrompt, match="not given to the chat template"):
            parse_prompt("Hi", None, 100, raw=True, **asked)
    assert parse_prompt("Hi", None, 100, raw=True, chat_template_kwargs={}).raw
