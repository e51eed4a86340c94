"""Bodies that no client with good intentions sends, made from what a route says that it takes.

A body is the route's own example with one thing wrong in it, or no JSON at all. The same seed makes
the same bodies.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jsonschema_rs

Schema = Mapping[str, Any]
Path = tuple[str | int, ...]
_HOLE = "\ue000hole\ue000"

VALUES = (
    *("null", "true", "false", "0", "-1", "-0", "1", "1.0", "1.5", "0.1", "-0.0", "1e0", "1e400"),
    *("-1e400", "1E+2", "NaN", "Infinity", "-Infinity", "9" * 20, "-" + "9" * 25, "9" * 400),
    *("9" * 5000, "1" + "0" * 308 + ".5", "0." + "0" * 400 + "1", "1e-400", str(2**53), str(2**63)),
    *(str(2**64), "01", "+1", "0x10", "1_000", "1,5", ".5", "5.", "--1"),
    *("\u0661", "undefined", "None"),
    *('""', '" "', '"1"', '"1.5"', '"true"', '"null"', '"NaN"', '"-1"', '"1e999999999"'),
    *('"\\ud800"', '"a\\udfffb"', '"\\ud83d"', '"\\ud83d\\ud83d"', '"\\u0000"', '"a\\u0000b"'),
    *('"\\u202e\\u200b"', '"\\uffff"', '"\\r\\nX-Fee: 1"', '"\x01"', '"\n"', '"\x7f"', '"\\x"'),
    *(f'"{"a" * 70_000}"', f'"{"é" * 20_000}"', f'"{"🦙" * 9000}"', '"=1+1"', '"../../etc/passwd"'),
    *('"\' OR 1=1 --"', '"<script>"', '"${jndi:ldap://x}"', '"%00%n%s"', "'single'", "[]", "[[]]"),
    *(
        "[null]",
        "[1,2,3]",
        '["a","b"]',
        "[{}]",
        "{}",
        '{"":""}',
        '{"a":{"b":{"c":1}}}',
        "[,]",
        "{,}",
    ),
    *("[" * 200 + "]" * 200, '{"a":' * 200 + "1" + "}" * 200, "[" * 90_000 + "]" * 90_000),
    *('{"a":' * 60_000 + "1" + "}" * 60_000, "[" + "0," * 30_000 + "0]", "[" + "[]," * 300 + "[]]"),
    *('{"$ref":"#"}', '{"__proto__":1}', '{"type":"text","text":5}', '[{"type":"image_url"}]'),
    *('{"role":"user","content":null}', '["\\ud800"]', '[""]', "[true]", '{"1":"1"}', '{"-1":1}'),
    *(
        '{"1":NaN}',
        '{"99999999999":1}',
        '{"\\ud800":1}',
        "{1:1}",
        '{"a":1',
        '"open',
        "/**/1",
        "1 2",
    ),
)
"""JSON, or nearly, that stands where something else was wanted."""

KEYS = (
    *('"surprise"', '""', '"\\ud800"', '"\\u0000"', '"__class__"', '"account"', '"api_key"'),
    *(f'"{"k" * 50_000}"', '"tokens "', '"Tokens"', '"prompt\\u0000"', '"held"', '"a.b[0]"', "5"),
)

WHOLE = (
    *(b"", b" ", b"\n\n", b"{", b"}", b"[", b"]", b"{]", b"null", b"true", b"1", b"-", b'"', b"[]"),
    *(
        b"[[]]",
        b"[{}]",
        b'""',
        b'"text"',
        b"NaN",
        b"{}",
        b"{}{}",
        b"{} x",
        b"{,}",
        b'{"a"}',
        b"a=1",
    ),
    *(b'{"a":}', b'{"a":1,}', b"{'a':1}", b"<xml/>", b"\x00", b"\x00" * 1000, b"\xff\xfe", b"\xfe"),
    *(
        b"\xef\xbb\xbf",
        b"\xef\xbb\xbf{}",
        b"\xef\xbb\xbf[]",
        b"\xff" * 500,
        b"\xed\xa0\x80",
        b"\xc0\xaf",
    ),
    *(b'{"a":"\xff"}', b'{"a":"\xed\xa0\x80"}', b'{"\xc3(":1}', b"\x1f\x8b\x08\x00", b"PK\x03\x04"),
    *(b"[" * 100_000, b'{"a":' * 50_000, b"[" * 100_000 + b"]" * 100_000, b'"' + b"a" * 200_000),
    *(
        b"9" * 100_000,
        b"1e" + b"9" * 1000,
        b'{"a":' + b"9" * 100_000 + b"}",
        b"{" + b'"a":1,' * 20_000,
    ),
    *(
        b"tokens=5&prompt=x",
        b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--",
        b"\r\n\r\n",
    ),
    *(
        "{}".encode("utf-16"),
        "[]".encode("utf-16-le"),
        "{}".encode("utf-32"),
        b"+AHs-+AH0-",
        b"\x80",
    ),
)
"""Bodies that are wrong for every route."""


@dataclass(frozen=True, slots=True)
class Body:
    """A body.

    Attributes:
        content: the bytes.
        wrong: whether the route says that it does not take it.
    """

    content: bytes
    wrong: bool


def bodies(schema: Schema, document: Schema, seed: int) -> Iterator[Body]:
    """Hostile bodies for a route, without end; none comes twice until all came once.

    Args:
        schema: of the route's body.
        document: the OpenAPI document that it is from.
        seed: decides their order.
    """
    judge = jsonschema_rs.validator_for({**schema, "components": document["components"]})
    chance = random.Random(seed)
    found = list(WHOLE)
    shape = _resolved(schema, document)
    for base in _bases(shape, document):
        for where in _places(shape, base, document):
            found += [_with(base, where, value) for value in VALUES]
        for key in KEYS:
            text = json.dumps(base)
            found.append(f"{text[:-1]}{', ' if base else ''}{key}: 1}}".encode())
        for name in base:
            twice = json.dumps({name: None})[1:-1]
            found.append(f"{json.dumps(base)[:-1]}, {twice}}}".encode())
            found.append(json.dumps({k: v for k, v in base.items() if k != name}).encode())
        for code in ("utf-16", "utf-32", "utf-16-be", "utf-8-sig"):
            found.append(json.dumps({**base, "surprise": "é"}).encode(code))
    found = list(dict.fromkeys(found))
    while True:
        chance.shuffle(found)
        for content in found:
            yield Body(content, _wrong(content, judge))


def _wrong(content: bytes, judge: Any) -> bool:
    """Whether the document says that this is not taken."""
    try:
        value = json.loads(content, parse_constant=_no_number)
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        text.encode()  # no lone surrogates
        return not judge.is_valid(value)
    except (ValueError, RecursionError):
        return True


def _no_number(name: str) -> None:
    raise ValueError(name)


def _resolved(schema: Schema, document: Schema) -> Schema:
    while "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return schema


def _variants(schema: Schema, document: Schema) -> list[Schema]:
    """What a value may be, each as a schema of its own."""
    schema = _resolved(schema, document)
    if "anyOf" not in schema:
        return [schema]
    return [one for inner in schema["anyOf"] for one in _variants(inner, document)]


def _bases(shape: Schema, document: Schema) -> list[dict[str, Any]]:
    """Bodies in which nothing is wrong yet."""
    if examples := [one for one in shape.get("examples", ()) if isinstance(one, dict)]:
        return examples
    plain = [_plain(one, document) for one in _variants(shape, document)]
    return [one for one in plain if isinstance(one, dict)] or [{}]


def _plain(schema: Schema, document: Schema) -> Any:
    """Some value that fits a schema, more or less."""
    schema = _variants(schema, document)[0]
    if "const" in schema or "enum" in schema:
        return schema.get("const", schema.get("enum", [None])[0])
    kind = schema.get("type")
    if kind == "object":
        return {
            name: _plain(schema["properties"][name], document)
            for name in schema.get("required", ())
        }
    if kind == "array":
        return [_plain(schema["items"], document)] if "items" in schema else []
    number = schema.get("minimum", schema.get("exclusiveMinimum", 0) + 1)
    return {"integer": number, "number": number, "boolean": True, "null": None}.get(kind, "plain")


def _places(shape: Schema, base: dict[str, Any], document: Schema) -> list[Path]:
    """Where something may be wrong: each property, and what is in it, two levels deep."""
    found: list[Path] = []

    def walk(schema: Schema, where: Path) -> None:
        for one in _variants(schema, document):
            properties = one.get("properties", {})
            for name, inner in properties.items():
                if {"type", "anyOf", "$ref", "enum", "const"} & set(inner):
                    found.append((*where, name))
                    if len(where) < 4:
                        walk(inner, (*where, name))
            if one.get("type") == "array" and "items" in one and len(where) < 4:
                found.append((*where, 0))
                walk(one["items"], (*where, 0))

    walk(shape, ())
    return list(dict.fromkeys(found))


def _with(base: dict[str, Any], where: Path, value: str) -> bytes:
    """The body with a text, JSON or not, in one place."""
    changed: Any = json.loads(json.dumps(base))
    if isinstance(where[0], int):  # a route that takes several at once
        changed = [changed]
    at = changed
    for step, after in zip(where, (*where[1:], None), strict=True):
        new: Any = _HOLE if after is None else [] if isinstance(after, int) else {}
        if isinstance(step, int):
            if not at:
                at.append(new)
            elif after is None or not isinstance(at[0], type(new)):
                at[0] = new
        elif after is None or not isinstance(at.get(step), type(new)):
            at[step] = new
        at = at[step]
    return json.dumps(changed).replace(json.dumps(_HOLE), value).encode("utf-8", "surrogatepass")
