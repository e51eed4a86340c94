"""Patterns of JSON schemas, rewritten where the engine of constrained output knows no such thing.

Pure. What is put in a pattern's place matches the same texts, which tests show by trial.
"""

from __future__ import annotations

import re
from typing import Final

MAX_SIZE: Final = 20_000
"""Characters and classes of a pattern once repetitions are written out; more would be slow."""
MAX_NESTING: Final = 64

_LABELS = r"([A-Za-z0-9][A-Za-z0-9\-]*\.)+[A-Za-z]{2,}$"
_LOCAL = r"A-Za-z0-9_'+\-"

KNOWN: Final = {
    # zod 4, email: no dot at the beginning, no two in a row
    r"^(?!\.)(?!.*\.\.)([A-Za-z0-9_'+\-\.]*)[A-Za-z0-9_+-]@" + _LABELS: (
        rf"^([{_LOCAL}]+\.)*[{_LOCAL}]*[A-Za-z0-9_+-]@" + _LABELS
    ),
    # pydantic, Decimal: a number with at least one digit
    r"^(?!^[-+.]*$)[+-]?0*\d*\.?\d*$": r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)$",
}
"""Patterns with look-ahead that programs send, and the same without it."""

_REPEAT = re.compile(r"\{([0-9]{1,9})(?:,([0-9]{0,9}))?\}")


def without_lookahead(pattern: str) -> str:
    """Return a pattern that matches the same, without look-ahead where it is a known one."""
    return KNOWN.get(pattern, pattern)


def size_of(pattern: str) -> int:
    """Return the number of characters and classes of a pattern, repetitions written out.

    An estimate, which need not know all of the syntax: it bounds what a pattern may cost.
    """
    open_ = [0]  # sizes of the groups around this place
    last = 0  # of what a repetition would repeat
    at = 0
    while at < len(pattern):
        char = pattern[at]
        repeat = _REPEAT.match(pattern, at) if char == "{" else None
        if repeat is not None:
            most = int(repeat[2] or repeat[1])
            open_[-1] += last * (max(most, int(repeat[1])) - 1)
            last *= max(most, 1)
            at = repeat.end()
            continue
        if char == "(":
            open_.append(0)
            last = 0
        elif char == ")" and len(open_) > 1:
            last = open_.pop()
            open_[-1] += last
        elif char not in "*+?|^$":
            if char == "\\":
                at += 1
            elif char == "[":
                at = _end_of_class(pattern, at)
            last = 1
            open_[-1] += 1
        at += 1
        if len(open_) > MAX_NESTING:
            return MAX_SIZE + 1
    return sum(open_)


def _end_of_class(pattern: str, at: int) -> int:
    """Return the end of the class that begins at a place."""
    at += 1
    if pattern.startswith("^", at):
        at += 1
    if pattern.startswith("]", at):
        at += 1
    while at < len(pattern) and pattern[at] != "]":
        at += 2 if pattern[at] == "\\" else 1
    return at
