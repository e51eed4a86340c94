"""What OpenAI's routes honour, and that nothing else is ignored in silence."""

from __future__ import annotations

import json

import jsonschema_rs
import pytest
from pydantic import TypeAdapter

from herder.gateway.schemas.openai_call import read
from herder.gateway.schemas.openai_requests import ChatBody, CompletionBody
from herder.interface import SAMPLING_NAMES
from herder.web.errors import BadRequest
from workers.wire import Sampling

HI = [{"role": "user", "content": "Hi"}]


def chat(headers=None, **body):
    return read("chat", {"model": "m", "messages": HI, **body}, headers or {})


def completion(**body):
    return read("completion", {"model": "m", "prompt": "Once", **body}, {})


def test_the_least_that_a_call_says():
    asked = chat()
    assert asked.call == {"model": "m", "messages": HI, "sampling": {}}
    assert (asked.prompt, asked.tokens) == (None, None)
    assert (asked.stream, asked.include_usage) == (False, False)
    assert completion().call == {"model": "m", "raw": True, "sampling": {}}
    assert completion(prompt=["Once"]).prompt == completion().prompt == "Once"


def test_the_assistants_last_message_is_continued_where_that_is_asked_for_by_either_name():
    turns = [*HI, {"role": "assistant", "content": "Once"}]
    for asked in (
        {"continue_final_message": True},
        {"add_generation_prompt": False},
        {"continue_final_message": True, "add_generation_prompt": False},
    ):
        assert chat(messages=turns, **asked).call["continue_final_message"] is True
        with pytest.raises(BadRequest, match="must be the assistant's") as refused:
            chat(**asked)
        assert refused.value.param in asked
    for as_ever in (
        {},
        {"continue_final_message": False},
        {"add_generation_prompt": True},
        {"continue_final_message": False, "add_generation_prompt": True},
    ):
        assert "continue_final_message" not in chat(messages=turns, **as_ever).call
        assert chat(**as_ever).call == chat().call
    for value in (True, False):
        with pytest.raises(BadRequest, match="contradict each other"):
            chat(messages=turns, continue_final_message=value, add_generation_prompt=value)


def test_control_tokens_of_a_completion_are_honoured_on_request():
    assert completion(special=True).call == completion().call | {"special": True}
    assert completion(special=False).call == completion().call
    with pytest.raises(BadRequest, match="special"):
        completion(special="yes")
    with pytest.raises(BadRequest, match="special"):
        chat(special=True)


def test_all_that_is_honoured_reaches_the_desk():
    asked = chat(
        temperature=0.5,
        top_p=0.9,
        seed=7,
        presence_penalty=1,
        frequency_penalty=-1,
        stop=["END"],
        max_completion_tokens=5,
        logit_bias={"12": -100},
        stream=True,
        stream_options={"include_usage": True},
        user="u-1",
        fee=90,
        max_fee=100,
        run_limit_s=9,
    )
    assert asked.tokens == 5
    sampling = asked.call.pop("sampling")
    assert asked.call == {
        "model": "m",
        "messages": HI,
        "stop": ["END"],
        "reference": "u-1",
        "fee": 90,
        "max_fee": 100,
        "run_limit_s": 9,
    }
    assert sampling == {
        "temperature": 0.5,
        "top_p": 0.9,
        "seed": 7,
        "presence_penalty": 1,
        "frequency_penalty": -1,
        "logit_bias": {12: -100},
    }
    assert asked.stream
    assert asked.include_usage


def test_a_schema_becomes_the_grammar_of_the_answer():
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    assert json.loads(chat(response_format=wanted).call["sampling"]["json_schema"]) == schema
    anything = chat(response_format={"type": "json_object"}).call["sampling"]["json_schema"]
    assert json.loads(anything) == {"type": "object"}
    beside = chat(response_format={"type": "json_object", "schema": schema})
    assert json.loads(beside.call["sampling"]["json_schema"]) == schema
    assert chat(response_format={"type": "text"}).call["sampling"] == {}


STRUCTURED = {
    "json": ({"type": "integer"}, {"json_schema": '{"type": "integer"}'}),
    "regex": ("[a-z]+", {"regex": "[a-z]+"}),
    "choice": (["yes", "no"], {"choice": ["yes", "no"]}),
    "grammar": ('root ::= "a"', {"grammar": 'root ::= "a"'}),
    "json_object": (True, {"json_schema": '{"type": "object"}'}),
}


