"""The bounds on one JSON schema as a whole document. Pure.

llguidance goes down a schema level by level, through references too, without a bound of its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Final

from workers.wire.schema_errors import SchemaRefused
from workers.wire.schema_places import DEFINITIONS, Path, Schema, children, target

MAX_LEVELS: Final = 500
"""Schemas within schemas, those that references lead to added up; 1,300 were always sound."""
UNKNOWN_LEVELS: Final = 100
"""Of what a reference leads to that is no pointer within the document: as deep as JSON may be."""
MAX_MULTIPLE: Final = 10_000
"""The digits of `multipleOf` as a number: each needs states of its own (0.1 s for 10,000)."""
MAX_MULTIPLES: Final = 20_000
"""All distinct ones together, in the same measure."""
MAX_COMMON_MULTIPLE: Final = 100_000
"""Of distinct ones, which llguidance combines where both hold of one value (0.7 s)."""
_NUMBERS: Final = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")


def check_levels(root: Schema, places: Sequence[tuple[Path, Schema]]) -> None:
    """Refuse a schema that is nested too deeply, counting what references lead to.

    Args:
        root: the document, whose JSON is nested no deeper than `UNKNOWN_LEVELS`.
        places: all of its schemas, with their paths.

    Raises:
        SchemaRefused: the levels of the root and of each distinct target of a reference add up to
            more than `MAX_LEVELS`.
    """
    known: dict[int, int] = {}
    # with a base of its own, a part may mean something else by the same reference
    based = any(path and ("$id" in one or "id" in one) for path, one in places)
    total = _levels(root, known)
    seen: set[str] = set()
    for _, one in places:
        reference = one.get("$ref")
        if not isinstance(reference, str) or (reference in seen and not based):
            continue
        seen.add(reference)
        within = reference == "#" or reference.startswith("#/")
        inner = target(root, reference) if within and not based else None
        total += UNKNOWN_LEVELS if inner is None else _levels(inner, known)
    if total > MAX_LEVELS:
        raise SchemaRefused(
            f"is nested too deeply: more than {MAX_LEVELS} levels, counting what references lead to"
        )


def _levels(schema: Schema | bool, known: dict[int, int]) -> int:
    if isinstance(schema, bool):
        return 1
    found = known.get(id(schema))
    if found is None:
        below = (inner for path, inner in children(schema) if path[0] not in DEFINITIONS)
        found = 1 + max((_levels(inner, known) for inner in below), default=0)
        known[id(schema)] = found
    return found


def check_numbers(places: Sequence[tuple[Path, Schema]]) -> None:
    """Refuse numbers that are too large, and multiples that make too much work together.

    Raises:
        SchemaRefused: with the keyword, and the path of the first one that is too much.
    """
    multiples: dict[Decimal, int] = {}
    for path, schema in places:
        for keyword in _NUMBERS:
            value = schema.get(keyword)
            if isinstance(value, (int, float)) and not abs(value) <= 10**18:
                raise SchemaRefused("is beyond 10^18", keyword, path)
        one = _multiple(schema.get("multipleOf"))
        if one is None or one in multiples:
            continue
        multiples[one] = digits = int("".join(map(str, one.as_tuple().digits)))
        if digits > MAX_MULTIPLE:
            raise SchemaRefused(f"has more digits than {MAX_MULTIPLE}", "multipleOf", path)
        if len(multiples) == 1:
            continue
        beside = "is too much beside the others of the schema"
        if sum(multiples.values()) > MAX_MULTIPLES:
            raise SchemaRefused(
                f"{beside}: their digits add up to more than {MAX_MULTIPLES}", "multipleOf", path
            )
        if _common_multiple(multiples) > MAX_COMMON_MULTIPLE:
            raise SchemaRefused(
                f"{beside}: their least common multiple is above {MAX_COMMON_MULTIPLE} units of"
                " their last decimal place",
                "multipleOf",
                path,
            )


def _multiple(value: object) -> Decimal | None:
    """Return a `multipleOf` as llguidance takes it, without its sign; None if it is none."""
    if type(value) not in (int, float):
        return None
    try:
        return abs(Decimal(str(value))).normalize() or None
    except InvalidOperation:
        return None


def _common_multiple(multiples: Mapping[Decimal, int]) -> int:
    """Return the least common multiple of numbers, in units of their common decimal place.

    Zeros at the end cost nothing as long as no number shares a factor with 10.
    """
    if all(math.gcd(digits, 10) == 1 for digits in multiples.values()):
        return math.lcm(*multiples.values())
    exponent = min(int(value.as_tuple().exponent) for value in multiples)
    return math.lcm(*(int(value.scaleb(-exponent)) for value in multiples))
