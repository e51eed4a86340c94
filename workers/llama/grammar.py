"""Bounds on what a grammar or a JSON schema may cost, found before llama.cpp sees it. Pure.

llama.cpp's own parser takes some grammars with its life or without an end (read in its
llama-grammar.cpp): nesting deep enough overflows the C stack, `{5,2}` counts down from zero for
ever, `"long literal"{1999}` takes gigabytes, and its test for left recursion walks the same rules
again for every way that leads to them, twice as long for each `x ::= y | y` in a chain. So the
grammar is read here first, by the same syntax and the same rewriting of repetitions, with a budget.
What does not parse is refused here too, which keeps llama.cpp from printing it.
"""

from __future__ import annotations

import functools
import heapq
import json
import re
from typing import Any, Final

from workers.errors import GrammarError

MAX_CHARS: Final = 64 * 1024
MAX_NESTING: Final = 256
MAX_REPEAT: Final = 2000
"""llama.cpp's own threshold for `{m,n}`."""
MAX_ELEMENTS: Final = 100_000
"""Characters, classes and references after repetitions are written out; about 10 MB."""
MAX_WALKS: Final = 100_000
"""Visits of rules by llama.cpp's test for left recursion."""
MAX_SCHEMA_NESTING: Final = 64
MAX_PROPERTIES: Final = 256
MAX_SCHEMA_REPEAT: Final = 240
"""`maxItems` and the like; each becomes one more level of nesting in the grammar."""

MAX_STACKS: Final = 4096
"""Ways to go on at once; a grammar that is seen to get there doubles them with each character."""
PROBE_STEPS: Final = 30_000
"""Work of the search for such a text: a tenth of a second or so."""
PROBE_LETTERS: Final = 32
PROBE_LENGTH: Final = 64
"""Characters in such a text; the longest tokens of vocabularies have about as many."""

Letters = tuple[bool, tuple[tuple[int, int], ...]]
"""What takes one character: whether it is in one of these ranges; or a token: in no range."""
Sequence = list[str | Letters]
"""References by name, and what takes characters."""
Place = tuple[str, int, int]
"""A rule, one of its alternates, and a position in it."""
Stack = tuple[Place, ...]
"""One way to go on: the place to read from last, below it where to go on after its rule."""

ANY: Final[Letters] = (True, ())
TOKEN: Final[Letters] = (False, ())

_NAME = re.compile(r"[0-9A-Za-z-]+")
_ESCAPE = re.compile(r'\\(?:x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[trn\\"\[\]-])')
_REPEAT = re.compile(r"\{[ \t]*([0-9]+)[ \t]*(?:(,)[ \t]*([0-9]*)[ \t]*)?\}")


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
    rules = _Reader(source).read()
    if "root" not in rules:
        raise GrammarError("The grammar has no rule named root.")
    _check_recursion(rules)
    _check_growth(rules)


def check_schema(source: str) -> None:
    """Refuse a JSON schema whose translation into a grammar would cost too much.

    Raises:
        GrammarError: with the bound.
    """
    try:
        schema = json.loads(source)
    except (ValueError, RecursionError) as error:
        raise GrammarError(f"The JSON schema is not valid JSON ({str(error)[:250]}).") from error
    if not isinstance(schema, dict):
        raise GrammarError("The JSON schema is not an object.")
    todo: list[tuple[Any, int]] = [(schema, 0)]
    while todo:
        value, depth = todo.pop()
        if depth > MAX_SCHEMA_NESTING:
            raise GrammarError(
                f"The JSON schema is nested deeper than {MAX_SCHEMA_NESTING} levels."
            )
        if isinstance(value, list):
            todo += [(item, depth + 1) for item in value]
        if not isinstance(value, dict):
            continue
        _check_repeats(value)
        todo += [(item, depth + 1) for item in value.values()]


