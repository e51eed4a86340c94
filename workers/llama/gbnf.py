"""Reads GBNF, the grammars of llama.cpp, by its own syntax and within a budget. Pure."""

from __future__ import annotations

import re
from typing import Final

from workers.errors import GrammarError

MAX_NESTING: Final = 256
MAX_REPEAT: Final = 2000
"""llama.cpp's own threshold for `{m,n}`."""
MAX_ELEMENTS: Final = 100_000
"""Characters, classes and references after repetitions are written out; about 10 MB."""

Letters = tuple[bool, tuple[tuple[int, int], ...]]
"""A set of characters: whether it is negated, and its ranges. A token has no ranges."""

Sequence = list[str | Letters]
"""References by name, and what takes characters."""

ANY: Final[Letters] = (True, ())

TOKEN: Final[Letters] = (False, ())

_NAME = re.compile(r"[0-9A-Za-z-]+")

_ESCAPE = re.compile(r'\\(?:x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[trn\\"\[\]-])')

_REPEAT = re.compile(r"\{[ \t]*([0-9]+)[ \t]*(?:(,)[ \t]*([0-9]*)[ \t]*)?\}")


def read_rules(source: str) -> dict[str, list[Sequence]]:
    """Read a grammar's rules, each as its alternates, with repetitions written out.

    Raises:
        GrammarError: it does not parse, or is beyond a bound; with the place or the bound.
    """
    return _Reader(source).read()


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
        """Return one item; None at the end of the sequence."""
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
        """Return a literal, one element for each character, or a class, one in all."""
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
