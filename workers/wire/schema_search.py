"""The search for the part of a JSON schema that is refused, by trying parts. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, Final

from workers.wire.schema_errors import SchemaRefused, is_too_much, reason
from workers.wire.schema_places import DEFINITIONS, Path, Schema, children, places

MAX_TRIES: Final = 100
MAX_TRIED_BYTES: Final = 1024 * 1024
"""Of all parts that are tried."""
MAX_SECONDS: Final = 2.0
"""Of computing: small parts that are sound may take half a second each."""

_UNIMPLEMENTED: Final = re.compile(r'Unimplemented keys: \["([^"]{1,60})"')
_VALUES: Final = (("type", "Invalid type: "), ("format", "Unknown format: "))


def located(
    root: Schema, problem: str, judge: Callable[[Schema], str], clock: Callable[[], float]
) -> SchemaRefused:
    """Return a refusal that names the innermost part that is refused by itself, and its keyword.

    It names what was found by the time the tries are spent, at worst the schema as a whole; that
    is named at once where it makes too much work, as its parts may.

    Args:
        root: the schema.
        problem: the objection to it.
        judge: returns the objection to a part of it; "" for none.
        clock: seconds of computing so far.
    """
    search = _Search(root, problem, judge, clock)
    try:
        if not is_too_much(problem):
            search.run()
    except _Spent:
        pass
    return SchemaRefused(reason(search.problem), search.keyword, search.path)


class _Spent(Exception):
    pass


class _Search:
    def __init__(
        self,
        root: Schema,
        problem: str,
        judge: Callable[[Schema], str],
        clock: Callable[[], float],
    ) -> None:
        self.root = root
        self.problem = problem
        self.keyword = ""
        self.path: Path = ()
        self._judge = judge
        self._clock = clock
        self._end = clock() + MAX_SECONDS
        self._tries = MAX_TRIES
        self._bytes = MAX_TRIED_BYTES

    def run(self) -> None:
        if self._look_up():
            return
        here = self.root
        found = True
        while found:
            found = False
            for below, inner in children(here):
                if problem := self._try(_without_references(inner)):
                    self.path, self.problem = (*self.path, *below), problem
                    here, found = inner, True
                    break
        self._name(here if not self.path else _without_references(here))

    def _look_up(self) -> bool:
        """Find a part by the keyword or value that the objection to the whole schema names."""
        for path, one in places(self.root):
            keyword = _named(one, self.problem)
            if keyword and self._try(_without_references(one)) == self.problem:
                self.path, self.keyword = path, keyword
                return True
        return False

    def _name(self, here: Schema) -> None:
        """Find the keyword without which a part is honoured."""
        self.keyword = _named(here, self.problem)
        if self.keyword:
            return
        for keyword in here:
            if keyword not in DEFINITIONS and not self._try(
                {name: value for name, value in here.items() if name != keyword}
            ):
                self.keyword = str(keyword)[:60]
                return

    def _try(self, part: Schema) -> str:
        self._tries -= 1
        self._bytes -= len(json.dumps(part))
        if self._tries < 0 or self._bytes < 0 or self._clock() > self._end:
            raise _Spent
        return self._judge(part)


def _named(schema: Schema, problem: str) -> str:
    """Return the keyword that an objection names, or whose value it names; "" if none."""
    unimplemented = _UNIMPLEMENTED.search(problem)
    if unimplemented and unimplemented[1] in schema:
        return unimplemented[1]
    for keyword, before in _VALUES:
        value = schema.get(keyword)
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, str) and problem.startswith(before + one):
                return keyword
    return ""


def _without_references(value: Any) -> Any:
    """Return a part of a schema with which llguidance needs nothing from elsewhere."""
    if isinstance(value, dict):
        return {
            name: _without_references(one)
            for name, one in value.items()
            if not (name == "$ref" and isinstance(one, str))
        }
    return [_without_references(one) for one in value] if isinstance(value, list) else value
