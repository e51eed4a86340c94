"""Bounds on what a GBNF grammar may cost, found before llama.cpp sees it. Pure.

Nesting, repetitions, recursion and the number of ways to go on have bounds, since all of them are
work for whoever parses a grammar or follows it, and a grammar is anybody's. So it is read here
first, by llama.cpp's syntax and its rewriting of repetitions, within a budget. What does not parse
is refused here too, with line and column. JSON schemas never become such a grammar.
"""

from __future__ import annotations

import functools
from typing import Final

from workers.errors import GrammarError
from workers.llama.gbnf import read_rules
from workers.llama.grammar_cost import check_growth, check_recursion

MAX_CHARS: Final = 64 * 1024


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
