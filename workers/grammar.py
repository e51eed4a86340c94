"""Bounds on what a grammar or a JSON schema may cost, found before llama.cpp sees it. Pure.

llama.cpp's own parser takes some grammars with its life or without an end (read in its
llama-grammar.cpp): nesting deep enough overflows the C stack, `{5,2}` counts down from zero for
ever, `"long literal"{1999}` takes gigabytes, and its test for left recursion walks the same rules
again for every way that leads to them, twice as long for each `x ::= y | y` in a chain. So the
grammar is read here first, by the same syntax and the same rewriting of repetitions, with a budget.
What does not parse is refused here too, which keeps llama.cpp from printing it.
"""

from __future__ import annotations

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

Sequence = list[str | None]
"""References by name; None stands for anything that takes a character or a token."""

_NAME = re.compile(r"[0-9A-Za-z-]+")
_ESCAPE = re.compile(r'\\(?:x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[trn\\"\[\]-])')
_REPEAT = re.compile(r"\{[ \t]*([0-9]+)[ \t]*(?:(,)[ \t]*([0-9]*)[ \t]*)?\}")


def check_grammar(source: str) -> None:
    """Refuse a GBNF grammar that does not parse or costs too much.

    Raises:
        GrammarError: with the place or the bound.
    """
    if len(source) > MAX_CHARS:
        raise GrammarError(
            f"the grammar has {len(source)} characters, at most {MAX_CHARS} are taken",
            chars=len(source),
            bound=MAX_CHARS,
        )
    if "\0" in source:
        raise GrammarError("the grammar has a NUL character")
    rules = _Reader(source).read()
    if "root" not in rules:
        raise GrammarError("the grammar has no rule named root")
    _check_recursion(rules)


def check_schema(source: str) -> None:
    """Refuse a JSON schema whose translation into a grammar would cost too much.

    Raises:
        GrammarError: with the bound.
    """
    try:
        schema = json.loads(source)
    except (ValueError, RecursionError) as error:
        raise GrammarError(f"the JSON schema is not JSON: {error}"[:300]) from error
    if not isinstance(schema, dict):
        raise GrammarError("the JSON schema is not an object")
    todo: list[tuple[Any, int]] = [(schema, 0)]
    while todo:
        value, depth = todo.pop()
        if depth > MAX_SCHEMA_NESTING:
            raise GrammarError(f"the JSON schema is nested deeper than {MAX_SCHEMA_NESTING}")
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
            f"the JSON schema has an object of more than {MAX_PROPERTIES} properties"
        )
    for least, most in (("minItems", "maxItems"), ("minLength", "maxLength")):
        low, high = schema.get(least, 0), schema.get(most)
        for value in (low, high):
            if isinstance(value, (int, float)) and not 0 <= value <= MAX_SCHEMA_REPEAT:
                raise GrammarError(f"{least} and {most} go from 0 to {MAX_SCHEMA_REPEAT}")
        if isinstance(low, int) and isinstance(high, int) and low > high:
            raise GrammarError(f"{least} is above {most}")
    pattern = schema.get("pattern")
    if isinstance(pattern, str):
        product = 1
        for number in re.findall(r"\{[^}]*?([0-9]+)\s*\}", pattern):
            product *= max(1, int(number[:6]))
        if product > MAX_SCHEMA_REPEAT or pattern.count("(") > MAX_SCHEMA_NESTING:
            raise GrammarError("a pattern in the JSON schema repeats or nests too much")


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
                for name_or_none in sequence:
                    if name_or_none is not None and name_or_none not in self.rules:
                        raise GrammarError(f"the grammar has no rule named {name_or_none[:100]}")
        return self.rules

    def alternates(self, nesting: int) -> list[Sequence]:
        if nesting > MAX_NESTING:
            raise GrammarError(f"the grammar is nested deeper than {MAX_NESTING}")
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
            return [None]
        if char in "<!":
            end = self.source.find(">", self.at)
            if end < 0 or not self.source.startswith("<", self.at + (char == "!")):
                raise self.error("a token such as <name>")
            inner = self.source[self.at + 1 + (char == "!") : end]
            if inner.startswith("[") and not re.fullmatch(r"\[[0-9]{1,9}\]", inner):
                raise self.error("a token's number such as <[12]>")
            self.at = end + 1
            return [None]
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
        if end == "]" and self.peek() == "^":
            self.at += 1
        count = 0
        while (char := self.peek()) != end:
            if not char:
                raise self.error(end)
            if char == "\\":
                self.match(_ESCAPE, "an escape")
            else:
                self.at += 1
            count += 1
        self.at += 1
        if end == "]":
            self.spend(count)
            return [None] if count else []
        return [None] * count

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
                    f"the grammar repeats {found[0][:40]}; bounds rise, up to {MAX_REPEAT}"
                )
        else:
            self.at += 1
        inner *= most or least or 1
        if inner >= MAX_REPEAT:
            raise GrammarError(f"the grammar repeats {inner} rules, at most {MAX_REPEAT - 1}")
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
                f"the grammar comes to more than {MAX_ELEMENTS} elements", bound=MAX_ELEMENTS
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
            f"the grammar does not parse: expected {wanted} in line {line}, column {column}",
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
                    raise GrammarError(f"the grammar's rule {todo[:100]} begins with itself")
                open_.add(todo)
                stack.append((todo, _first(rules[todo], empty)))
                continue
            walks[name] = 1 + sum(walks[first] for first in firsts)
            if walks[name] > MAX_WALKS:
                raise GrammarError("the grammar's rules lead to each other in too many ways")
            open_.discard(name)
            stack.pop()


def _first(alternates: list[Sequence], empty: set[str]) -> list[str]:
    """The rules that llama.cpp looks into from here, once for each time that it does."""
    found = []
    for sequence in alternates:
        for item in sequence:
            if item is None:
                break
            found.append(item)
            if item not in empty:
                break
    return found
