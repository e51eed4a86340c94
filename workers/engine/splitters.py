"""Tells a model's reasoning from its answer by marks, while both are generated. Pure.

A thought comes before the answer, between marks of its own: two tags, as `<think>` and `</think>`,
or in gpt-oss' format (harmony) messages on channels, of which `final` is the answer. The marks are
part of neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

from workers.engine.text import overlap


class Parted(NamedTuple):
    """Text that came, told apart: the reasoning comes before the answer."""

    reasoning: str
    answer: str


_NOTHING = Parted("", "")

MAX_BLANK = 256
"""Characters of white space that are held back at most, to see whether they end a thought."""


class Splitter(Protocol):
    """Tells reasoning from an answer, piece by piece."""

    @property
    def thinks(self) -> bool:
        """Whether a thought has begun, and the answer has not."""

    def feed(self, text: str, *, hidden: bool = False) -> Parted:
        """Take more text; return what it settles.

        Args:
            text: what came.
            hidden: whether it is the text of a control token, which is shown nowhere: it can only
                be a part of a mark.
        """

    def finish(self) -> Parted:
        """Return the text that was held back: nothing more comes."""


class Tags(NamedTuple):
    """The two texts between which a model's thought stands."""

    open: str
    close: str


class Channels(NamedTuple):
    """The marks of gpt-oss' format: `<|channel|>NAME<|message|>TEXT<|end|>` for each message."""

    start: str = "<|start|>"
    channel: str = "<|channel|>"
    message: str = "<|message|>"
    end: str = "<|end|>"
    answer: str = "final"


class TagSplitter:
    """Tells apart what stands between two tags at the beginning, and what comes after them.

    Text that does not begin with a tag is the answer, tags in it included: so it may be about them.
    White space around a thought, and before the answer, is left out.

    Args:
        tags: the two.
        begun: whether the opening one stands at the end of the prompt; some models say it again.
    """

    def __init__(self, tags: Tags, *, begun: bool) -> None:
        self._open, self._close = tags
        self._begun = begun
        self._stage: Literal["open", "thought", "between", "answer"] = "open"
        self._held = ""
        self._plain = ""  # what is held, without control tokens, before it is known what begins
        self._is_first = True  # whether nothing of the thought was given out yet

    @property
    def thinks(self) -> bool:
        """Whether a thought has begun, and the answer has not."""
        return self._stage == "thought" or (self._stage == "open" and self._begun)

    def feed(self, text: str, *, hidden: bool = False) -> Parted:
        """Take more text; return what it settles."""
        if hidden and self._stage in ("between", "answer"):
            return _NOTHING
        if self._stage == "open":
            self._plain += "" if hidden else text
        text = self._held + text
        self._held = ""
        if self._stage == "open":
            said = text.lstrip()
            if said.startswith(self._open):
                self._stage, text = "thought", said[len(self._open) :]
            elif self._open.startswith(said) and len(text) - len(said) <= MAX_BLANK:
                self._held = text
                return _NOTHING
            elif self._begun:
                self._stage = "thought"
            else:
                self._stage, text = "answer", self._plain
            self._plain = ""
        reasoning = ""
        if self._stage == "thought":
            reasoning, text = self._thought(text)
        if self._stage == "between":
            text = text.lstrip()
            if text:
                self._stage = "answer"
        return Parted(reasoning, text)

    def _thought(self, text: str) -> tuple[str, str]:
        """Return the part of a text that belongs to the thought, and the part after it."""
        if self._is_first:
            text = text.lstrip()
        at = text.find(self._close)
        ends = at if at >= 0 else len(text) - overlap(text, self._close)
        sure = text[: max(len(text[:ends].rstrip()), ends - MAX_BLANK)]
        if at >= 0:
            self._stage = "between"
            return sure, text[at + len(self._close) :]
        self._held = text[len(sure) :]
        self._is_first = self._is_first and not sure
        return sure, ""

    def finish(self) -> Parted:
        """Return the text that was held back: a tag that is not whole is text after all."""
        held, self._held = self._held, ""
        return Parted(held.rstrip(), "") if self.thinks else Parted("", self._plain)


_NAME_CHARS = 64
"""Of a channel's name, and of a mark that has begun."""


