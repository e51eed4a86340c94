"""The schemas within a JSON schema, their paths, and references between them. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import unquote

Schema = dict[str, Any]
Path = tuple[str | int, ...]

_ONE: Final = frozenset(
    (
        "additionalItems",
        "additionalProperties",
        "contains",
        "contentSchema",
        "else",
        "if",
        "items",
        "not",
        "propertyNames",
        "then",
        "unevaluatedItems",
        "unevaluatedProperties",
    )
)
_LISTS: Final = frozenset(
    (
        "allOf",
        "anyOf",
        "items",
        "oneOf",
        "prefixItems",
    )
)
_NAMED: Final = frozenset(
    (
        "$defs",
        "definitions",
        "dependencies",
        "dependentSchemas",
        "patternProperties",
        "properties",
    )
)
DEFINITIONS: Final = ("$defs", "definitions")


def children(schema: Schema) -> Iterator[tuple[Path, Schema]]:
    """Yield the schemas directly below one, each with its path from there.

    What merely looks like a schema is none: a property may be named `not`, and a value of an enum
    may be anything.
    """
    for keyword, value in schema.items():
        if keyword in _ONE and isinstance(value, dict):
            yield (keyword,), value
        elif keyword in _LISTS and isinstance(value, list):
            for number, one in enumerate(value):
                if isinstance(one, dict):
                    yield (keyword, number), one
        elif keyword in _NAMED and isinstance(value, dict):
            for name, one in value.items():
                if isinstance(one, dict):
                    yield (keyword, name), one


def places(schema: Schema) -> Iterator[tuple[Path, Schema]]:
    """Yield a schema and all below it, each with its path; those outside come first."""
    todo: list[tuple[Path, Schema]] = [((), schema)]
    while todo:
        path, one = todo.pop()
        yield path, one
        todo += [((*path, *below), inner) for below, inner in children(one)]


def pointer(path: Path) -> str:
    """Return a path as JSON Schema writes it, such as `#/properties/a`; cut if it is very long."""
    steps = (str(step).replace("~", "~0").replace("/", "~1") for step in path)
    text = "/".join(["#", *steps])
    return text if len(text) <= 200 else f"{text[:150]}…{text[-40:]}"


def leads_somewhere(root: Schema, reference: str) -> bool:
    """Return whether a reference within the document points to a schema.

    Args:
        root: the document.
        reference: `#`, or a pointer such as `#/$defs/Node`.
    """
    return target(root, reference) is not None


def steps(reference: str) -> list[str]:
    """Return the steps of a pointer such as `#/$defs/Node`, from the document down."""
    return [unquote(raw).replace("~1", "/").replace("~0", "~") for raw in reference.split("/")[1:]]


def target(root: Schema, reference: str) -> Schema | bool | None:
    """Return the schema that a reference within the document points to; None if there is none."""
    here: Any = root
    for step in steps(reference):
        if isinstance(here, dict) and step in here:
            here = here[step]
        elif isinstance(here, list) and step.isdecimal() and int(step[:9]) < len(here):
            here = here[int(step[:9])]
        else:
            return None
    return here if isinstance(here, (dict, bool)) else None


def reached(root: Schema) -> Iterator[tuple[Path, Schema]]:
    """Yield all schemas of a document, each once, and those to which only references lead.

    The latter stand where no keyword of JSON Schema holds schemas, such as `#/components/schemas`.
    """
    todo: list[tuple[Path, Schema]] = [((), root)]
    seen: set[int] = set()
    while todo:
        start, schema = todo.pop()
        for path, one in places(schema):
            if id(one) in seen:
                continue
            seen.add(id(one))
            yield (*start, *path), one
            reference = one.get("$ref")
            if isinstance(reference, str) and reference.startswith("#"):
                inner = target(root, reference)
                if isinstance(inner, dict) and id(inner) not in seen:
                    todo.append((tuple(steps(reference)), inner))
