"""A JSON schema is judged before money is held."""

from __future__ import annotations

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


@pytest.mark.parametrize("form", [{"json_schema": "{}"}, {"grammar": 'root ::= "a"'}], ids=str)
def test_an_answer_with_a_form_does_not_go_on_behind_its_end(tmp_path, form):
    settings = Settings(home=tmp_path)
    with pytest.raises(InvalidSampling, match="ignore_eos goes on where an answer ends") as caught:
        parse_call("Hi", 5, {"sampling": {**form, "ignore_eos": True}}, settings, dict)
    assert caught.value.data == {"name": "ignore_eos"}
    assert parse_call("Hi", 5, {"sampling": {**form, "ignore_eos": False}}, settings, dict)
    assert parse_call("Hi", 5, {"sampling": {"ignore_eos": True}}, settings, dict)


def test_a_grammar_beside_it_is_one_too_many(tmp_path):
    call = {"sampling": {"json_schema": "{}", "grammar": 'root ::= "a"'}}
    with pytest.raises(InvalidSchema, match="not both"):
        parse_call("Hi", 5, call, Settings(home=tmp_path), dict)
