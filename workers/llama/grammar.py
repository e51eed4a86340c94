"""Bounds on what a grammar or a JSON schema may cost, found before llama.cpp sees it. Pure.

llama.cpp's own parser takes some grammars with its life or without an end (read in its
llama-grammar.cpp): nesting deep enough overflows the C stack, `{5,2}` counts down from zero for
ever, `"long literal"{1999}` takes gigabytes, and its test for left recursion walks the same rules
again for every way that leads to them, twice as long for each `x ::= y | y` in a chain. So the
grammar is read here first, by the same syntax and the same rewriting of repetitions, with a budget.
What does not parse is refused here too, which keeps llama.cpp from printing it.
"""

from __future__ import annotations

import functools
import json
import re
from typing import Any, Final

from workers.errors import GrammarError
from workers.llama.gbnf import read_rules
from workers.llama.grammar_cost import check_growth, check_recursion

MAX_CHARS: Final = 64 * 1024
MAX_SCHEMA_NESTING: Final = 64
MAX_PROPERTIES: Final = 256
MAX_SCHEMA_REPEAT: Final = 240
"""`maxItems` and the like; each becomes one more level of nesting in the grammar."""


@functools.lru_cache(maxsize=64)
def check_grammar(source: str) -> None:
    """Refuse a GBNF grammar that does not parse or costs too much; what was sound is remembered.

    Raises:
        GrammarError: with the place or the bound.
    """
    if len(source) > MAX_CHARS:
        raise GrammarError(
            f"The grammar has {len(source)} characters; at most {MAX_CHARS} are allowed.",
            chars=len(source),
            bound=MAX_CHARS,
        )
    if "\0" in source:
        raise GrammarError("The grammar contains a NUL character.")
    rules = read_rules(source)
    if "root" not in rules:
        raise GrammarError("The grammar has no rule named root.")
    check_recursion(rules)
    check_growth(rules)


def check_schema(source: str) -> None:
    """Refuse a JSON schema whose translation into a grammar would cost too much.

    Raises:
        GrammarError: with the bound.
    """
    try:
        schema = json.loads(source)
    except (ValueError, RecursionError) as error:
        raise GrammarError(f"The JSON schema is not valid JSON ({str(error)[:250]}).") from error
    if not isinstance(schema, dict):
        raise GrammarError("The JSON schema is not an object.")
    todo: list[tuple[Any, int]] = [(schema, 0)]
    while todo:
        value, depth = todo.pop()
        if depth > MAX_SCHEMA_NESTING:
            raise GrammarError(
                f"The JSON schema is nested deeper than {MAX_SCHEMA_NESTING} levels."
            )
        if isinstance(value, list):
            todo += [(item, depth + 1) for item in value]
        if not isinstance(value, dict):
            continue
        _check_repeats(value)
        todo += [(item, depth + 1) for item in value.values()]


def _check_repeats(schema: dict[str, Any]) -> None:
    properties = schema.get("properties")
    if isinstance(properties, dict) and len(properties) > MAX_PROPERTIES:
        raise GrammarError(
            f"The JSON schema has an object with more than {MAX_PROPERTIES} properties."
        )
    for least, most in (("minItems", "maxItems"), ("minLength", "maxLength")):
        low, high = schema.get(least, 0), schema.get(most)
        for value in (low, high):
            if isinstance(value, (int, float)) and not 0 <= value <= MAX_SCHEMA_REPEAT:
                raise GrammarError(
                    f"The JSON schema's {least} and {most} must be from 0 to {MAX_SCHEMA_REPEAT}."
                )
        if isinstance(low, int) and isinstance(high, int) and low > high:
            raise GrammarError(f"The JSON schema's {least} is above its {most}.")
    pattern = schema.get("pattern")
    if isinstance(pattern, str):
        product = 1
        for number in re.findall(r"\{[^}]*?([0-9]+)\s*\}", pattern):
            product *= max(1, int(number[:6]))
        if product > MAX_SCHEMA_REPEAT or pattern.count("(") > MAX_SCHEMA_NESTING:
            raise GrammarError("A pattern in the JSON schema repeats or nests too much.")
