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
import re
from decimal import Decimal, InvalidOperation
from typing import Any, Final

import llguidance

from workers.wire import regexes
from workers.wire.schema_places import (
    DEFINITIONS,
    Path,
    Schema,
    children,
    leads_somewhere,
    places,
    pointer,
)

MAX_NESTING: Final = 100
"""Levels of the schema's JSON; llguidance reads no more than about 120."""
MAX_PROPERTIES: Final = 1000
"""Of one object: all that may come next are looked at again for each token."""
MAX_MULTIPLE: Final = 10_000
"""The digits of `multipleOf` as a number: each needs states of its own (0.1 s for 10,000)."""
SEARCH_BYTES: Final = 1024 * 1024
"""Parts of a schema that are tried again, to name the one that is not honoured."""

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
_NUMBERS: Final = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_UNIMPLEMENTED = re.compile(r'Unimplemented keys: \["([^"]{1,60})"')


class SchemaRefused(Exception):
    """A JSON schema that answers cannot be held to.

    Attributes:
        message: a sentence that names keyword and path.
        keyword: the keyword that is not honoured, or "" where it is the schema as a whole.
        path: where it stands, such as `#/properties/a`.
    """

    def __init__(self, reason: str, keyword: str = "", path: Path = ()) -> None:
        self.keyword = keyword
        self.path = pointer(path)
        where = f'"{keyword}" at {self.path}' if keyword else f"at {self.path}"
        self.message = f"The JSON schema cannot be followed: {where} {reason}."
        super().__init__(self.message)

    def __reduce__(self) -> Any:
        return _again, (self.message, self.keyword, self.path)


def _again(message: str, keyword: str, path: str) -> SchemaRefused:
    made = SchemaRefused("", keyword)
    made.message, made.path = message, path
    made.args = (message,)
    return made


@functools.lru_cache(maxsize=64)
def compile_schema(text: str) -> str:
    """Return llguidance's grammar of a JSON schema; what was sound is remembered.

    Args:
        text: the schema, as JSON; its size is for the caller to bound.

    Raises:
        SchemaRefused: it is no JSON schema, or something of it cannot be honoured.
    """
    schema = _prepared(_read(text))
    problem = _problem(schema)
    if problem:
        raise _located(schema, problem)
    return _grammar(schema)


def limits() -> llguidance.LLParserLimits:
    """Return the bounds on the work for one schema, beyond which llguidance gives up."""
    return llguidance.LLParserLimits(
        initial_lexer_fuel=1_000_000,
        step_lexer_fuel=100_000,
        max_items_in_row=20_000,  # as many as properties that may come next
        step_max_items=200_000,
        max_lexer_states=100_000,
    )


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
        SchemaRefused: something is plainly wrong.
    """
    schema = copy.deepcopy(schema)
    named = False
    for _, one in places(schema):
        named = named or "$id" in one or "id" in one
    for path, one in places(schema):
        names = one.get("properties")
        if isinstance(names, dict) and len(names) > MAX_PROPERTIES:
            raise SchemaRefused(f"names more than {MAX_PROPERTIES}", "properties", path)
        _check_numbers(path, one)
        _check_pattern(path, one)
        _check_format(path, one)
        one.pop("x-guidance", None)
        if one.get("uniqueItems") is False:
            del one["uniqueItems"]  # what holds of every list
        reference = one.get("$ref")
        if isinstance(reference, str) and not named:
            if not reference.startswith("#"):
                raise SchemaRefused("refers to another document", "$ref", path)
            if reference[1:2] == "/" and not leads_somewhere(schema, reference):
                raise SchemaRefused("refers to nothing in this schema", "$ref", path)
    return schema


def _check_numbers(path: Path, schema: Schema) -> None:
    for keyword in _NUMBERS:
        value = schema.get(keyword)
        if isinstance(value, (int, float)) and not abs(value) <= 10**18:
            raise SchemaRefused("is beyond 10^18", keyword, path)
    value = schema.get("multipleOf")
    if type(value) not in (int, float):
        return
    try:
        _, digits, _ = Decimal(str(value)).normalize().as_tuple()
    except InvalidOperation:
        return
    if int("".join(map(str, digits))) > MAX_MULTIPLE:
        raise SchemaRefused(f"has more digits than {MAX_MULTIPLE}", "multipleOf", path)


def _check_pattern(path: Path, schema: Schema) -> None:
    named = schema.get("patternProperties")
    for pattern in (schema.get("pattern"), *(named if isinstance(named, dict) else ())):
        if isinstance(pattern, str) and regexes.size_of(pattern) > regexes.MAX_SIZE:
            keyword = "pattern" if pattern == schema.get("pattern") else "patternProperties"
            raise SchemaRefused("repeats or nests too much", keyword, path)
    if isinstance(schema.get("pattern"), str):
        schema["pattern"] = regexes.without_lookahead(schema["pattern"])


def _check_format(path: Path, schema: Schema) -> None:
    """Take formats of programs' own where a pattern beside them says what they mean."""
    name = schema.get("format")
    if name == "url":  # what zod calls a URI
        schema["format"] = "uri"
    elif isinstance(name, str) and "pattern" in schema and name not in _STANDARD_FORMATS:
        del schema["format"]
    elif name is not None and not isinstance(name, str):
        raise SchemaRefused("must be text", "format", path)


