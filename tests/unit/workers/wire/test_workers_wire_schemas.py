"""JSON schemas are honoured as a whole, or refused with keyword and path."""

from __future__ import annotations

import json
import pickle
import random
import re
from typing import Any

import jsonschema
import llguidance
import numpy as np
import pytest

from tests.support.schemas import CASES, SHAPES, ZOD
from workers.wire import regexes, schemas
from workers.wire.guidance import limits
from workers.wire.schema_bounds import MAX_MULTIPLE
from workers.wire.schema_errors import SchemaRefused
from workers.wire.schemas import (
    MAX_NESTING,
    MAX_PROPERTIES,
    compile_schema,
)

TOKENIZER = llguidance.LLTokenizer("byte")
END = TOKENIZER.eos_token
PRINTABLE = np.array([32 <= i < 127 for i in range(TOKENIZER.vocab_size)])


def matcher(schema: object) -> Any:
    grammar = compile_schema(json.dumps(schema))
    return llguidance.LLMatcher(TOKENIZER, grammar, log_level=0, limits=limits())


def takes(schema: object, text: str) -> bool:
    one = matcher(schema)
    data = list(text.encode())
    return one.try_consume_tokens(data) == len(data) and one.is_accepting()


def refusal(schema: object) -> SchemaRefused:
    with pytest.raises(SchemaRefused) as caught:
        compile_schema(json.dumps(schema))
    return caught.value


def is_refused(schema: object) -> bool:
    try:
        compile_schema(json.dumps(schema))
    except SchemaRefused:
        return True
    return False


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_the_cases_that_came_with_the_project(case: dict[str, Any]) -> None:
    if not case["accept"] and is_refused(case["schema"]):
        error = refusal(case["schema"])
        assert f'"{error.keyword}" at {error.path} ' in error.message
        assert error.keyword in json.dumps(case["schema"])
        return
    for text in case["accept"]:
        assert takes(case["schema"], text), text
    for text in case["reject"]:
        assert not takes(case["schema"], text), text


@pytest.mark.parametrize(("schema", "good", "bad"), ZOD.values(), ids=ZOD)
def test_formats_as_zod_writes_them(schema: dict[str, Any], good: str, bad: str) -> None:
    assert takes(schema, good)
    assert not takes(schema, bad)


def said_at_random(schema: object, seed: int, most: int = 400) -> str | None:
    """A text that the schema lets through, drawn byte by byte; None if it has not ended by then."""
    draw = random.Random(seed)
    one = matcher(schema)
    found = bytearray()
    while len(found) < most:
        mask = np.unpackbits(np.frombuffer(one.compute_bitmask(), np.uint8), bitorder="little")
        (allowed,) = np.nonzero(mask[: TOKENIZER.vocab_size])
        assert not one.is_error(), one.get_error()
        if END in allowed and (len(allowed) == 1 or draw.random() < 0.5):
            return found.decode()
        # quotation marks and brackets close what is open; else texts would hardly end
        closing = [token for token in allowed if token in b'"]}']
        token = int(draw.choice(closing if closing and draw.random() < 0.4 else allowed))
        if token == END:
            return found.decode()
        assert one.consume_token(token)
        found.append(token)
    return None


@pytest.mark.parametrize("name", SHAPES)
def test_whatever_is_said_under_a_schema_is_valid(name: str) -> None:
    schema = SHAPES[name]
    ended = [text for seed in range(12) if (text := said_at_random(schema, seed)) is not None]
    for text in ended:
        jsonschema.validate(json.loads(text), schema)
    if name != "pydantic: Order":  # whose texts are too long for chance
        assert ended


REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "not": (
        {"properties": {"a": {"items": {"type": "string", "not": {}}}}},
        "not",
        "properties/a/items",
    ),
    "if": ({"$ref": "#/$defs/N", "$defs": {"N": {"if": {}, "then": {}}}}, "if", "$defs/N"),
    "oneOf": ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "oneOf", ""),
    "another document": ({"items": {"$ref": "https://x.org/a"}}, "$ref", "items"),
    "nowhere": ({"items": {"$ref": "#/$defs/x"}}, "$ref", "items"),
    "no type": ({"properties": {"a/b": {"type": "nonsense"}}}, "type", "properties/a~1b"),
    "format": ({"anyOf": [{}, {"type": "string", "format": "decimal"}]}, "format", "anyOf/1"),
    "look-ahead": ({"type": "string", "pattern": "(?=a)b"}, "pattern", ""),
    "no pattern": ({"type": "string", "pattern": "(a"}, "pattern", ""),
    "uniqueItems": ({"type": "array", "uniqueItems": True}, "uniqueItems", ""),
    "contains": ({"type": "array", "contains": {"const": 1}}, "contains", ""),
    "propertyNames": ({"type": "object", "propertyNames": {"pattern": "a"}}, "propertyNames", ""),
    "dependentRequired": (
        {"type": "object", "dependentRequired": {"a": ["b"]}},
        "dependentRequired",
        "",
    ),
    "unevaluatedProperties": (
        {"type": "object", "unevaluatedProperties": False},
        "unevaluatedProperties",
        "",
    ),
    "a number": ({"type": "integer", "minimum": "3"}, "minimum", ""),
    "a list": ({"type": "object", "required": "a"}, "required", ""),
    "nothing fits": ({"type": "integer", "minimum": 5, "maximum": 3}, "type", ""),
    "its own options": ({"x-guidance": {"lenient": True}, "not": {"const": 1}}, "not", ""),
    "many states": ({"type": "integer", "multipleOf": MAX_MULTIPLE + 1}, "multipleOf", ""),
    "many names": (
        {"items": {"properties": {f"p{i}": {} for i in range(MAX_PROPERTIES + 1)}}},
        "properties",
        "items",
    ),
    "together": (
        {"items": {"properties": {"a": {"multipleOf": 499}, "b": {"multipleOf": 491}}}},
        "multipleOf",
        "items/properties/a",
    ),
    "many digits": ({"type": "number", "multipleOf": 1.00000000000001}, "multipleOf", ""),
    "less than none": ({"items": {"type": "string", "minLength": -1}}, "minLength", "items"),
    "without an end": (
        {
            "allOf": [{"$ref": "#/$defs/a"}, {"type": "object"}],
            "$defs": {"a": {"$ref": "#/$defs/a", "type": "object"}},
        },
        "allOf",
        "",
    ),
    "long repeats": ({"type": "string", "pattern": "^((a{30}){30}){30}$"}, "pattern", ""),
    "long names": (
        {"type": "object", "patternProperties": {"^((a{30}){30}){30}$": {}}},
        "patternProperties",
        "",
    ),
}


