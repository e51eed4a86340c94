"""The text of an order as a caller is given it: in order, once, and told apart from reasoning."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from herder.domain.order import Order, State
from herder.types import Result
from herder.web.errors import BadRequest
from workers.transport.delivery import Reach
from workers.transport.streams import TextPiece

_MARK = re.compile(r"([0-9]{1,9})\.([0-9]{1,9})")


@dataclass(frozen=True, slots=True)
class StreamMark:
    """A caller's position: the number of characters read of an attempt's reasoning and answer."""

    attempt: int
    characters: int

    def __str__(self) -> str:
        return f"{self.attempt}.{self.characters}"

    @classmethod
    def parse(cls, text: str | None) -> StreamMark | None:
        """Return the `Last-Event-ID` of a caller who comes back.

        Raises:
            BadRequest: the id was not sent here.
        """
        if not text:
            return None
        parts = _MARK.fullmatch(text)
        if parts is None:
            raise BadRequest("Last-Event-ID is not an id that this stream sent.", "Last-Event-ID")
        return cls(int(parts[1]), int(parts[2]))


@dataclass(frozen=True, slots=True)
class Happened:
    """Something that happened to an order.

    Attributes:
        kind: `place`: it waits; `start`: a worker has it; `reasoning`: the model thinks; `text`:
            there is more of its answer; `restart`: all of both so far counts for nothing, its
            attempt was lost; `end`: it has ended, or is set aside, and does not end by itself.
        data: what there is to say of it.
        mark: how far a caller has read with it.
        result: of an end.
    """

    kind: Literal["place", "start", "reasoning", "text", "restart", "end"]
    data: dict[str, Any]
    mark: StreamMark | None = None
    result: Result | None = None


class GivenText:
    """The part of an order's text that a caller was given, and whether it still counts.

    Reasoning and the answer behind it are one text to it: so what is read is one number.

    Args:
        mark: how far it was read before.
        shows_reasoning: whether reasoning is given at all. If not, what the model thought counts as
            given with the first of its answer.

    Attributes:
        reach: how far it was given of the attempt.
    """

    def __init__(self, mark: StreamMark | None, *, shows_reasoning: bool = True) -> None:
        self._attempt = mark.attempt if mark else 0
        self._shows_reasoning = shows_reasoning
        # What was read of it, and what the caller has seen of that.
        self._shown = self._seen = mark.characters if mark else 0
        self.reach = Reach(self._shown)
        # Of what was shown here, so that a long text need not be kept: it may be all or a tail.
        self._begin = self._shown
        self._hash = hashlib.blake2b()

    def turn_to(self, attempt: int) -> Happened | None:
        """Go on with this attempt; what was shown of another one counts for nothing."""
        if attempt == self._attempt:
            return None
        lost = self._restart()
        self._attempt = attempt
        self.reach = Reach()
        return lost

    def _restart(self) -> Happened | None:
        """Begin anew; return what tells the caller so, if anything was seen."""
        lost = Happened("restart", {"shown": self._seen}) if self._seen else None
        self._shown = self._seen = self._begin = 0
        self._hash = hashlib.blake2b()
        return lost

    def reach_with(self, pieces: Sequence[TextPiece]) -> Reach:
        """Return the reach once these pieces are given, too."""
        reach, upto = self.reach, self._shown
        for piece in pieces:
            if piece.offset <= upto:
                upto = max(upto, piece.offset + len(piece.text))
                if self._gives(piece):
                    reach = max(reach, _reach_of(piece))
        return reach

    def _gives(self, piece: TextPiece) -> bool:
        """Return whether something of a piece is given to this caller."""
        return self._shows_reasoning or len(piece.text) > piece.reasoning

    def take(self, piece: TextPiece) -> list[Happened]:
        """Return a piece of the attempt's text.

        Empty if nothing of it is new, or one before is missing.
        """
        known = self._shown - piece.offset
        if known < 0:
            return []  # a piece was dropped on the way: the stored text fills the gap
        more = list(self._show(piece.text[known:], piece.reasoning - known))
        if more:
            self.reach = _reach_of(piece)
        return more

    def complete(self, order: Order, reasoning: str, answer: str) -> Iterator[Happened]:
        """Yield the rest of the text that the order ended with."""
        whole = reasoning + answer
        if order.state is State.CANCELLED and len(whole) < self._shown:
            return  # what was charged is less than what was read: nothing more is to be said
        if (lost := self.turn_to(order.attempt)) is not None:
            yield lost
        again = hashlib.blake2b(whole[self._begin : self._shown].encode())
        is_other = len(whole) < self._shown or again.digest() != self._hash.digest()
        if is_other and (lost := self._restart()) is not None:
            yield lost
        yield from self._show(whole[self._shown :], len(reasoning) - self._shown)

    def _show(self, text: str, reasoning: int) -> Iterator[Happened]:
        """Yield more text, of which so many characters, if any, are reasoning."""
        cut = max(0, reasoning)
        kinds: tuple[Literal["reasoning", "text"], ...] = ("reasoning", "text")
        for kind, more in zip(kinds, (text[:cut], text[cut:]), strict=True):
            if more:
                self._shown += len(more)
                self._hash.update(more.encode())
                if kind == "reasoning" and not self._shows_reasoning:
                    continue
                self._seen += len(more)
                yield Happened(kind, {"text": more}, StreamMark(self._attempt, self._shown))


def _reach_of(piece: TextPiece) -> Reach:
    return Reach(piece.offset + len(piece.text), piece.generated)
