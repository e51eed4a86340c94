"""A JSON schema is bounded as a whole: levels through references, and multiples."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.schemas import CASES, SHAPES
from workers.wire import schema_bounds
from workers.wire.schema_bounds import (
    MAX_COMMON_MULTIPLE,
    MAX_LEVELS,
    MAX_MULTIPLES,
    UNKNOWN_LEVELS,
    check_levels,
    check_numbers,
)
from workers.wire.schema_errors import SchemaRefused
from workers.wire.schema_places import Schema, reached
from workers.wire.schemas import MAX_NESTING, compile_schema


def refused(check: Callable[..., None], *arguments: object) -> SchemaRefused | None:
    try:
        check(*arguments)
    except SchemaRefused as error:
        return error
    return None


def levels_pass(schema: Schema) -> bool:
    error = refused(check_levels, schema, list(reached(schema)))
    if error is not None:
        assert (error.keyword, error.path) == ("", "#")
        assert "is nested too deeply" in error.message
    return error is None


def levels_of(schema: Schema, monkeypatch: pytest.MonkeyPatch) -> int:
    for limit in range(1, 10 * UNKNOWN_LEVELS):
        monkeypatch.setattr(schema_bounds, "MAX_LEVELS", limit)
        if levels_pass(schema):
            return limit
    raise AssertionError


def chain(definitions: int, levels: int) -> dict[str, Any]:
    """A root that refers to the first of some definitions, each of which leads to the next."""
    defs: dict[str, Any] = {}
    for number in range(definitions):
        inner: dict[str, Any] = {"type": "integer"}
        if number + 1 < definitions:
            inner = {"$ref": f"#/$defs/d{number + 1}"}
        for _ in range(levels - 1):
            inner = {"items": inner}
        defs[f"d{number}"] = inner
    return {"$ref": "#/$defs/d0", "$defs": defs}


NODE = {"$ref": "#/$defs/n"}
COUNTED: dict[str, tuple[dict[str, Any], int]] = {
    "nothing": ({}, 1),
    "alone": ({"items": {"anyOf": [{}, {"not": {}}]}}, 4),
    "definitions nobody refers to": ({"$defs": {"a": {"items": {}}}}, 1),
    "twice": ({"prefixItems": [NODE, NODE], "$defs": {"n": {"items": {}}}}, 2 + 2),
    "itself": ({**NODE, "$defs": {"n": {"items": NODE}}}, 1 + 2),
    "the root": ({"items": {"$ref": "#"}}, 2 + 2),
    "true": ({**NODE, "$defs": {"n": True}}, 1 + 1),
    "within another": (
        {"items": NODE, "not": {"$ref": "#/$defs/n/items"}, "$defs": {"n": {"items": {}}}},
        2 + 2 + 1,
    ),
    "elsewhere": (
        {"$ref": "#/x/a", "x": {"a": {"items": {"$ref": "#/x/b"}}, "b": {"items": {}}}},
        1 + 2 + 2,
    ),
    "an anchor": ({"items": {"$ref": "#here"}}, 2 + UNKNOWN_LEVELS),
    "a document": ({"$id": "a:b", "items": {"$ref": "a:b#/$defs/n"}}, 2 + UNKNOWN_LEVELS),
    "with bases of their own": (
        {"prefixItems": [{"$id": "a:b", **NODE}, NODE], "$defs": {"n": {}}},
        2 + 2 * UNKNOWN_LEVELS,
    ),
}


@pytest.mark.parametrize(("schema", "levels"), COUNTED.values(), ids=COUNTED)
def test_levels_are_counted_through_references(
    schema: dict[str, Any], levels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert levels_of(schema, monkeypatch) == levels


def test_a_chain_of_references_is_taken_up_to_the_bound() -> None:
    most = (MAX_LEVELS - 1) // 50
    compile_schema(json.dumps(chain(most, 50)))
    compile_schema(json.dumps(chain(MAX_LEVELS - 1, 1)))
    for one in (chain(most + 1, 50), chain(MAX_LEVELS, 1)):
        assert not levels_pass(one)  # so that it never gets to the library
        with pytest.raises(SchemaRefused, match="is nested too deeply"):
            compile_schema(json.dumps(one))


def test_what_is_unknown_counts_as_much_as_json_may_be_nested() -> None:
    assert UNKNOWN_LEVELS >= MAX_NESTING


@pytest.mark.parametrize("schema", [*(case["schema"] for case in CASES), *SHAPES.values()])
def test_what_programs_send_is_far_from_the_bound(
    schema: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert levels_of(schema, monkeypatch) < MAX_LEVELS / 5


def multiples(*values: object) -> str:
    """What is said to properties that are multiples of some values."""
    schema = {"properties": {f"p{i}": {"multipleOf": one} for i, one in enumerate(values)}}
    places = sorted(reached(schema), key=lambda place: len(place[0]) and int(str(place[0][1])[1:]))
    error = refused(check_numbers, places)
    if error is None:
        return ""
    assert error.keyword == "multipleOf"
    assert error.path == f"#/properties/p{len(values) - 1}"
    return error.message


@pytest.mark.parametrize(
    "values",
    [
        (9973,),
        (10_000,),
        (9973, 9973, 9973.0, -9973),
        (0.01, 1000),
        (0.01, 0.05, 0.1, 0.5, 1, 5, 10, 100, 1000),
        (0.000001, 1, 10_000),
        (331, 293),
        (0.5, 3, 7, 11, 13),
        (8, 12_500),
        (0, 9973, "3", None, True, [1]),
    ],
)
def test_multiples_that_go_together_are_taken(values: tuple[object, ...]) -> None:
    assert multiples(*values) == ""


@pytest.mark.parametrize(
    "values",
    [
        (499, 491),
        (9973, 9967),
        (0.499, 491),
        (8192, 3125),
        (8192, 10**6),
        (3125, 10**9),
        (2, 3, 5, 7, 11, 13, 17),
        (1e-300, 3, 2),
    ],
)
def test_multiples_with_a_large_common_one_are_refused(values: tuple[object, ...]) -> None:
    assert multiples(*values[:-1]) == ""
    assert f"is above {MAX_COMMON_MULTIPLE} units" in multiples(*values)


def test_multiples_that_are_too_much_together_are_refused() -> None:
    values = [one for one in range(1, 9999) if 83_160 % one == 0]
    digits = [int(str(one).rstrip("0")) for one in values]
    taken = next(n for n in range(len(values)) if sum(digits[: n + 1]) > MAX_MULTIPLES)
    assert multiples(*values[:taken]) == ""
    assert f"add up to more than {MAX_MULTIPLES}" in multiples(*values[: taken + 1])