def _check_repeats(schema: dict[str, Any]) -> None:
    properties = schema.get("properties")
    if isinstance(properties, dict) and len(properties) > MAX_PROPERTIES:
        raise GrammarError(
            f"The JSON schema has an object with more than {MAX_PROPERTIES} properties."
        )
    for least, most in (("minItems", "maxItems"), ("minLength", "maxLength")):
        low, high = schema.get(least, 0), schema.get(most)
        for value in (low, high):
            if isinstance(value, (int, float)) and not 0 <= value <= MAX_SCHEMA_REPEAT:
                raise GrammarError(
                    f"The JSON schema's {least} and {most} must be from 0 to {MAX_SCHEMA_REPEAT}."
                )
        if isinstance(low, int) and isinstance(high, int) and low > high:
            raise GrammarError(f"The JSON schema's {least} is above its {most}.")
    pattern = schema.get("pattern")
    if isinstance(pattern, str):
        product = 1
        for number in re.findall(r"\{[^}]*?([0-9]+)\s*\}", pattern):
            product *= max(1, int(number[:6]))
        if product > MAX_SCHEMA_REPEAT or pattern.count("(") > MAX_SCHEMA_NESTING:
            raise GrammarError("A pattern in the JSON schema repeats or nests too much.")


class _Reader:
    """Reads GBNF as llama.cpp does, and writes repetitions out into rules as it does."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.at = 0
        self.rules: dict[str, list[Sequence]] = {}
        self.elements = 0
        self.made = 0
        self.names: set[str] = set()

    def read(self) -> dict[str, list[Sequence]]:
        self.space(newlines=True)
        while self.at < len(self.source):
            name = self.match(_NAME, "a rule's name")[0]
            self.names.add(name)
            self.space(newlines=False)
            if not self.source.startswith("::=", self.at):
                raise self.error("::=")
            self.at += 3
            self.space(newlines=True)
            self.rules[name] = self.alternates(nesting=0)
            if self.at < len(self.source) and self.source[self.at] not in "\r\n":
                raise self.error("the end of the line")
            self.space(newlines=True)
        for alternates in list(self.rules.values()):
            for sequence in alternates:
                for item in sequence:
                    if isinstance(item, str) and item not in self.rules:
                        raise GrammarError(f"The grammar has no rule named {item[:100]}.")
        return self.rules

    def alternates(self, nesting: int) -> list[Sequence]:
        if nesting > MAX_NESTING:
            raise GrammarError(f"The grammar is nested deeper than {MAX_NESTING} levels.")
        found = [self.sequence(nesting)]
        while self.peek() == "|":
            self.at += 1
            self.space(newlines=True)
            found.append(self.sequence(nesting))
        return found

    def sequence(self, nesting: int) -> Sequence:
        sequence: Sequence = []
        last = 0  # where the item begins that a repetition would repeat
        inner = 1  # rules that it is made of
        while char := self.peek():
            if char in "*+?{":
                inner = self.repetition(char, sequence, last, inner)
            else:
                before = self.symbols
                item = self.item(char, nesting)
                if item is None:
                    break
                last = len(sequence)
                inner = max(1, self.symbols - before) if char == "(" else 1
                self.spend(len(item))
                sequence += item
            self.space(newlines=nesting > 0)
        return sequence

    def item(self, char: str, nesting: int) -> Sequence | None:
        """One item; None at the end of the sequence."""
        if char in '"[':
            return self.characters('"' if char == '"' else "]")
        if char == ".":
            self.at += 1
            return [ANY]
        if char in "<!":
            end = self.source.find(">", self.at)
            if end < 0 or not self.source.startswith("<", self.at + (char == "!")):
                raise self.error("a token such as <name>")
            inner = self.source[self.at + 1 + (char == "!") : end]
            if inner.startswith("[") and not re.fullmatch(r"\[[0-9]{1,9}\]", inner):
                raise self.error("a token's number such as <[12]>")
            self.at = end + 1
            return [TOKEN]
        if char == "(":
            self.at += 1
            self.space(newlines=True)
            name = self.new_rule(self.alternates(nesting + 1))
            if self.peek() != ")":
                raise self.error(")")
            self.at += 1
            return [name]
        if name_match := _NAME.match(self.source, self.at):
            self.at = name_match.end()
            self.names.add(name_match[0])
            return [name_match[0]]
        return None

    def characters(self, end: str) -> Sequence:
        """A literal, one element for each character, or a class, one in all."""
        self.at += 1
        negated = end == "]" and self.peek() == "^"
        self.at += negated
        found: list[tuple[int, int]] = []
        while (char := self.peek()) != end:
            if not char:
                raise self.error(end)
            low = high = self.character(char)
            if end == "]" and self.peek() == "-" and self.source[self.at + 1 : self.at + 2] != "]":
                self.at += 1
                high = self.character(self.peek())
            found.append((low, high))
        self.at += 1
        if end == "]":
            self.spend(2 * len(found))
            return [(negated, tuple(found))] if found else []
        return [(False, (one,)) for one in found]

    def character(self, char: str) -> int:
        if not char:
            raise self.error("a character")
        if char != "\\":
            self.at += 1
            return ord(char)
        escape = self.match(_ESCAPE, "an escape")[0]
        if escape[1] in "xuU":
            return int(escape[2:], 16)
        return ord({"t": "\t", "r": "\r", "n": "\n"}.get(escape[1], escape[1]))

    def repetition(self, char: str, sequence: Sequence, last: int, inner: int) -> int:
        """Write out a repetition of what stands from `last` on, which is `inner` rules."""
        if last == len(sequence):
            raise self.error("something to repeat")
        least, most = {"*": (0, None), "+": (1, None), "?": (0, 1)}.get(char, (0, None))
        if char == "{":
            found = self.match(_REPEAT, "a repetition such as {2,5}")
            least = int(found[1][:9])
            most = int(found[3][:9]) if found[3] else (None if found[2] else least)
            if least > MAX_REPEAT or (most is not None and not least <= most <= MAX_REPEAT):
                raise GrammarError(
                    f"The grammar's repetition {found[0][:40]} is invalid; its bounds must rise "
                    f"and be at most {MAX_REPEAT}."
                )
        else:
            self.at += 1
        inner *= most or least or 1
        if inner >= MAX_REPEAT:
            raise GrammarError(
                f"The grammar repeats {inner} rules; at most {MAX_REPEAT - 1} are allowed."
            )
        item = sequence[last:]
        self.spend((len(item) + 2) * max(least, most or 1))
        sequence[last:] = item * least
        if most is None:
            name = self.new_rule([])
            self.rules[name] = [[*item, name], []]
            sequence.append(name)
            return inner
        rest: Sequence = []
        for _ in range(most - least):
            rest = [self.new_rule([[*item, *rest], []])]
        sequence += rest
        return inner

    @property
    def symbols(self) -> int:
        """Rules named or made so far."""
        return len(self.names) + self.made

    def new_rule(self, alternates: list[Sequence]) -> str:
        self.made += 1
        name = f"{self.made}_"  # an underscore is not part of any name that is read
        self.rules[name] = alternates
        return name

    def spend(self, elements: int) -> None:
        self.elements += elements
        if self.elements > MAX_ELEMENTS:
            raise GrammarError(
                f"The grammar has more than {MAX_ELEMENTS} elements.", bound=MAX_ELEMENTS
            )

    def space(self, *, newlines: bool) -> None:
        while char := self.peek():
            if char == "#":
                while self.peek() not in ("", "\r", "\n"):
                    self.at += 1
            elif char in " \t" or (newlines and char in "\r\n"):
                self.at += 1
            else:
                return

    def peek(self) -> str:
        return self.source[self.at : self.at + 1]

    def match(self, pattern: re.Pattern[str], wanted: str) -> re.Match[str]:
        found = pattern.match(self.source, self.at)
        if found is None:
            raise self.error(wanted)
        self.at = found.end()
        return found

    def error(self, wanted: str) -> GrammarError:
        line = self.source.count("\n", 0, self.at) + 1
        column = self.at - self.source.rfind("\n", 0, self.at)
        return GrammarError(
            f"The grammar does not parse: expected {wanted} in line {line}, column {column}.",
            line=line,
            column=column,
        )


def _check_recursion(rules: dict[str, list[Sequence]]) -> None:
    """Refuse left recursion, and what makes llama.cpp's own test for it endless."""
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
    """The rules that llama.cpp looks into from here, once for each time that it does."""
    found = []
    for sequence in alternates:
        for item in sequence:
            if not isinstance(item, str):
                break
            found.append(item)
            if item not in empty:
                break
    return found


def _check_growth(rules: dict[str, list[Sequence]]) -> None:
    """Refuse a grammar that is seen to have exponentially many ways to go on.

    llama.cpp keeps all of them, so that `s ::= "a" s "b" | "a" s "c" | ""` would not come back
    from a token of sixteen `a`. This looks for such a text where the ways are most, for a bounded
    time; what it does not find is left to the clock (`GrammarTooSlow`) and the supervisor.
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
    """All that a stack stands for once references are followed to what takes characters."""
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
