"""The root of all errors, and how a value or a text stands in a sentence."""

from __future__ import annotations

import copyreg
from typing import Any, ClassVar


def shown(value: object) -> str:
    """Return a caller's value in a sentence: short, whatever it is."""
    try:
        return str(value)[:40]
    except ValueError:  # Python prints no number of more than 4300 digits
        return "a number of thousands of digits"


def sentence(text: str) -> str:
    """Return a text with a full stop at its end, so that another sentence may follow it."""
    text = text.strip()
    return text if text.endswith((".", "!", "?", "…")) else f"{text}."


class HerdError(Exception):
    """The root. `code` is stable; `data` holds what the sentence is made of.

    Attributes:
        hint: a sentence that names what the herd's operator types about it. Only the `herd` command
            beside the herder adds it: the message itself reaches buyers, who have no such command.
    """

    code: ClassVar[str] = "herd_error"
    told_callers: ClassVar[str] = ""
    """The sentence for callers over HTTP where the message is for the herd's operator."""
    hint: str = ""

    def __init__(self, message: str, **data: Any) -> None:
        super().__init__(message)
        self.message = message
        self.data = data

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel to other processes by what it carries, whatever its `__init__` takes."""
        return copyreg.__newobj__, (type(self), self.message), vars(self)  # type: ignore[attr-defined]
