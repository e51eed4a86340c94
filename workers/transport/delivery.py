"""Notes in Redis of what readers of texts were given, while the orders run.

A reader notes a piece before it hands it out, and when it leaves before the end it says how much it
really handed out. Of an attempt there is one sorted set: a member for each reader that is there,
and one for all that have left. No number in it ever stands for less than was handed out. Only that
of a reader that is there, or was killed, may stand for more: for what one read of the text brought,
a piece as a rule.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

LEFT = ""
"""The member that stands for all readers that have left."""

_SCALE = 2**20
"""Tokens and characters share a score: both are below it, and a float of Redis has 53 bits."""


@dataclass(frozen=True, slots=True, order=True)
class Reach:
    """A position in an attempt's text, up to which somebody was given it.

    Attributes:
        characters: of its text.
        tokens: that those come from.
    """

    characters: int = 0
    tokens: int = 0

    @property
    def score(self) -> int:
        """It as one number: who was given more characters was given no fewer tokens."""
        return self.characters * _SCALE + min(self.tokens, _SCALE - 1)

    @classmethod
    def of(cls, score: float) -> Reach:
        """Read it from such a number."""
        return cls(*divmod(int(score), _SCALE))


@dataclass(frozen=True, slots=True)
class Delivery:
    """A reader's word of how far it got in an attempt's text.

    Attributes:
        reader: the reader; no other has its name.
        reach: how far.
        has_left: whether it is final, and may be less than it said before.
        keep_s: seconds for which it is kept, unless more is said of that attempt.
    """

    order: str
    attempt: int
    reader: str
    reach: Reach
    has_left: bool
    keep_s: int


class Deliveries(Protocol):
    """Says what readers were given; `workers.transport.streams.Streams`. Errors are redis-py's."""

    def delivered(self, attempts: Sequence[tuple[str, int]]) -> list[Reach]:
        """Return the furthest reach of any reader in each (order, attempt), in their order."""


def delivery_key(order: str, attempt: int) -> str:
    """Return the Redis sorted set of what readers of an attempt's text were given."""
    return f"delivered:{order}:{attempt}"


def note(pipe: Any, deliveries: Sequence[Delivery]) -> None:
    """Put what is said of deliveries into a pipeline of Redis, of an event loop or not."""
    for one in deliveries:
        key = delivery_key(one.order, one.attempt)
        member = one.reader
        if one.has_left:
            member = LEFT
            pipe.zrem(key, one.reader)
        if one.reach.characters:
            pipe.zadd(key, {member: one.reach.score}, gt=True)
            pipe.expire(key, one.keep_s)


def furthest(pipe: Any, attempts: Sequence[tuple[str, int]]) -> None:
    """Ask, in a pipeline of Redis, how far anybody was given the texts of attempts."""
    for order, attempt in attempts:
        pipe.zrevrange(delivery_key(order, attempt), 0, 0, withscores=True)


def reach_of(answer: Sequence[tuple[str, float]]) -> Reach:
    """Read what Redis answers of one attempt."""
    return Reach.of(answer[0][1]) if answer else Reach()
