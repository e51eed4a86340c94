"""Answers that match a regular expression, or are one of some texts: compiled for llguidance.

A herder judges an expression before it holds money for an order, a worker compiles the same text
by the same rules. The syntax is that of Rust's crate `regex`; what looks ahead, behind or back is
refused.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Final

import llguidance

from workers.wire import regexes
from workers.wire.guidance import objection_to
from workers.wire.schema_errors import reason

MAX_REMEMBERED: Final = 64
"""Expressions whose judgement is remembered, sound or not."""


class RegexRefused(Exception):
    """A regular expression that answers cannot be held to; its text is a sentence."""


def compile_regex(pattern: str) -> str:
    """Return llguidance's grammar of the texts that match an expression as a whole.

    Args:
        pattern: the expression; its length is for the caller to bound.

    Raises:
        RegexRefused: it does not parse, or has a part that cannot be followed.
    """
    grammar, problem = _judged(pattern)
    if problem:
        raise RegexRefused(f"The regular expression cannot be followed: it {problem}.")
    return grammar


@functools.lru_cache(maxsize=MAX_REMEMBERED)
def _judged(pattern: str) -> tuple[str, str]:
    """Return the grammar, and the reason for which it is refused; "" for none."""
    pattern = regexes.without_lookahead(pattern)
    if regexes.size_of(pattern) > regexes.MAX_SIZE:
        return "", "repeats or nests too much"
    grammar = _grammar(pattern)
    problem = objection_to(grammar)
    return grammar, reason(problem) if problem else ""


def compile_choice(texts: Iterable[str]) -> str:
    """Return llguidance's grammar of an answer that is one of some texts, all of them not empty."""
    return _grammar("|".join(map(_literal, texts)))


def _literal(text: str) -> str:
    """Return an expression that matches this text alone."""
    return "".join(
        char if char.isascii() and char.isalnum() else f"\\x{{{ord(char):x}}}" for char in text
    )


def _grammar(pattern: str) -> str:
    return str(llguidance.LLMatcher.grammar_from_regex(pattern))
