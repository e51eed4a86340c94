"""A JSON schema is judged before money is held."""

from __future__ import annotations

import itertools
import json

import pytest

from herder.errors import InvalidSampling, InvalidSchema
from herder.local.calls import parse_call
from herder.settings import Settings


def parsed(tmp_path, schema, **settings):
    call = {"sampling": {"json_schema": schema}}
    chosen = Settings(home=tmp_path, **settings)
    return parse_call("Hi", 5, call, chosen, dict)


def test_a_schema_that_can_be_followed_is_sent_as_it_is(tmp_path):
    schema = '{"type": "object", "properties": {"b": {}, "a": {"type": "integer"}}}'
    assert parsed(tmp_path, schema).sampling.json_schema == schema


def test_one_that_cannot_names_keyword_and_path(tmp_path):
    schema = json.dumps({"properties": {"a": {"type": "string", "not": {"const": "x"}}}})
    with pytest.raises(InvalidSchema, match='"not" at #/properties/a is not supported') as caught:
        parsed(tmp_path, schema)
    assert caught.value.data == {"keyword": "not", "path": "#/properties/a"}
    assert (caught.value.code, caught.value.param) == ("bad_grammar", "json_schema")
    assert isinstance(caught.value, InvalidSampling)


def test_its_length_has_a_bound_that_is_a_setting(tmp_path):
    schema = json.dumps({"description": "é" * 50}, ensure_ascii=False)
    size = len(schema.encode())
    assert parsed(tmp_path, schema, max_schema_bytes=size)
    with pytest.raises(InvalidSchema, match=f"has {size} bytes; at most {size - 1} are allowed"):
        parsed(tmp_path, schema, max_schema_bytes=size - 1)
    assert Settings(home=tmp_path).max_schema_bytes == 256 * 1024


FORMS = {
    "grammar": 'root ::= "a"',
    "json_schema": "{}",
    "regex": "a+",
    "choice": ["a", "b"],
}


@pytest.mark.parametrize("form", [{name: one} for name, one in FORMS.items()], ids=str)
def test_an_answer_with_a_form_does_not_go_on_behind_its_end(tmp_path, form):
    settings = Settings(home=tmp_path)
    with pytest.raises(InvalidSampling, match="ignore_eos goes on where an answer ends") as caught:
        parse_call("Hi", 5, {"sampling": {**form, "ignore_eos": True}}, settings, dict)
    assert caught.value.data == {"name": "ignore_eos"}
    assert parse_call("Hi", 5, {"sampling": {**form, "ignore_eos": False}}, settings, dict)
    assert parse_call("Hi", 5, {"sampling": {"ignore_eos": True}}, settings, dict)


@pytest.mark.parametrize(("one", "other"), list(itertools.combinations(FORMS, 2)))
def test_two_forms_are_one_too_many(tmp_path, one, other):
    call = {"sampling": {name: FORMS[name] for name in (other, one)}}
    with pytest.raises(InvalidSchema, match=f"{one} and {other} both say") as caught:
        parse_call("Hi", 5, call, Settings(home=tmp_path), dict)
    assert (caught.value.code, caught.value.param) == ("bad_grammar", other)


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("(", "is no regular expression"),
        ("a(?=b)c", "looks ahead or behind"),
        (r"(a)\1", "is no regular expression"),
        ("(((a{1000}){1000}){1000}){1000}", "repeats or nests too much"),
        ("[^\\s\\S]", "can be satisfied by no text"),
    ],
)
def test_an_expression_that_cannot_be_followed_is_told_before_money_is_held(tmp_path, pattern, why):
    call = {"sampling": {"regex": pattern}}
    with pytest.raises(InvalidSchema, match=why) as caught:
        parse_call("Hi", 5, call, Settings(home=tmp_path), dict)
    assert (caught.value.code, caught.value.param) == ("bad_grammar", "regex")
    assert pattern not in caught.value.message


@pytest.mark.parametrize("choice", [[], [""], ["a", 5], ["a" * 257], ["a"] * 1001, "yes"], ids=str)
def test_choices_are_some_texts(tmp_path, choice):
    call = {"sampling": {"choice": choice}}
    with pytest.raises(InvalidSampling, match="choice"):
        parse_call("Hi", 5, call, Settings(home=tmp_path), dict)
