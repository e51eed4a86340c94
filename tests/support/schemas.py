"""JSON schemas as programs send them: the cases that came with the project, and further shapes."""

from __future__ import annotations

import json
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AnyUrl, BaseModel, Field, TypeAdapter

CASES: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "cases" / "schemas.json").read_text()
)["cases"]
"""Each has a schema, texts that an answer must be able to be, and texts that it must never be."""

ZOD_EMAIL = (
    r"^(?!\.)(?!.*\.\.)([A-Za-z0-9_'+\-\.]*)[A-Za-z0-9_+-]@([A-Za-z0-9][A-Za-z0-9\-]*\.)+"
    r"[A-Za-z]{2,}$"
)
_DAY = (
    r"(?:(?:\d\d[2468][048]|\d\d[13579][26]|\d\d0[48]|[02468][048]00|[13579][26]00)-02-29|\d{4}-"
    r"(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\d|3[01])|(?:0[469]|11)-(?:0[1-9]|[12]\d|30)|(?:02)-"
    r"(?:0[1-9]|1\d|2[0-8])))"
)


def _text(kind: str, pattern: str | None = None) -> dict[str, Any]:
    return {"type": "string", "format": kind} | ({} if pattern is None else {"pattern": pattern})


ZOD: dict[str, tuple[dict[str, Any], str, str]] = {
    "email": (_text("email", ZOD_EMAIL), '"a.b@c.org"', '"a..b@c.org"'),
    "uuid": (
        _text(
            "uuid",
            r"^([0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[1-8][0-9a-fA-F]{3}-[89abAB][0-9a-fA-F]{3}-"
            r"[0-9a-fA-F]{12}|00000000-0000-0000-0000-000000000000|"
            r"ffffffff-ffff-ffff-ffff-ffffffffffff)$",
        ),
        '"3fa85f64-5717-4562-b3fc-2c963f66afa6"',
        '"3fa85f64-5717-9562-b3fc-2c963f66afa6"',
    ),
    "date": (_text("date", f"^{_DAY}$"), '"2024-02-29"', '"2023-02-29"'),
    "date-time": (
        _text("date-time", rf"^{_DAY}T(?:(?:[01]\d|2[0-3]):[0-5]\d(?::[0-5]\d(?:\.\d+)?)?(?:Z))$"),
        '"2024-02-29T10:00:00Z"',
        '"2024-02-30T10:00:00Z"',
    ),
    "url": (_text("uri"), '"https://x.org/a?b=c"', '"no address"'),
    "nanoid": (_text("nanoid", "^[a-zA-Z0-9_-]{21}$"), f'"{"a" * 21}"', '"a"'),
    "cuid2": (_text("cuid2", "^[0-9a-z]+$"), '"abc1"', '"A"'),
}
"""What zod 4 writes for its formats: the schema, a text that fits, and one that does not."""


class Colour(Enum):
    """An enumeration."""

    RED = "red"
    BLUE = "blue"


class Part(BaseModel):
    """A nested model."""

    name: Annotated[str, Field(min_length=1, max_length=20)]
    weight: Annotated[float, Field(gt=0, le=99.5)]


class Cat(BaseModel):
    """One of two alternatives."""

    kind: Literal["cat"]
    lives: Annotated[int, Field(ge=0, le=9)]


class Dog(BaseModel):
    """The other alternative."""

    kind: Literal["dog"]
    tricks: list[str] = []


class Tree(BaseModel):
    """A model that refers to itself at the root."""

    value: int
    children: Annotated[list[Tree], Field(max_length=2)] = []


class Order(BaseModel):
    """Many kinds of fields."""

    id: UUID
    when: datetime
    day: date
    link: AnyUrl
    price: Decimal
    colour: Colour
    parts: Annotated[list[Part], Field(max_length=2)]
    anything: Any = None
    numbers: dict[str, int] = {}
    code: Annotated[str, Field(pattern=r"^[A-Z]{2}-\d{3}$")]
    pair: tuple[int, str]
    note: str | None = None


class Person(BaseModel):
    """A small model."""

    name: Annotated[str, Field(max_length=12)]
    age: Annotated[int, Field(ge=0, le=120)]
    colour: Colour


_PETS: TypeAdapter[Cat | Dog] = TypeAdapter(Annotated[Cat | Dog, Field(discriminator="kind")])


def _closed(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


_STEP = {"$ref": "#/$defs/step"}
SHAPES: dict[str, dict[str, Any]] = {
    **{f"pydantic: {m.__name__}": m.model_json_schema() for m in (Part, Cat, Dog, Order, Person)},
    "pydantic: recursive": Tree.model_json_schema(),
    "pydantic: alternatives": _PETS.json_schema(),
    **{f"zod: {name}": schema for name, (schema, _, _) in ZOD.items()},
    "zod: an object": {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **_closed(
            email=ZOD["email"][0],
            age={"type": "integer", "minimum": 0, "maximum": 9007199254740991},
            role={"type": "string", "enum": ["admin", "user"]},
        ),
    },
    "openai: steps": {
        **_closed(
            steps={"type": "array", "items": _STEP, "maxItems": 2}, answer={"type": "number"}
        ),
        "$defs": {"step": _closed(explanation={"type": "string", "maxLength": 30}, n={"const": 1})},
    },
    "openai: a nullable enum": _closed(unit={"type": ["string", "null"], "enum": ["F", "C", None]}),
    "a list of numbers": {
        "type": "array",
        "items": {"type": "number", "multipleOf": 0.5, "minimum": -2, "maximum": 2},
        "minItems": 1,
        "maxItems": 4,
    },
    "patterns of names": {
        "type": "object",
        "patternProperties": {"^x_[a-z]{1,4}$": {"type": "integer"}},
        "additionalProperties": False,
        "minProperties": 1,
        "maxProperties": 2,
    },
    "strange texts": {"enum": ['say "hi"', "a\\b", "line\nline", "🦙", "\u0000", "é"]},
    "an object or a list": {
        "anyOf": [_closed(a={"type": "boolean"}), {"type": "array", "items": {"type": "null"}}]
    },
    "allOf": {
        "allOf": [
            {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
            {"properties": {"a": {"minimum": 3, "maximum": 8}, "b": {"const": True}}},
        ],
    },
    "a list of a few kinds": {
        "type": "array",
        "prefixItems": [{"type": "integer"}, {"type": "string", "maxLength": 3}],
        "items": False,
        "minItems": 2,
    },
}
"""Further schemas as pydantic, zod and OpenAI's packages write them."""