@pytest.mark.parametrize(("schema", "keyword", "path"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_honoured_is_refused_by_keyword_and_path(
    schema: dict[str, Any], keyword: str, path: str
) -> None:
    error = refusal(schema)
    assert error.keyword == keyword
    assert error.path == "#" + ("/" + path if path else "")
    assert f'"{keyword}" at {error.path} ' in error.message
    assert len(error.message) < 600
    assert pickle.loads(pickle.dumps(error)).message == error.message


@pytest.mark.parametrize("text", ["{", "[]", "true", "[" * 100_000, '{"minimum": NaN}', ""])
def test_what_is_no_schema_is_refused(text: str) -> None:
    with pytest.raises(SchemaRefused):
        compile_schema(text)


def test_a_deep_schema_is_refused_in_words() -> None:
    deep: dict[str, Any] = {}
    for _ in range(MAX_NESTING + 1):
        deep = {"items": deep}
    assert "nested deeper" in refusal(deep).message


def test_a_word_of_the_callers_is_no_keyword() -> None:
    named = {"properties": {"not": {"type": "integer"}, "if": {}}, "enum": [{"not": 1, "if": 2}]}
    assert takes(named, '{"not":1,"if":2}')


def test_properties_come_in_the_order_of_the_schema() -> None:
    schema = {"type": "object", "properties": {"z": {}, "a": {}}, "required": ["a", "z"]}
    assert takes(schema, '{"z":1,"a":2}')
    assert not takes(schema, '{"a":2,"z":1}')


def test_it_may_be_pretty_printed_but_white_space_has_an_end() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    assert takes(schema, '{\n    "a": 1\n}')
    assert not takes(schema, "{" + " " * 100 + '"a": 1}')


def test_control_characters_are_never_raw() -> None:
    for number in range(32):
        assert not takes({"type": "string"}, f'"{chr(number)}"')
    assert takes({"type": "string"}, r'"\n\t\u0000"')


def test_a_large_schema_is_judged() -> None:
    part = {
        "type": "object",
        "properties": {f"name{i}": {"type": "string", "title": "x" * 60} for i in range(400)},
    }
    large = {"type": "object", "properties": dict.fromkeys("abcdef", part)}
    assert 200_000 < len(json.dumps(large)) <= 262_144
    assert takes(large, '{"b":{"name7":"a"},"f":{}}')


def test_a_judgement_is_remembered_whatever_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    judge = schemas._problem

    def counted(schema: Any) -> str:
        asked.append(schema)
        return judge(schema)

    monkeypatch.setattr(schemas, "_problem", counted)
    for kind in ({"type": "integer"}, {"not": {}}):
        text = json.dumps({"title": "remembered", **kind})
        said: list[tuple[object, ...]] = []
        for _ in range(2):
            before = len(asked)
            try:
                said.append((before, compile_schema(text)))
            except SchemaRefused as error:
                said.append((before, error.message, error.keyword, error.path))
        assert said[0][1:] == said[1][1:]
        assert said[0][0] < said[1][0] == len(asked)


def test_what_only_references_lead_to_is_judged_too() -> None:
    elsewhere = {"$ref": "#/components/schemas/a"}

    def document(schema: object) -> dict[str, Any]:
        return {"items": elsewhere, "components": {"schemas": {"a": schema}}}

    assert takes(document({"type": "array", "items": {"type": "integer"}}), "[[1]]")
    error = refusal(document({"items": {"type": "integer", "multipleOf": MAX_MULTIPLE + 1}}))
    assert (error.keyword, error.path) == ("multipleOf", "#/components/schemas/a/items")
    error = refusal(document({"type": "string", "pattern": "^((a{30}){30}){30}$"}))
    assert (error.keyword, error.path) == ("pattern", "#/components/schemas/a")


def test_known_patterns_mean_the_same_without_look_ahead() -> None:
    draw = random.Random(1)
    for before, after in regexes.KNOWN.items():
        alike = 0
        for _ in range(20_000):
            text = "".join(draw.choice("a.@+-1'_") for _ in range(draw.randrange(12)))
            if draw.random() < 0.5:
                text += "@a-b.cd"
            taken = re.search(before, text) is not None
            assert (re.search(after, text) is not None) is taken, text
            alike += taken
        assert alike > 10, "the trial had none that fit"


@pytest.mark.parametrize(
    ("pattern", "size"),
    [
        ("", 0),
        ("^abc$", 3),
        (r"\d{4}-\d{2}", 7),
        ("(ab{3}|c){2,5}", 25),
        ("[^]a-z{9}]{3}", 3),
        ("((a{30}){30}){30}", 27_000),
        ("a{2,}", 2),
        ("(" * 100, regexes.MAX_SIZE + 1),
        ("x){5}a", 7),
    ],
)
def test_the_size_of_a_pattern(pattern: str, size: int) -> None:
    assert regexes.size_of(pattern) == size
