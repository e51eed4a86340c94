"""Reasoning and answer in the continuation of a prompt, told apart token by token. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from workers.engine.splitters import Channels, ChannelSplitter, Parted, Splitter, Tags, TagSplitter
from workers.engine.text import TextSettler


@dataclass(frozen=True, slots=True)
class Thinking:
    """The marks by which a prompt's continuation is told apart into reasoning and answer.

    Attributes:
        marks: what stands around a thought.
        begun: whether the prompt ends within a thought.
        hidden: the texts of marks that are control tokens, which show nothing, by their tokens.
    """

    marks: Tags | Channels
    begun: bool = False
    hidden: Mapping[int, str] = field(default_factory=lambda: MappingProxyType({}), hash=False)

    def splitter(self) -> Splitter:
        """Return the splitter for one continuation."""
        if isinstance(self.marks, Channels):
            return ChannelSplitter(self.marks)
        return TagSplitter(self.marks, begun=self.begun)


class ThinkingSettler:
    """Takes bytes as they are generated and gives out settled text, reasoning and answer apart.

    What it gave out of either, joined, is always that text so far. A stop string ends the answer
    only: models that think are not asked to keep it out of their thoughts.

    Args:
        stop: strings that end the answer and are left out of it.
        thinking: how reasoning is told; None: all of it is the answer.

    Attributes:
        reasoning_tokens: tokens so far that went into reasoning, its marks among them.
    """

    __slots__ = ("_hidden", "_splitter", "_text", "_tokens", "reasoning_tokens")

    def __init__(self, stop: Sequence[str] = (), thinking: Thinking | None = None) -> None:
        self._text = TextSettler(stop)
        self._splitter = None if thinking is None else thinking.splitter()
        self._hidden: Mapping[int, str] = {} if thinking is None else thinking.hidden
        self._tokens = 0
        self.reasoning_tokens = 0

    @property
    def stopped(self) -> bool:
        """Whether a stop string was found; then nothing more comes."""
        return self._text.stopped

    def feed(self, token: int, piece: bytes) -> Parted:
        """Take a token and its bytes; return the text that they settle, often none."""
        self._tokens += 1
        if self._splitter is None:
            return Parted("", self._text.feed(piece))
        thought_before = self._splitter.thinks
        parted = self._feed(token, piece)
        if thought_before or self._splitter.thinks:
            self.reasoning_tokens = self._tokens
        return Parted(parted.reasoning, self._text.settle(parted.answer))

    def _feed(self, token: int, piece: bytes) -> Parted:
        assert self._splitter is not None
        if not piece and (mark := self._hidden.get(token)):
            return self._splitter.feed(mark, hidden=True)
        return self._splitter.feed(self._text.decode(piece))

    def finish(self) -> Parted:
        """Return the text that was held back: the generation has ended."""
        if self._splitter is None:
            return Parted("", self._text.finish())
        parted = self._splitter.finish()
        return Parted(parted.reasoning, self._text.settle(parted.answer) + self._text.finish())