@pytest.mark.parametrize("kind", STRUCTURED)
def test_vllms_way_to_ask_for_a_form_is_taken(kind):
    given, wanted = STRUCTURED[kind]
    found = chat(structured_outputs={kind: given, "disable_any_whitespace": False})
    assert found.call["sampling"] == wanted
    assert found.form_names == dict.fromkeys(wanted, f"structured_outputs.{kind}")
    for other in ({"response_format": {"type": "json_object"}}, {"grammar": 'root ::= "b"'}):
        with pytest.raises(BadRequest, match="both say what form") as refused:
            chat(structured_outputs={kind: given}, **other)
        assert refused.value.param == f"structured_outputs.{kind}"
    assert chat(structured_outputs={kind: given}, response_format={"type": "text"})


def test_a_schema_may_be_text_there():
    found = chat(structured_outputs={"json": '{"type":"integer"}'})
    assert found.call["sampling"] == {"json_schema": '{"type":"integer"}'}


@pytest.mark.parametrize(
    ("asked", "param", "why"),
    [
        ({}, "structured_outputs", "exactly one of json, regex, choice, grammar and json_object"),
        ({"json_object": False}, "structured_outputs", "exactly one of"),
        ({"regex": "a", "choice": ["a"]}, "structured_outputs", "exactly one of"),
        ("json", "structured_outputs", "object"),
        ({"regex": 5}, "structured_outputs.regex", "text of at most"),
        ({"choice": []}, "structured_outputs.choice", "a list of 1 to 1000 texts"),
        ({"choice": "yes"}, "structured_outputs.choice", "a list of 1 to 1000 texts"),
        ({"grammar": "start: A"}, "structured_outputs.grammar", "a GBNF grammar"),
        ({"json": 5}, "structured_outputs.json", "a JSON schema"),
        ({"json": {}, "disable_fallback": True}, "structured_outputs.disable_fallback", None),
        ({"structural_tag": "x"}, "structured_outputs.structural_tag", None),
    ],
)
def test_what_is_no_such_form_is_refused_by_its_name(asked, param, why):
    with pytest.raises(BadRequest, match=why) as refused:
        chat(structured_outputs=asked)
    assert refused.value.param == param


@pytest.mark.parametrize("strict", [True, False, None])
def test_strict_is_taken_and_always_in_effect(strict):
    wanted = {"name": "x", "strict": strict, "schema": {"type": "integer"}}
    found = chat(response_format={"type": "json_schema", "json_schema": wanted})
    assert found.call["sampling"] == {"json_schema": '{"type": "integer"}'}
    assert found.form_names == {"json_schema": "response_format"}


def test_the_price_may_come_in_headers():
    headers = {"x-fee": "90", "x-max-fee": "200", "x-multiplier": "1.5"}
    call = chat(headers).call
    assert (call["fee"], call["max_fee"], call["multiplier"]) == (90, 200, "1.5")
    with pytest.raises(BadRequest, match="give only one"):
        chat(headers, fee=10)
    with pytest.raises(BadRequest, match="whole number"):
        chat({"x-fee": "1e3"})
    assert chat({"x-fee": "base"}).call["fee"] == "base"
    assert chat(fee="base").call["fee"] == "base"
    with pytest.raises(BadRequest, match="x-fee must be a whole number of winston, or base"):
        chat({"x-fee": "bases"})
    with pytest.raises(BadRequest, match="x-max-fee must be a whole number of winston\\."):
        chat({"x-max-fee": "base"})


def test_texts_in_parts_are_one_text_and_developers_are_the_system():
    turns = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "name": "bob", "content": [{"type": "text", "text": "a"}] * 2},
    ]
    assert chat(messages=turns).call["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "aa"},
    ]


