"""JSON schemas that answers have to follow: judged without a model, and compiled for llguidance.

A herder judges a schema before it holds money for an order, a worker compiles the same text by the
same rules. Whatever cannot be honoured is refused with its keyword and path; nothing is left out.
llguidance comes with the extras `herder` and `worker`, so that nothing of the package imports this
module where a client reads messages.
"""

from __future__ import annotations

import copy
import functools
import json
import time
from typing import Any, Final

import llguidance

from workers.wire import regexes
from workers.wire.guidance import objection_to
from workers.wire.schema_bounds import check_levels, check_numbers
from workers.wire.schema_errors import SchemaRefused
from workers.wire.schema_places import (
    Path,
    Schema,
    leads_somewhere,
    places,
    reached,
)
from workers.wire.schema_search import located

MAX_NESTING: Final = 100
"""Levels of the schema's JSON; llguidance reads no more than about 120."""
MAX_PROPERTIES: Final = 1000
"""Of one object: all that may come next are looked at again for each token."""
MAX_REMEMBERED: Final = 64
"""Schemas whose judgement is remembered, sound or not."""

OPTIONS: Final = {
    "whitespace_flexible": True,
    # pretty-printed JSON, but never white space without an end, to which small models incline
    "whitespace_pattern": r"[\x20\x0A\x0D\x09]{1,40}",
    "item_separator": ",",
    "key_separator": ":",
    "coerce_one_of": False,
    "lenient": False,
}
"""For `overrides`, so that no schema's own `x-guidance` decides otherwise."""

_STANDARD_FORMATS: Final = frozenset(
    (
        "date-time",
        "date",
        "time",
        "duration",
        "email",
        "idn-email",
        "hostname",
        "idn-hostname",
        "ipv4",
        "ipv6",
        "uri",
        "uri-reference",
        "iri",
        "iri-reference",
        "uuid",
        "uri-template",
        "json-pointer",
        "relative-json-pointer",
        "regex",
    )
)


def compile_schema(text: str) -> str:
    """Return llguidance's grammar of a JSON schema; judgements are remembered.

    Args:
        text: the schema, as JSON; its size is for the caller to bound.

    Raises:
        SchemaRefused: it is no JSON schema, or something of it cannot be honoured.
    """
    judged = _judged(text)
    if isinstance(judged, str):
        return judged
    raise judged.again()


@functools.lru_cache(maxsize=MAX_REMEMBERED)
def _judged(text: str) -> str | SchemaRefused:
    try:
        schema = _prepared(_read(text))
    except SchemaRefused as error:
        return error.again()  # without the frames that it came from
    if problem := _problem(schema):
        return located(schema, problem, _problem, time.thread_time)
    return _grammar(schema)


def _read(text: str) -> Schema:
    try:
        schema = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise SchemaRefused("is no valid JSON") from None
    if not isinstance(schema, dict):
        raise SchemaRefused("must be an object")
    level: list[Any] = [schema]
    for _ in range(MAX_NESTING):
        level = [
            inner
            for one in level
            for inner in (one.values() if isinstance(one, dict) else one)
            if isinstance(inner, (dict, list))
        ]
    if level:
        raise SchemaRefused(f"is nested deeper than {MAX_NESTING} levels")
    return schema


def _no_number(name: str) -> float:
    raise ValueError(name)


def _prepared(schema: Schema) -> Schema:
    """Return a schema as llguidance takes it, which means the same.

    Raises:
        SchemaRefused: something is plainly wrong, or more work than it may make.
    """
    schema = copy.deepcopy(schema)
    named = any("$id" in one or "id" in one for _, one in places(schema))
    all_ = list(reached(schema))
    for path, one in all_:
        names = one.get("properties")
        if isinstance(names, dict) and len(names) > MAX_PROPERTIES:
            raise SchemaRefused(f"names more than {MAX_PROPERTIES}", "properties", path)
        _check_pattern(path, one)
        _check_format(path, one)
        reference = one.get("$ref")
        if isinstance(reference, str) and not named:
            if not reference.startswith("#"):
                raise SchemaRefused("refers to another document", "$ref", path)
            if reference[1:2] == "/" and not leads_somewhere(schema, reference):
                raise SchemaRefused("refers to nothing in this schema", "$ref", path)
    check_numbers(all_)
    check_levels(schema, all_)
    for _, one in places(schema):
        _rewrite(one)
    return schema


def _check_pattern(path: Path, schema: Schema) -> None:
    named = schema.get("patternProperties")
    for pattern in (schema.get("pattern"), *(named if isinstance(named, dict) else ())):
        if isinstance(pattern, str) and regexes.size_of(pattern) > regexes.MAX_SIZE:
            keyword = "pattern" if pattern == schema.get("pattern") else "patternProperties"
            raise SchemaRefused("repeats or nests too much", keyword, path)


def _check_format(path: Path, schema: Schema) -> None:
    name = schema.get("format")
    if name is not None and not isinstance(name, str):
        raise SchemaRefused("must be text", "format", path)


def _rewrite(schema: Schema) -> None:
    """Write one place of a schema as llguidance knows it, with the same meaning."""
    schema.pop("x-guidance", None)
    if schema.get("uniqueItems") is False:
        del schema["uniqueItems"]  # what holds of every list
    name = schema.get("format")
    if name == "url":  # what zod calls a URI
        schema["format"] = "uri"
    elif name is not None and "pattern" in schema and name not in _STANDARD_FORMATS:
        del schema["format"]  # a program's own: the pattern says what it means
    if isinstance(schema.get("pattern"), str):
        schema["pattern"] = regexes.without_lookahead(schema["pattern"])


def _grammar(schema: Schema) -> str:
    return str(llguidance.LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=OPTIONS))


def _problem(schema: Schema) -> str:
    """Return llguidance's objection to a schema; "" for none."""
    try:
        grammar = _grammar(schema)
    except ValueError as error:
        return str(error) or "invalid"
    return objection_to(grammar)