def _grammar(schema: Schema) -> str:
    return str(llguidance.LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=OPTIONS))


@functools.cache
def _bytes() -> llguidance.LLTokenizer:
    """Return a vocabulary of single bytes, with which schemas are judged where no model is."""
    return llguidance.LLTokenizer("byte")


def _problem(schema: Schema) -> str:
    """Return llguidance's objection to a schema; "" for none."""
    try:
        grammar = _grammar(schema)
    except ValueError as error:
        return str(error) or "invalid"
    matcher = llguidance.LLMatcher(_bytes(), grammar, log_level=0, limits=limits())
    if not matcher.is_error():
        matcher.compute_bitmask()
    return str(matcher.get_error())


def _located(root: Schema, problem: str) -> SchemaRefused:
    """Find the innermost part of a schema that is refused by itself, and the keyword of it."""
    path: Path = ()
    here = root
    left = SEARCH_BYTES
    found = True
    while found and left > 0:
        found = False
        for below, inner in children(here):
            alone = _without_references(inner)
            left -= len(json.dumps(alone))
            if left <= 0:
                break
            if reason := _problem(alone):
                path, here, problem, found = (*path, *below), inner, reason, True
                break
    return SchemaRefused(_said(problem), _keyword(path, here, problem, left), path)


def _keyword(path: Path, here: Schema, problem: str, left: int) -> str:
    named = _UNIMPLEMENTED.search(problem)
    if named and named[1] in here:
        return named[1]
    alone = here if not path else _without_references(here)
    for keyword in alone:
        if keyword in DEFINITIONS:
            continue
        left -= len(json.dumps(alone))
        if left <= 0:
            break
        if not _problem({name: value for name, value in alone.items() if name != keyword}):
            return str(keyword)[:60]
    return ""


def _without_references(value: Any) -> Any:
    """Return a part of a schema with which llguidance needs nothing from elsewhere."""
    if isinstance(value, dict):
        return {
            name: _without_references(one)
            for name, one in value.items()
            if not (name == "$ref" and isinstance(one, str))
        }
    return [_without_references(one) for one in value] if isinstance(value, list) else value


def _said(problem: str) -> str:
    """Return a reason in our words where it is a known one."""
    if "Unimplemented keys" in problem:
        return "is not supported"
    if "oneOf" in problem:
        return "has alternatives that more than one may hold of; use anyOf"
    if "look-around" in problem:
        return "looks ahead or behind, which is not supported"
    if "regex parse error" in problem:
        return "is no regular expression that is supported"
    if found := re.search(r"Unknown format: (.{1,40})", problem):
        return f"names a format that is not known ({found[1]})"
    if found := re.search(r"Invalid type: (.{1,40})", problem):
        return f"names a type that is none ({found[1]})"
    if "Unsatisfiable" in problem or "nsatisfiable" in problem:
        return "can be satisfied by no value"
    if "too complex" in problem.lower() or "fuel" in problem or "too large" in problem.lower():
        return "is too complex"
    return "is not supported (" + " ".join(problem.split())[:160] + ")"
