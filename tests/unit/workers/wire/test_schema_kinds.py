"""Kinds of JSON schemas, one by one: honoured as jsonschema judges, or refused by the keyword."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from tests.support.schemas import ZOD_EMAIL
from tests.unit.workers.wire.test_workers_wire_schemas import refusal, takes

HONOURED: dict[str, tuple[Any, list[Any], list[Any]]] = {
    "bounds of a number": (
        {
            "type": "object",
            "properties": {"a": {"type": "integer", "minimum": 3, "maximum": 7}},
            "additionalProperties": False,
            "required": ["a"],
        },
        [{"a": 3}, {"a": 7}],
        [{"a": 2}, {"a": 8}, {"a": -3}],
    ),
    "exclusive bounds": (
        {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
        [0.5],
        [0, 1, -0.5],
    ),
    "an enum beside types": (
        {"type": ["string", "null"], "enum": ["x", None, 3]},
        ["x", None],
        [3, "y"],
    ),
    "required without properties": ({"type": "object", "required": ["z"]}, [{"z": 1}], [{}]),
    "lengths beside a pattern": (
        {"type": "string", "pattern": "^[a-z]+$", "minLength": 2, "maxLength": 3},
        ["ab"],
        ["a", "abcd", "1a"],
    ),
    "a format beside a pattern": (
        {
            "type": "string",
            "format": "email",
            "pattern": ZOD_EMAIL,
        },
        ["a@b.de"],
        ["a", "a@b"],
    ),
    "a recursive reference": (
        {
            "$defs": {
                "n": {
                    "type": "object",
                    "properties": {
                        "v": {"type": "integer"},
                        "n": {"anyOf": [{"$ref": "#/$defs/n"}, {"type": "null"}]},
                    },
                    "additionalProperties": False,
                    "required": ["v", "n"],
                }
            },
            "$ref": "#/$defs/n",
        },
        [{"v": 1, "n": {"v": 2, "n": None}}],
        [{"v": 1}, {"v": 1, "n": {"v": "x", "n": None}}],
    ),
    "allOf": ({"allOf": [{"type": "integer", "minimum": 2}, {"maximum": 5}]}, [2, 5], [1, 6]),
    "oneOf": (
        {
            "oneOf": [
                {
                    "type": "object",
                    "properties": {"k": {"const": "a"}},
                    "additionalProperties": False,
                    "required": ["k"],
                },
                {
                    "type": "object",
                    "properties": {"k": {"const": "b"}},
                    "additionalProperties": False,
                    "required": ["k"],
                },
            ]
        },
        [{"k": "a"}],
        [{"k": "c"}],
    ),
    "const": ({"const": {"a": [1, 2]}}, [{"a": [1, 2]}], [{"a": [1]}]),
    "additionalProperties": (
        {"type": "object", "additionalProperties": {"type": "integer"}},
        [{"q": 1}],
        [{"q": "x"}],
    ),
    "patternProperties": (
        {
            "type": "object",
            "patternProperties": {"^x": {"type": "integer"}},
            "additionalProperties": False,
        },
        [{"xa": 1}],
        [{"ya": 1}, {"xa": "s"}],
    ),
    "prefixItems": (
        {
            "type": "array",
            "prefixItems": [{"type": "integer"}, {"type": "string"}],
            "items": False,
            "minItems": 2,
        },
        [[1, "a"]],
        [[1], ["a", 1], [1, "a", 2]],
    ),
    "multipleOf": ({"type": "integer", "multipleOf": 5}, [10, 0], [3]),
    "minProperties": ({"type": "object", "minProperties": 1}, [{"a": 1}], [{}]),
    "maxProperties": ({"type": "object", "maxProperties": 1}, [{"a": 1}], [{"a": 1, "b": 2}]),
    "boolean schemas": (
        {"type": "object", "properties": {"a": True, "b": False}},
        [{"a": 1}],
        [{"b": 1}],
    ),
    "an unknown keyword": ({"type": "string", "frobnicate": 3}, ["a"], [1]),
    "texts beyond ASCII": ({"enum": ["😀", "é\n"]}, ["😀", "é\n"], ["x"]),
}
"""Each has a schema, values that an answer may be, and values that it must never be."""

REFUSED: dict[str, tuple[Any, str]] = {
    "not": ({"type": "string", "not": {"const": "x"}}, "not"),
    "if": (
        {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "if": {"required": ["a"]},
            "then": {"required": ["b"]},
        },
        "if",
    ),
    "uniqueItems": (
        {"type": "array", "items": {"type": "integer"}, "uniqueItems": True},
        "uniqueItems",
    ),
    "dependentRequired": (
        {"type": "object", "dependentRequired": {"a": ["b"]}},
        "dependentRequired",
    ),
    "unevaluatedProperties": (
        {"type": "object", "properties": {"a": {}}, "unevaluatedProperties": False},
        "unevaluatedProperties",
    ),
    "an empty enum": ({"enum": []}, "enum"),
    "contains": ({"type": "array", "contains": {"const": 1}}, "contains"),
    "propertyNames": ({"type": "object", "propertyNames": {"pattern": "^a"}}, "propertyNames"),
}
"""Each has a schema that cannot be honoured, and the keyword for which it is refused."""


@pytest.mark.parametrize(("schema", "good", "bad"), HONOURED.values(), ids=HONOURED)
def test_a_kind_that_is_taken_is_honoured(schema: Any, good: list[Any], bad: list[Any]) -> None:
    judge = jsonschema.Draft202012Validator(schema)
    assert [judge.is_valid(one) for one in (*good, *bad)] == [True] * len(good) + [False] * len(bad)
    for value in (*good, *bad):
        ways = {
            json.dumps(value),
            json.dumps(value, ensure_ascii=False),
            json.dumps(value, ensure_ascii=False, separators=(",", ":")),
        }
        # Of a valid one some way of writing it is enough; of an invalid one none may pass.
        assert any(takes(schema, text) for text in ways) == (value in good), value


@pytest.mark.parametrize(("schema", "keyword"), REFUSED.values(), ids=REFUSED)
def test_a_kind_that_cannot_be_honoured_is_refused_by_its_keyword(
    schema: Any, keyword: str
) -> None:
    error = refusal(schema)
    assert error.keyword == keyword
    assert f'"{keyword}" at {error.path}' in error.message
