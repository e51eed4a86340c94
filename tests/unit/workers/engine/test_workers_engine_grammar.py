"""Grammars and schemas that would cost llama.cpp its life, or for ever, are refused at once."""

from __future__ import annotations

import json
import time

import pytest

from workers.errors import GrammarError
from workers.llama.grammar import MAX_CHARS, check_grammar, check_schema

GOOD = {
    "literal": 'root ::= "a"',
    "classes": r'root ::= [^a-z\]\\"] [\x41-\x5A\u00e9] .',
    "repeats": 'root ::= "a"* "b"+ "c"? [0-9]{2} [0-9]{2,} [0-9]{2,4} [0-9]{ 2 , 4 }',
    "groups": 'root ::= ("a" | "b" ("c" |))+ # a comment\n',
    "lines": 'root ::= a\n  | "x"\n'.replace("\n  |", " |\n ") + "a ::= (\n [a-c]\n)\r\n",
    "recursive": 'root ::= "(" root ")" | ""',
    "tokens": "root ::= <|im_end|> | !<[12]> root",
    "arithmetic": 'root ::= e\ne ::= t ([-+*/] t)*\nt ::= [0-9]+ | "(" e ")"',
    "long enumeration": "root ::= " + " | ".join(f'"{i * 7919}"' for i in range(2000)),
    "unused": 'root ::= "a"\nother-1 ::= other-2\nother-2 ::= "b"',
}

BAD = {
    "nothing": "",
    "no root": 'main ::= "a"',
    "unclosed": "root ::= (",
    "unclosed literal": 'root ::= "a',
    "unclosed class": "root ::= [a",
    "escape": r'root ::= "\q"',
    "hex": r'root ::= "\x4"',
    "nothing to repeat": "root ::= *",
    "repeat of nothing": 'root ::= ""*',
    "trailing": 'root ::= "a" )',
    "undefined": "root ::= x",
    "left recursion": 'root ::= root "a" | "b"',
    "hidden left recursion": 'root ::= e root\ne ::= "" | "x"',
    "far left recursion": "root ::= a\na ::= b\nb ::= root",
    "counts down for ever": 'root ::= "a"{5,2}',
    "repeats too often": 'root ::= "a"{2001}',
    "a number that overflows": 'root ::= "a"{99999999999999999999999}',
    "gigabytes": 'root ::= "' + "a" * 900 + '"{1999}',
    "many repeats": 'root ::= ("a"{0,1000}){1000}',
    "deep": "root ::= " + "(" * 5000 + '"a"' + ")" * 5000,
    "doubling": "root ::= r0\n"
    + "\n".join(f"r{i} ::= r{i + 1} | r{i + 1}" for i in range(60))
    + '\nr60 ::= "a"',
    "ambiguous": 'root ::= " " root "b" | " " root "c" | "e"',
    "ambiguous inside": 'root ::= "{" s "}"\ns ::= "a" s "b" | "a" s "c" | "a" s | ""',
    "ambiguous classes": 'root ::= (a | b)*\na ::= [x-z] a "y" | [w-y] a "z" | "q"\nb ::= "k"',
    "nothing in many ways": "root ::= r0\n"
    + "\n".join(f"r{i} ::= r{i + 1} r{i + 1}" for i in range(40))
    + '\nr40 ::= "" | "a"',
    "NUL": 'root ::= "a\0"',
    "huge": 'root ::= "' + "a" * MAX_CHARS + '"',
    "token": "root ::= <[99999999999999999999]>",
}


@pytest.mark.parametrize("source", GOOD.values(), ids=GOOD)
def test_takes_what_is_sound(source: str) -> None:
    check_grammar(source)


@pytest.mark.parametrize("source", BAD.values(), ids=BAD)
def test_refuses_at_once(source: str) -> None:
    began = time.perf_counter()
    with pytest.raises(GrammarError) as caught:
        check_grammar(source)
    assert time.perf_counter() - began < 30
    assert caught.value.permanent
    assert len(caught.value.message) < 300


def test_a_long_chain_of_rules_is_no_recursion() -> None:
    chain = "\n".join(f"r{i} ::= r{i + 1}" for i in range(3000))
    check_grammar(f'root ::= r0\n{chain}\nr3000 ::= "a"')


BAD_SCHEMAS = {
    "not JSON": "{",
    "not an object": "[]",
    "many items": '{"type": "array", "items": {"type": "number"}, "minItems": 1000000000}',
    "long string": '{"type": "string", "maxLength": 1e9}',
    "upside down": '{"type": "string", "minLength": 5, "maxLength": 2}',
    "pattern": json.dumps({"type": "string", "pattern": "^((a{99}){99}){99}$"}),
    "wide": json.dumps({"properties": {f"p{i}": {} for i in range(300)}}),
    "deep": '{"items":' * 100 + "{}" + "}" * 100,
    "deeper": "[" * 100_000,
}


@pytest.mark.parametrize("source", BAD_SCHEMAS.values(), ids=BAD_SCHEMAS)
def test_refuses_schemas(source: str) -> None:
    with pytest.raises(GrammarError):
        check_schema(source)


def test_takes_a_schema() -> None:
    check_schema('{"type": "object", "properties": {"a": {"type": "string", "maxLength": 80}}}')