REFUSED = [
    ("n", 2),
    ("n", True),
    ("tools", [{"type": "function"}]),
    ("tool_choice", "required"),
    ("logprobs", True),
    ("top_logprobs", 2),
    ("functions", [{}]),
    ("audio", {}),
    ("modalities", ["audio"]),
    ("service_tier", "flex"),
    ("verbosity", "loud"),
    ("store", "yes"),
    ("function_call", {"name": "f"}),
    ("safety_identifier", 5),
    ("prompt_cache_key", 5),
    ("seed", 2**64),
    ("seed", -(2**63) - 1),
    ("top_p", -0.1),
    ("top_p", 1.1),
    ("repetition_penalty", 0),
    ("repetition_penalty", "1.1"),
    ("prediction", {}),
    ("invented", 1),
    ("prompt", "for the other route"),
    ("max_tokens", 0),
    ("max_tokens", 1.5),
    ("max_tokens", "5"),
    ("stream", "yes"),
    ("stream_options", {"what": 1}),
    ("stream_options", []),
    ("model", 5),
    ("user", 5),
    ("logit_bias", {"a": 1}),
    ("logit_bias", [1]),
    ("logit_bias", {"1": "1"}),
    ("temperature", "0.5"),
    ("temperature", True),
    ("seed", 1.0),
    ("ignore_eos", "yes"),
    ("ignore_eos", 1),
    ("top_k", "5"),
    ("grammar", 5),
    ("response_format", {"type": "xml"}),
    ("response_format", {"type": "json_schema"}),
    ("response_format", "json"),
    ("messages", []),
    ("messages", "Hi"),
    ("messages.0", ["Hi"]),
    ("messages.0.role", [{"role": "tool", "content": "x"}]),
    ("messages.0.content", [{"role": "user", "content": None}]),
    ("messages.0.content.0", [{"role": "user", "content": [{"type": "image_url"}]}]),
    ("messages.0.content.0.text", [{"role": "user", "content": [{"type": "text"}]}]),
    ("messages.0.content.0.x", [{"role": "user", "content": [{"type": "text", "x": 1}]}]),
    ("messages.0.tool_calls", [{"role": "assistant", "content": "", "tool_calls": [1]}]),
]


@pytest.mark.parametrize(("param", "value"), REFUSED)
def test_what_is_not_honoured_is_refused_by_its_name(param, value):
    with pytest.raises(BadRequest) as refused:
        chat(**{param.partition(".")[0]: value})
    assert refused.value.param == param
    assert param.rpartition(".")[2] in refused.value.message or "body" in refused.value.message


@pytest.mark.parametrize("body", [[], "text", 1, None, True])
def test_a_body_that_is_no_object_is_refused(body):
    with pytest.raises(BadRequest):
        read("chat", body, {})


def test_what_is_for_the_chat_template_goes_to_intake_and_a_raw_prompt_has_none():
    told = {"reasoning_effort": "low", "chat_template_kwargs": {"enable_thinking": True}}
    assert chat(**told).call == chat().call | told
    assert completion(reasoning_effort="none").call == completion().call
    for name, value in told.items():
        with pytest.raises(BadRequest) as refused:
            completion(**{name: value})
        assert refused.value.param == name


def test_two_limits_must_agree():
    assert chat(max_tokens=5, max_completion_tokens=5).tokens == 5
    with pytest.raises(BadRequest, match="differ"):
        chat(max_tokens=5, max_completion_tokens=6)


TAKEN = [
    {"n": 1},
    {"logprobs": False},
    {"tools": []},
    {"tool_choice": "none"},
    {"store": False},
    {"store": True},
    {"service_tier": "auto"},
    {"service_tier": "default"},
    {"verbosity": "high"},
    {"function_call": "none"},
    {"safety_identifier": "s" * 5000},
    {"prompt_cache_key": "k" * 5000},
    {"stream_options": {"include_usage": False, "continuous_usage_stats": True}},
    {"seed": -1},
    {"modalities": ["text"]},
    {"tools": None, "logprobs": None, "invented": None, "prediction": None},
]


@pytest.mark.parametrize("same", TAKEN)
def test_what_asks_for_what_happens_anyway_is_taken(same):
    assert chat(**same).call == chat().call


def test_turns_that_an_answer_was_made_of_are_taken():
    answered = {"role": "assistant", "content": "a", "annotations": [], "tool_calls": []}
    answered |= {"refusal": None, "audio": None, "function_call": None}
    turns = chat(messages=[*HI, {k: v for k, v in answered.items() if v is not None}, *HI])
    assert turns.call["messages"] == [*HI, {"role": "assistant", "content": "a"}, *HI]
    assert chat(messages=[*HI, answered]).call["messages"] == turns.call["messages"][:2]


