"""Refuses grammars that parse but are too much work: rules without end, ways that double. Pure."""

from __future__ import annotations

import heapq
from typing import Final

from workers.errors import GrammarError
from workers.llama.gbnf import TOKEN, Sequence

MAX_WALKS: Final = 100_000
"""Visits of rules from other rules, each way that leads to them counted."""
MAX_STACKS: Final = 4096
"""Ways to go on at once; a grammar that is seen to get there doubles them with each character."""

PROBE_STEPS: Final = 30_000
"""Work of the search for such a text: a tenth of a second or so."""

PROBE_LETTERS: Final = 32

PROBE_LENGTH: Final = 64
"""Characters in such a text; the longest tokens of vocabularies have about as many."""

Place = tuple[str, int, int]
"""A rule, one of its alternates, and a position in it."""

Stack = tuple[Place, ...]
"""One way to go on: the place to read from last, below it where to go on after its rule."""


def check_recursion(rules: dict[str, list[Sequence]]) -> None:
    """Refuse left recursion, and rules that lead to each other in too many ways."""
    empty = {name for name, alternates in rules.items() if [] in alternates}
    walks: dict[str, int] = {}
    open_: set[str] = set()
    for start in rules:
        # without recursion: a chain of rules may be longer than Python's stack
        stack: list[tuple[str, list[str]]] = []
        if start not in walks:
            stack.append((start, _first(rules[start], empty)))
            open_.add(start)
        while stack:
            name, firsts = stack[-1]
            todo = next((first for first in firsts if first not in walks), None)
            if todo is not None:
                if todo in open_:
                    raise GrammarError(f"The grammar's rule {todo[:100]} begins with itself.")
                open_.add(todo)
                stack.append((todo, _first(rules[todo], empty)))
                continue
            walks[name] = 1 + sum(walks[first] for first in firsts)
            if walks[name] > MAX_WALKS:
                raise GrammarError("The grammar's rules refer to each other in too many ways.")
            open_.discard(name)
            stack.pop()


def _first(alternates: list[Sequence], empty: set[str]) -> list[str]:
    """Return the rules that are looked into from here, once for each way that leads there."""
    found = []
    for sequence in alternates:
        for item in sequence:
            if not isinstance(item, str):
                break
            found.append(item)
            if item not in empty:
                break
    return found


def check_growth(rules: dict[str, list[Sequence]]) -> None:
    """Refuse a grammar that is seen to have exponentially many ways to go on.

    Whoever follows a grammar keeps all of them. This looks for a text where they double, for a
    bounded time; what it does not find is left to the clock (`GrammarTooSlow`) and the supervisor.
    """
    edges = {
        low for a in rules.values() for s in a for i in s if isinstance(i, tuple) for low, _ in i[1]
    }
    letters = [*sorted(edges)[:PROBE_LETTERS], 0x1F999]  # and one that hardly anybody names
    begin: frozenset[Stack] = frozenset()
    for number in range(len(rules["root"])):
        begin |= _ways(rules, _push((), ("root", number, 0), rules))
    seen = {begin}
    todo = [(-len(begin), 0, 0, begin)]
    work = 0
    while todo and work < PROBE_STEPS:
        _, _, length, stacks = heapq.heappop(todo)
        by_place: dict[Place, list[Stack]] = {}
        for stack in stacks:
            if stack:
                by_place.setdefault(stack[-1], []).append(stack[:-1])
        for letter in letters:
            after: set[Stack] = set()
            for place, belows in by_place.items():
                work += 1
                if _takes(rules, place, letter):
                    rule, number, at = place
                    for below in belows:
                        ways = _ways(rules, _push(below, (rule, number, at + 1), rules))
                        work += len(ways)
                        after |= ways
                        if len(after) > MAX_STACKS:
                            raise GrammarError(
                                "The grammar is ambiguous: its ways to continue double with each "
                                "character."
                            )
                        if work > 4 * PROBE_STEPS:
                            return
            found = frozenset(after)
            if found and found not in seen and length < PROBE_LENGTH:
                seen.add(found)
                heapq.heappush(todo, (-len(found), len(seen), length + 1, found))


def _push(stack: Stack, place: Place, rules: dict[str, list[Sequence]]) -> Stack:
    rule, number, at = place
    return (*stack, place) if at < len(rules[rule][number]) else stack


def _takes(rules: dict[str, list[Sequence]], place: Place, letter: int) -> bool:
    rule, number, at = place
    item = rules[rule][number][at]
    if isinstance(item, str) or item == TOKEN:
        return False
    negated, ranges = item
    return negated != any(low <= letter <= high for low, high in ranges)


def _ways(rules: dict[str, list[Sequence]], stack: Stack) -> frozenset[Stack]:
    """Return all that a stack stands for once references are followed to what takes characters."""
    found: set[Stack] = set()
    seen: set[Stack] = set()
    todo = [stack]
    while todo:
        stack = todo.pop()
        if stack in seen:
            continue
        seen.add(stack)
        if len(found) > MAX_STACKS or len(seen) > 8 * MAX_STACKS:
            raise GrammarError(f"The grammar has more than {MAX_STACKS} ways to continue at once.")
        if not stack:
            found.add(stack)
            continue
        rule, number, at = stack[-1]
        item = rules[rule][number][at]
        if not isinstance(item, str):
            found.add(stack)
            continue
        below = _push(stack[:-1], (rule, number, at + 1), rules)
        todo += [_push(below, (item, other, 0), rules) for other in range(len(rules[item]))]
    return frozenset(found)
