"""The rules of a room: names, messages and their pace. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from herder.errors import HerdError, InvalidName, InvalidRequest, shown

MAX_CHARS = 2000
"""The longest message."""
MAX_MEMBERS = 1000
"""Names that are held in a room at once."""
NAME_HELD_S = 600
"""The time for which a silent program keeps its name; then the name is free again."""
JOINS_PER_MINUTE, MAX_JOINS_AT_ONCE = 60, 30
"""The rate at which one address may take names."""
MAX_MESSAGES_AT_ONCE = 10
"""Messages that may come in a burst before the pace counts."""
MINUTE_US = 60_000_000

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}")
_ROOM = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")


class NameTaken(HerdError):
    """Somebody in the room has this name."""

    code: ClassVar[str] = "name_taken"

    def __init__(self, name: str, room: str) -> None:
        super().__init__(
            f"The name {name!r} is taken in room {room!r}; choose another.", name=name, room=room
        )


class InvalidText(InvalidRequest):
    """A message that is empty, too long, or contains characters that are not text."""

    code: ClassVar[str] = "invalid_text"


@dataclass(frozen=True, slots=True)
class Said:
    """A message.

    Attributes:
        id: rises with each message of all rooms; the cursor.
        name: who said it.
        member: the id of who had the name then: another holder of the name has another.
        text: what was said.
        at_us: when, in microseconds since the epoch.
    """

    id: int
    name: str
    member: str
    text: str
    at_us: int

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> Self:
        """Return a message as the room sends it."""
        return cls(**{name: found[name] for name in cls.__dataclass_fields__})


def parse_name(name: str) -> str:
    """Return a name that a program may have.

    Raises:
        InvalidName: the name is not valid. Names that only look alike could pass for one another.
    """
    if not _NAME.fullmatch(name):
        raise InvalidName(
            f"A name must be 1 to 32 letters, digits, dots and dashes, not {shown(name)!r}."
        )
    return name


def parse_room(name: str) -> str:
    """Return a name that a room may have.

    Raises:
        InvalidName: the name is not valid.
    """
    if not _ROOM.fullmatch(name):
        raise InvalidName(
            "A room's name must be 1 to 32 lower-case letters, digits and dashes, not "
            f"{shown(name)!r}."
        )
    return name


def parse_text(text: str) -> str:
    """Return a message as it is kept: without white space around it.

    Raises:
        InvalidText: it is empty, too long, or would rewrite the terminal that shows it.
    """
    text = text.strip()
    if not text:
        raise InvalidText("A message must not be empty.")
    if len(text) > MAX_CHARS:
        raise InvalidText(
            f"A message may have at most {MAX_CHARS} characters; this one has {len(text)}.",
            characters=len(text),
            most=MAX_CHARS,
        )
    if any(_is_no_text(char) for char in text):
        raise InvalidText(
            "A message must not contain control characters other than line breaks and tabs."
        )
    return text


def _is_no_text(char: str) -> bool:
    code = ord(char)
    controls = code < 32 and char not in "\n\t"
    return controls or 127 <= code < 160 or 0xD800 <= code < 0xE000


class Pace:
    """A rate limiter for many names: the generic cell rate algorithm (ITU-T I.371).

    Args:
        per_minute: the lasting rate.
        at_once: how many may come in a burst.
        most: of whom it keeps count; beyond that nobody new is let in.
    """

    def __init__(self, per_minute: int, at_once: int, most: int = 10_000) -> None:
        self._step_us = MINUTE_US // per_minute
        self._ahead_us = self._step_us * (at_once - 1)
        self._most = most
        self._due_us: dict[str, int] = {}

    def wait_us(self, who: str, now_us: int) -> int:
        """Take one turn, or say how long to wait for it: 0 if it was taken."""
        due_us = max(self._due_us.get(who, 0), now_us)
        early_us = due_us - now_us - self._ahead_us
        if early_us > 0:
            return early_us
        if who not in self._due_us and len(self._due_us) >= self._most:
            # Whose time has come is as one that was never here.
            self._due_us = {one: at for one, at in self._due_us.items() if at > now_us}
            if len(self._due_us) >= self._most:
                return self._step_us
        self._due_us[who] = due_us + self._step_us
        return 0