def test_sampling_parameters_are_taken_under_the_names_and_values_that_programs_send():
    def sampled(**given):
        sampling = chat(**given).call["sampling"]
        Sampling.model_validate(sampling)
        return sampling

    assert sampled(repetition_penalty=1.2) == {"repeat_penalty": 1.2}
    assert sampled(repetition_penalty=1.2, repeat_penalty=1.2) == {"repeat_penalty": 1.2}
    with pytest.raises(BadRequest, match="differ"):
        chat(repetition_penalty=1.2, repeat_penalty=1.3)
    assert 0 < sampled(top_p=0)["top_p"] < 1e-6
    assert sampled(seed=2**32 - 2) == {"seed": 2**32 - 2}
    seeds = [2**32, 2**40 + 1, 2**63 - 1, 2**64 - 1, -2, -(2**63)]
    folded = [sampled(seed=seed)["seed"] for seed in seeds]
    assert folded == [sampled(seed=seed)["seed"] for seed in seeds]
    assert 2**32 - 1 not in folded, "llama.cpp would draw one"


@pytest.mark.parametrize("param", ["safety_identifier", "prompt_cache_key", "metadata"])
def test_a_lone_surrogate_is_no_text(param):
    for wrong in [{"a": "\ud800"}, {"\ud800": "a"}] if param == "metadata" else ["a\udfff"]:
        with pytest.raises(BadRequest) as refused:
            chat(**{param: wrong})
        assert refused.value.param.partition(".")[0] == param


def test_a_user_of_any_length_is_a_reference():
    assert chat(user="u" * 5000).call["reference"] == "u" * 256
    assert chat(user="u" * 5000, reference="mine").call["reference"] == "mine"


@pytest.mark.parametrize("param", ["echo", "best_of", "suffix", "messages"])
def test_completions_have_their_own(param):
    values = {"echo": True, "best_of": 3, "suffix": "end", "messages": HI}
    with pytest.raises(BadRequest) as refused:
        completion(**{param: values[param]})
    assert refused.value.param == param


@pytest.mark.parametrize(("kind", "shape"), [("chat", ChatBody), ("completion", CompletionBody)])
def test_what_reads_a_body_is_what_the_document_shows(kind, shape):
    told = TypeAdapter(shape).json_schema(mode="validation")
    judge = jsonschema_rs.validator_for(told)
    least = {"model": "m"} | ({"messages": HI} if kind == "chat" else {"prompt": "Once"})
    bodies = [
        *({name: wrong} for name, wrong in REFUSED if "." not in name),
        *({name: None} for name in shape.model_fields),
        *TAKEN,
    ]
    for given in bodies:
        body = {**least, **given}
        try:
            read(kind, body, {})
        except BadRequest:
            is_taken = False
        else:
            is_taken = True
        # JSON Schema takes 1.0 for an integer, and has no word for "null is as good as left out".
        if given != {"seed": 1.0} and given.get("invented", 0) is not None:
            assert judge.is_valid(body) == is_taken, given


def test_every_sampling_parameter_can_be_asked_for():
    # These come in `response_format` and `structured_outputs`.
    assert ChatBody.model_fields.keys() >= SAMPLING_NAMES - {"json_schema", "regex", "choice"}


def test_a_schema_that_is_no_json_is_refused():
    for schema in ({"minimum": float("inf")}, deep(500_000)):
        wanted = {"type": "json_schema", "json_schema": {"schema": schema}}
        with pytest.raises(BadRequest) as refused:
            chat(response_format=wanted)
        assert refused.value.param == "response_format"


def deep(levels):
    found: dict = {}
    for _ in range(levels):
        found = {"a": found}
    return found


def test_a_quote_goes_along():
    assert chat(quote="ey.J.x").call["quote"] == "ey.J.x"
    assert "quote" not in chat().call


def test_what_becomes_of_an_order_whose_caller_went_away_may_be_chosen():
    assert chat().on_disconnect == "cancel"
    assert chat(on_disconnect="continue").on_disconnect == "continue"
    assert chat({"x-on-disconnect": "continue"}).on_disconnect == "continue"
    assert chat({"x-on-disconnect": "continue"}, on_disconnect="cancel").on_disconnect == "cancel"
    for wrong in ({"on_disconnect": "stop"}, {"on_disconnect": True}):
        with pytest.raises(BadRequest) as refused:
            chat(**wrong)
        assert refused.value.param == "on_disconnect"