class ChannelSplitter:
    """Tells apart messages on channels: what is on `final` is the answer, all else reasoning.

    A message that does not begin with a mark is the answer. Reasoning after an answer has begun
    belongs to neither and is left out.

    Args:
        marks: how messages and channels are marked.
    """

    def __init__(self, marks: Channels) -> None:
        self._marks = marks
        self._ends = (marks.end, marks.start, marks.channel)
        self._stage: Literal["first", "gap", "head", "body"] = "first"
        self._held = ""
        self._plain = ""  # what is held, without control tokens, before it is known what begins
        self._answers = False  # whether this message is the answer
        self._has_thought = False
        self._has_answered = False
        self._joins = False  # whether the next reasoning goes on behind an earlier message's

    @property
    def thinks(self) -> bool:
        """Whether a thought has begun, and the answer has not."""
        return self._has_thought and not self._has_answered

    def feed(self, text: str, *, hidden: bool = False) -> Parted:
        """Take more text; return what it settles."""
        if self._stage == "first":
            self._plain += "" if hidden else text
        text = self._held + text
        self._held = ""
        reasoning: list[str] = []
        answer: list[str] = []
        while text:
            if self._stage == "body":
                said, text = self._body(text)
                self._sort(said, reasoning, answer)
            else:
                text = self._between(text)
        return Parted("".join(reasoning), "".join(answer))

    def _between(self, text: str) -> str:
        """Read on towards a message's text; return the rest."""
        marks = self._marks
        if self._stage == "first":
            said = text.lstrip()
            if said.startswith((marks.channel, marks.start)):
                self._stage = "gap"
                return said
            is_begun = marks.channel.startswith(said) or marks.start.startswith(said)
            if is_begun and len(text) - len(said) <= MAX_BLANK:
                self._held = text
                return ""
            self._begin(is_answer=True)
            return self._plain
        if self._stage == "gap":
            at, mark = _first(text, (marks.channel, marks.message))
            if mark == marks.message:  # of no channel
                self._begin(is_answer=True)
            elif mark:
                self._stage = "head"
        else:
            at, mark = _first(text, (marks.message,))
            if mark:
                self._begin(is_answer=text[:at].strip().startswith(marks.answer))
        if mark:
            return text[at + len(mark) :]
        # No more than a name and the beginning of a mark is of use here, whatever a model writes.
        name = "" if self._stage == "gap" else text[:_NAME_CHARS]
        self._held = name + text[len(name) :][-_NAME_CHARS:]
        return ""

    def _begin(self, *, is_answer: bool) -> None:
        self._stage, self._answers = "body", is_answer
        if is_answer:
            self._has_answered = True
        else:
            self._joins = self._has_thought
            self._has_thought = True

    def _body(self, text: str) -> tuple[str, str]:
        """Return the part of a text that belongs to this message, and the rest."""
        at, mark = _first(text, self._ends)
        if mark == self._marks.end:  # what comes next begins as the first did
            rest = text[at + len(mark) :]
            self._stage, self._plain = "first", rest
            return text[:at], rest
        if mark:
            self._stage = "gap"
            return text[:at], text[at:] if mark == self._marks.channel else text[at + len(mark) :]
        cut = len(text) - max(overlap(text, end) for end in self._ends)
        self._held = text[cut:]
        return text[:cut], ""

    def _sort(self, said: str, reasoning: list[str], answer: list[str]) -> None:
        if not said:
            return
        if self._answers:
            answer.append(said)
        elif not self._has_answered:
            reasoning.append(f"\n\n{said}" if self._joins else said)
            self._joins = False

    def finish(self) -> Parted:
        """Return the text that was held back: a mark that is not whole is text after all."""
        held, self._held = self._held, ""
        reasoning: list[str] = []
        answer: list[str] = []
        if self._stage == "body":
            self._sort(held, reasoning, answer)
        elif self._stage == "first" and not (self._has_thought or self._has_answered):
            answer.append(self._plain)
        return Parted("".join(reasoning), "".join(answer))


def _first(text: str, marks: Sequence[str]) -> tuple[int, str]:
    """Return the place of the first of these marks in a text, and which it is; none: -1 and ''."""
    found = [(at, mark) for mark in marks if (at := text.find(mark)) >= 0]
    return min(found, default=(-1, ""))
