"""The part of a JSON schema that is refused is looked for within a bound."""

from __future__ import annotations

from typing import Any

import pytest

from workers.wire import schema_search
from workers.wire.schema_errors import is_too_much, reason
from workers.wire.schema_search import MAX_SECONDS, MAX_TRIED_BYTES, MAX_TRIES, located

NONSENSE = "of an unknown kind"


class Judge:
    """Objects to each part of a schema that holds a certain text."""

    def __init__(self, word: str, problem: str = NONSENSE, seconds: float = 0) -> None:
        self.word = word
        self.problem = problem
        self.tries = 0
        self.now = 0.0
        self.seconds = seconds

    def __call__(self, part: dict[str, Any]) -> str:
        self.tries += 1
        self.now += self.seconds
        return self.problem if self.word in str(part) else ""

    def clock(self) -> float:
        return self.now


def wide(width: int, last: dict[str, Any] | None = None) -> dict[str, Any]:
    properties: dict[str, Any] = {
        f"p{i}": {"allOf": [{"anyOf": [{"type": "object"}, {"type": "array"}]}] * 3}
        for i in range(width)
    }
    return {"type": "object", "properties": {**properties, "last": last or {"type": "nonsense"}}}


def found(schema: dict[str, Any], judge: Judge) -> tuple[str, str]:
    error = located(schema, judge.problem, judge, judge.clock)
    return error.keyword, error.path


def test_it_names_the_innermost_part_and_its_keyword() -> None:
    judge = Judge("nonsense")
    inner = {"title": "a", "items": {"anyOf": [{}, {"description": "b", "type": "nonsense"}]}}
    assert found(wide(5, inner), judge) == ("type", "#/properties/last/items/anyOf/1")
    assert judge.tries < 20


def test_its_tries_are_bounded_then_it_names_what_it_has_found() -> None:
    judge = Judge("nonsense")
    assert found(wide(MAX_TRIES + 1), judge) == ("", "#")
    assert judge.tries == MAX_TRIES
    judge = Judge("nonsense")
    deep = {"items": wide(MAX_TRIES + 1)}
    assert found(deep, judge) == ("", "#/items")
    assert judge.tries == MAX_TRIES


def test_its_computing_is_bounded() -> None:
    judge = Judge("nonsense", seconds=MAX_SECONDS / 3)
    assert found(wide(20), judge) == ("", "#")
    assert judge.tries == 4
    judge = Judge("nonsense")
    large = {"title": "x" * (MAX_TRIED_BYTES // 3)}
    assert found({"anyOf": [large] * 9, "items": {"type": "nonsense"}}, judge) == ("", "#")
    assert judge.tries == 2


@pytest.mark.parametrize("problem", ["schema too large", "fuel exhausted", "panic: a"])
def test_nothing_is_tried_where_the_whole_is_too_much(problem: str) -> None:
    judge = Judge("nonsense", problem)
    assert found(wide(3), judge) == ("", "#")
    assert judge.tries == 0


def test_a_keyword_that_is_named_is_looked_up() -> None:
    judge = Judge("'not'", 'Unimplemented keys: ["not"]')
    schema = wide(MAX_TRIES, {"items": {"properties": {"not": {"type": "array", "not": {}}}}})
    assert found(schema, judge) == ("not", "#/properties/last/items/properties/not")
    assert judge.tries == 1


@pytest.mark.parametrize(
    ("keyword", "value", "problem"),
    [
        ("type", ["object", "nonsense"], "Invalid type: nonsense"),
        ("format", "nonsense", "Unknown format: nonsense"),
    ],
)
def test_a_value_that_is_named_is_looked_up(keyword: str, value: object, problem: str) -> None:
    judge = Judge("nonsense", problem)
    schema = wide(MAX_TRIES, {"items": {keyword: value}})
    assert found(schema, judge) == (keyword, "#/properties/last/items")
    assert judge.tries == 1


def test_tries_are_as_few_where_no_part_is_refused_by_itself() -> None:
    judge = Judge("no part holds it", 'Unimplemented keys: ["not"]')
    many = {f"p{i}": {"not": {}} for i in range(3 * MAX_TRIES)}
    assert found({"properties": many}, judge) == ("", "#")
    assert judge.tries == MAX_TRIES == schema_search.MAX_TRIES


REASONS = {
    'Unimplemented keys: ["not"]': "is not supported",
    "Unknown format: fuel": "names a format that is not known",
    "Invalid type: too large": "names a type that is none",
    "Unsatisfiable schema: required property 'fuel' is unsatisfiable": (
        "can be satisfied by no value"
    ),
    "schema too large": "is too complex",
    "Schema intersection stack level exceeded": "is too complex",
    "fuel exhausted when checking relevance of lexemes (1)": "is too complex",
    "Too many items (limit 1)": "is too complex",
    "panic: assertion failed: a == b\nbacktrace: circular": "is too complex",
    "thread panicked at parser/src/x.rs:1": "is too complex",
    "Value for 'multipleOf' has too many digits: 1": "has too many digits",
    "invalid multiple of": "must be more than 0",
    "Expected positive integer for 'minLength', got -1": "must be a whole number of at least 0",
    "Pointer '/a' does not exist": "refers to nothing in this schema",
    "Resource 'a' is not present in a registry": "refers to nothing in this schema",
    "circular references with sibling keys are not supported: a": (
        "refers to itself beside other keywords"
    ),
    "unexpected end of hex escape at line 1 column 9": "is not supported",
    "anything": "is not supported",
    "": "is not supported",
}


@pytest.mark.parametrize(("problem", "said"), REASONS.items(), ids=range(len(REASONS)))
def test_nothing_of_a_librarys_words_is_passed_on(problem: str, said: str) -> None:
    assert reason(problem) == said
    assert is_too_much(problem) is (said == "is too complex")
    judge = Judge("nonsense", problem)
    message = located({"type": "nonsense"}, problem, judge, judge.clock).message
    assert message.endswith(f" {said}.")
    assert message.startswith("The JSON schema cannot be followed: ")
    assert len(message) < len(said) + 60
