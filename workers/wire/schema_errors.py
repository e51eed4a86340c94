"""The reasons for refusing a JSON schema, in our words: no library's text is passed on. Pure."""

from __future__ import annotations

import re
from typing import Any, Final

from workers.wire.schema_places import Path, pointer

_TOO_MUCH: Final = re.compile(r"too (large|complex|many)|fuel|stack level", re.IGNORECASE)
_PANIC: Final = re.compile(r"panic(ked|:)|assertion failed")
_REASONS: Final = (
    ("Unimplemented keys", "is not supported"),
    ("oneOf", "has alternatives that more than one may hold of; use anyOf"),
    ("lookarounds", "has an anchor or a word boundary in a place where that is not supported"),
    ("look-around", "looks ahead or behind, which is not supported"),
    ("regex parse error", "is no regular expression that is supported"),
    ("Unknown format", "names a format that is not known"),
    ("Invalid type", "names a type that is none"),
    ("NoExtension", "can be satisfied by no text"),
    ("nsatisfiable", "can be satisfied by no value"),
    ("too many digits", "has too many digits"),
    ("invalid multiple of", "must be more than 0"),
    ("Expected positive integer", "must be a whole number of at least 0"),
    ("does not exist", "refers to nothing in this schema"),
    ("not present", "refers to nothing in this schema"),
    ("circular", "refers to itself beside other keywords"),
)
"""Parts of llguidance's objections, of which the first that fits counts, and our words for them."""


class SchemaRefused(Exception):
    """A JSON schema that answers cannot be held to.

    Attributes:
        message: a sentence that names keyword and path.
        keyword: the keyword that is not honoured, or "" where it is the schema as a whole.
        path: where it stands, such as `#/properties/a`.
    """

    def __init__(self, reason: str, keyword: str = "", path: Path = ()) -> None:
        self.keyword = keyword
        self.path = pointer(path)
        where = f'"{keyword}" at {self.path}' if keyword else f"at {self.path}"
        self.message = f"The JSON schema cannot be followed: {where} {reason}."
        super().__init__(self.message)

    def again(self) -> SchemaRefused:
        """Return the same refusal, to be raised anew."""
        return _again(self.message, self.keyword, self.path)

    def __reduce__(self) -> Any:
        return _again, (self.message, self.keyword, self.path)


def _again(message: str, keyword: str, path: str) -> SchemaRefused:
    made = SchemaRefused("", keyword)
    made.message, made.path = message, path
    made.args = (message,)
    return made


def is_too_much(problem: str) -> bool:
    """Return whether llguidance objects to the work that a schema makes, not to a part of it."""
    if _PANIC.search(problem):
        return True
    # what else it says quotes words of the schema
    return not _known(problem) and _TOO_MUCH.search(problem) is not None


def reason(problem: str) -> str:
    """Return the reason to state for an objection of llguidance."""
    if is_too_much(problem):
        return "is too complex"
    return _known(problem) or "is not supported"


def _known(problem: str) -> str:
    return next((said for part, said in _REASONS if part in problem), "")
