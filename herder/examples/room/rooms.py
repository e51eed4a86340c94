"""The rooms at work: who may speak, and what is read. Called on threads; waits for nobody."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass

from herder.errors import NotFound, RateLimited, Unauthorized
from herder.examples.room.rules import (
    JOINS_PER_MINUTE,
    MAX_JOINS_AT_ONCE,
    MAX_MEMBERS,
    MAX_MESSAGES_AT_ONCE,
    MINUTE_US,
    NAME_HELD_S,
    NameTaken,
    Pace,
    Said,
    parse_name,
    parse_text,
)
from herder.examples.room.settings import RoomSettings
from herder.examples.room.store import Member, Store


@dataclass(frozen=True, slots=True)
class Page:
    """Messages that were read.

    Attributes:
        messages: oldest first.
        next: the cursor of what comes after them.
        missed: whether messages after the reader's own cursor were forgotten meanwhile.
    """

    messages: list[Said]
    next: int
    missed: bool


class Rooms:
    """The rooms of one process.

    Args:
        store: what keeps them.
        settings: theirs.
        clock_us: the time.
        new_id: draws a member's id.
        new_token: draws the secret that a name is held with: 256 bits.
    """

    def __init__(
        self,
        store: Store,
        settings: RoomSettings,
        *,
        clock_us: Callable[[], int],
        new_id: Callable[[], str] = lambda: f"m-{secrets.token_hex(6)}",
        new_token: Callable[[], str] = lambda: f"room_{secrets.token_urlsafe(32)}",
    ) -> None:
        self._store = store
        self._names = settings.room_names
        self._keep = settings.room_history
        self._clock_us = clock_us
        self._new_id = new_id
        self._new_token = new_token
        at_once = min(MAX_MESSAGES_AT_ONCE, settings.room_messages_per_minute)
        self._speaking = Pace(settings.room_messages_per_minute, at_once)
        self._joining = Pace(JOINS_PER_MINUTE, MAX_JOINS_AT_ONCE)

    @property
    def names(self) -> tuple[str, ...]:
        """The rooms."""
        return self._names

    def known(self, room: str) -> str:
        """Return a room that there is.

        Raises:
            NotFound: there is no such room.
        """
        if room not in self._names:
            raise NotFound(
                f"There is no room {room[:40]!r}. The rooms are: {', '.join(self._names)}."
            )
        return room

    def join(self, room: str, name: str, address: str) -> tuple[Member, str]:
        """Take a name.

        Args:
            room: where.
            name: the name; however it is written, large or small, it is one name.
            address: where the call comes from.

        Returns:
            Who has it now, and the token to speak with, which is kept as its digest alone.

        Raises:
            NotFound: there is no such room.
            InvalidName: the name is not valid.
            NameTaken: another has it.
            RateLimited: the room is full, or too many came from there.
        """
        self.known(room)
        parse_name(name)
        now_us = self._clock_us()
        self._pace(self._joining, address, now_us, "Too many names were taken from your address")
        member, token = Member(self._new_id(), room, name, now_us), self._new_token()
        joined = self._store.join(member, _digest(token), self._free_us(now_us), MAX_MEMBERS)
        if joined is None:
            raise RateLimited(f"The room {room!r} is full; try again in a minute.", 60)
        if not joined:
            raise NameTaken(name, room)
        return member, token

    def recognise(self, room: str, token: str) -> Member:
        """Return the name that a token belongs to; showing the token keeps the name.

        Raises:
            NotFound: there is no such room.
            Unauthorized: it is nobody's there.
        """
        self.known(room)
        member = self._store.member(_digest(token))
        now_us = self._clock_us()
        if member is None or member.room != room or member.seen_us < self._free_us(now_us):
            raise Unauthorized(
                f"This token holds no name in room {room!r}; join it again (a name is free again "
                f"{NAME_HELD_S // 60} minutes after its holder was last active)."
            )
        if now_us - member.seen_us > MINUTE_US:
            self._store.seen(member.id, now_us)
        return member

    def still_here(self, member: Member) -> None:
        """Note that somebody who holds a line is there, which holds the name."""
        self._store.seen(member.id, self._clock_us())

    def leave(self, member: Member) -> None:
        """Give a name back."""
        self._store.leave(member.id)

    def say(self, member: Member, text: str) -> Said:
        """Say something.

        Raises:
            InvalidText: it may not be said.
            RateLimited: too fast.
        """
        text = parse_text(text)
        now_us = self._clock_us()
        self._pace(self._speaking, member.id, now_us, "You are sending messages too fast")
        return self._store.add(member, text, now_us, self._keep)

    def read(self, room: str, after: int | None, limit: int) -> Page:
        """Return the messages.

        Args:
            room: where.
            after: the cursor; None: what was said last.
            limit: the most messages.

        Raises:
            NotFound: there is no such room.
        """
        self.known(room)
        if after is None:
            found = self._store.last(room, limit)
            return Page(found, found[-1].id if found else 0, False)
        found, forgotten = self._store.after(room, after, limit)
        return Page(found, found[-1].id if found else after, after < forgotten)

    def members(self, room: str) -> list[str]:
        """Return the names that are held in a room.

        Raises:
            NotFound: there is no such room.
        """
        return self._store.members(self.known(room), self._free_us(self._clock_us()))

    def count(self, room: str) -> int:
        """Return the number of a room's messages that are kept."""
        return self._store.count(room)

    @staticmethod
    def _free_us(now_us: int) -> int:
        return now_us - NAME_HELD_S * 1_000_000

    @staticmethod
    def _pace(pace: Pace, who: str, now_us: int, what: str) -> None:
        wait_us = pace.wait_us(who, now_us)
        if wait_us:
            wait_s = -(-wait_us // 1_000_000)
            raise RateLimited(f"{what}; try again in {wait_s} s.", wait_s)


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode(errors="surrogatepass")).hexdigest()
