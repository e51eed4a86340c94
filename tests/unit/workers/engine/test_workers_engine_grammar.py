"""Grammars that do not parse, or would be too much work, are refused at once."""

from __future__ import annotations

from types import ModuleType

import pytest

from workers.errors import GrammarError
from workers.llama import gbnf, grammar_cost
from workers.llama.grammar import MAX_CHARS, check_grammar

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
    "bounds that fall": 'root ::= "a"{5,2}',
    "repeats too often": 'root ::= "a"{2001}',
    "a number of many digits": 'root ::= "a"{99999999999999999999999}',
    "NUL": 'root ::= "a\0"',
    "huge": 'root ::= "' + "a" * MAX_CHARS + '"',
    "token": "root ::= <[99999999999999999999]>",
}


@pytest.mark.parametrize("source", GOOD.values(), ids=GOOD)
def test_takes_what_is_sound(source: str) -> None:
    check_grammar(source)


def refusal(source: str) -> GrammarError:
    with pytest.raises(GrammarError) as caught:
        check_grammar(source)
    assert caught.value.permanent
    assert len(caught.value.message) < 300
    return caught.value


@pytest.mark.parametrize("source", BAD.values(), ids=BAD)
def test_refuses_what_does_not_parse(source: str) -> None:
    refusal(source)


BOUNDED: dict[str, tuple[ModuleType, str, int, str, str]] = {
    "nesting": (gbnf, "MAX_NESTING", 3, 'root ::= (((("a"))))', "nested deeper than 3"),
    "elements": (gbnf, "MAX_ELEMENTS", 20, 'root ::= "abcd"{5}', "more than 20 elements"),
    "a long literal": (gbnf, "MAX_ELEMENTS", 20, f'root ::= "{"a" * 30}" root', "more than 20"),
    "repeats": (gbnf, "MAX_REPEAT", 4, 'root ::= "a"{5}', "at most 4"),
    "repeats of repeats": (gbnf, "MAX_REPEAT", 8, 'root ::= ("a"{0,3}){3}', "repeats 12 rules"),
    "ways through rules": (
        grammar_cost,
        "MAX_WALKS",
        6,
        'root ::= a | a\na ::= b | b\nb ::= "x"',
        "in too many ways",
    ),
    "ways that double": (
        grammar_cost,
        "MAX_STACKS",
        8,
        'root ::= "x" root "b" | "x" root "c" | "e"',
        "ambiguous",
    ),
    "ways that double inside": (
        grammar_cost,
        "MAX_STACKS",
        8,
        'root ::= "{" s "}"\ns ::= "a" s "b" | "a" s "c" | "a" s | ""',
        "ambiguous",
    ),
    "ways that double by classes": (
        grammar_cost,
        "MAX_STACKS",
        8,
        'root ::= (a | b)*\na ::= [x-z] a "y" | [w-y] a "z" | "q"\nb ::= "k"',
        "ambiguous",
    ),
}


@pytest.mark.parametrize(
    ("module", "bound", "value", "source", "words"), BOUNDED.values(), ids=BOUNDED
)
def test_each_kind_of_work_has_a_bound(
    monkeypatch: pytest.MonkeyPatch,
    module: ModuleType,
    bound: str,
    value: int,
    source: str,
    words: str,
) -> None:
    assert getattr(module, bound) > value
    monkeypatch.setattr(module, bound, value)
    check_grammar.cache_clear()
    assert words in refusal(source).message


def test_a_long_chain_of_rules_is_no_recursion() -> None:
    chain = "\n".join(f"r{i} ::= r{i + 1}" for i in range(3000))
    check_grammar(f'root ::= r0\n{chain}\nr3000 ::= "a"')
