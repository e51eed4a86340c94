"""The deterministic model: for tests and simulation, with neither weights nor numpy.

Its text follows from the prompt alone: the same prompt gives the same text, alone or beside
others, whatever the sampling parameters but `ignore_eos`. A prompt's tokens are its runs of at
most eight characters that are not white space, each with one white space before it; single white
space is a token otherwise. Every message costs two tokens more, as a template would, and a prompt
that is not `raw` is one message. An answer's tokens are words of a fixed list, and it ends only
when the tokens asked for are there, or where a prompt says otherwise:

    [[end:N]]       the model itself ends after N tokens (reason `stop`), unless told not to
    [[fail]]        fails for good when it is submitted
    [[trouble]]     fails in a way that another try may not
    [[fail:N]]      fails for good after N tokens
    [[hang]]        gives one token and then nothing, until it is called off
    [[hang:N]]      gives N tokens and then nothing
    [[break]]       the model dies at the first token: the engine is broken, the process must end
    [[say:TEXT]]    answers with these words, again and again
    [[utf8]]        answers in words whose characters are cut across tokens
    [[think:TEXT]]  thinks these words first, between <think> and </think>, unless the prompt is raw

The cache is modelled too: what the engine does to sequences that would abort llama.cpp raises
AssertionError here.
"""

from __future__ import annotations

import re
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from workers.engine.sequences import BatchRow
from workers.engine.splitters import Tags
from workers.engine.thinking import Thinking
from workers.engine.work import GenerationRequest, ModelFacts, Prepared, Sampler
from workers.errors import DecodeFailed, EmptyPrompt, StubFailure, StubTrouble, WorkerError

_PIECES = re.compile(r"\s?\S{1,8}|\s")
_MARK = re.compile(r"\[\[(end|fail|trouble|hang|break|say|utf8|think)(?::([^\]]*))?\]\]")
_WORDS = re.findall(
    r"\w+",
    "the a of and to in is it that was for on are with as his they be at one have this from or had"
    " by hot but some what there we can out other were all your when up use word how said an each"
    " she which do their time if will way about many then them would write like so these her long",
)
_UTF8 = ("naïve", "Grüße", "水の", "🦙🐑", "żółw")
_END = 1 << 20
_THINKING = Thinking(Tags("<think>", "</think>"))


@dataclass(slots=True)
class _Script(Sampler):
    """The text that a sequence will say, and its position in it."""

    pieces: Sequence[int]
    end: int | None = None
    fail: int | None = None
    hang: int | None = None
    breaks: bool = False
    thought: Sequence[int] = ()
    said: int = 0

    def close(self) -> None:
        pass

    def next(self) -> int | WorkerError | None:
        if self.breaks:
            raise DecodeFailed("The deterministic model was told to die.")
        if self.fail is not None and self.said >= self.fail:
            return StubFailure(
                f"The prompt told the deterministic model to fail after {self.fail} tokens."
            )
        if self.end is not None and self.said >= self.end:
            return _END
        if self.hang is not None and self.said >= self.hang:
            return None
        self.said += 1
        if self.said <= len(self.thought):
            return self.thought[self.said - 1]
        return self.pieces[(self.said - len(self.thought) - 1) % len(self.pieces)]


class StubModel:
    """A model that costs nothing unless it is told to.

    Args:
        context: tokens of one order, prompt and answer together.
        slots: orders at once.
        cells: tokens of all together; enough for all slots unless given.
        step_s: seconds that each step takes, however many sequences are in it.
        prompt_token_s: seconds that each prompt token takes beside that.
        sleep: how the time passes; a simulator gives its own.
    """

    def __init__(
        self,
        *,
        name: str = "stub",
        context: int = 4096,
        slots: int = 4,
        cells: int | None = None,
        prefixes: int = 4,
        batch_tokens: int = 512,
        step_tokens: int = 512,
        step_s: float = 0.0,
        prompt_token_s: float = 0.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._facts = ModelFacts(
            name=name,
            context=context,
            slots=slots,
            vocab=_END + 1,
            cells=cells if cells is not None else slots * context,
            prefixes=prefixes,
            batch_tokens=batch_tokens,
            step_tokens=step_tokens,
            can_share=True,
            system="deterministic",
        )
        self._step_s = step_s
        self._prompt_token_s = prompt_token_s
        self._sleep = sleep
        self._pieces: list[bytes] = [f" {word}".encode() for word in _WORDS]
        self._past: dict[int, int] = {}
        self._outputs = 0
        self.closed = False

    @property
    def facts(self) -> ModelFacts:
        """What it pretends to be."""
        return self._facts

    def prepare(self, work: GenerationRequest) -> Prepared:
        """Cut the prompt into tokens and see what it tells the model to do."""
        script = self._script("\n".join(_contents_of(work)))
        if work.sampling.ignore_eos:
            script.end = None
        return Prepared(_tokens_of(work), script, None if work.raw else _THINKING)

    def count_tokens(self, work: GenerationRequest) -> int:
        """Return the number of tokens of a prompt."""
        return len(_tokens_of(work))

    def decode(self, rows: Sequence[BatchRow]) -> bool:
        """Pretend to compute; checks what llama.cpp would abort for."""
        assert not self.closed, "decode after close"
        assert 0 < sum(len(row.tokens) for row in rows) <= self._facts.batch_tokens
        slots = self._facts.slots + self._facts.prefixes
        for row in rows:
            assert 0 <= row.slot < slots, f"there is no sequence {row.slot}"
            assert self._past.get(row.slot, 0) == row.start, "a gap or a repeat of positions"
            assert row.tokens, "an empty row"
        if sum(self._past.values()) + sum(len(row.tokens) for row in rows) > self._facts.cells:
            return False
        for row in rows:
            self._past[row.slot] = row.start + len(row.tokens)
        prompt_tokens = sum(len(row.tokens) for row in rows if len(row.tokens) > 1)
        cost_s = self._step_s + self._prompt_token_s * prompt_tokens
        if cost_s > 0:
            self._sleep(cost_s)
        self._outputs = sum(row.output for row in rows)
        return True

    def sample(self, samplers: Sequence[Sampler | None]) -> list[int | WorkerError | None]:
        """Return the next token of each script."""
        assert len(samplers) == self._outputs, "as many samplers as rows with output"
        tokens = [s.next() if isinstance(s, _Script) else 0 for s in samplers]
        if tokens and self._step_s == 0 and all(token is None for token in tokens):
            self._sleep(0.001)  # all of them hang: do not spin
        return tokens

    def piece(self, token: int) -> bytes:
        """Return the bytes of a token of an answer."""
        return self._pieces[token]

    def is_end(self, token: int) -> bool:
        """Return whether the script ends here."""
        return token == _END

    def keep(self, slot: int, length: int) -> None:
        """Drop cells."""
        self._past[slot] = min(self._past.get(slot, 0), length)

    def copy(self, source: int, target: int, length: int) -> None:
        """Give cells to an empty sequence."""
        assert self._past.get(target, 0) == 0, "a copy onto a sequence that has cells"
        assert self._past.get(source, 0) >= length, "a copy of cells that are not there"
        self._past[target] = length

    @property
    def cells_in_use(self) -> int:
        """Cells held by all sequences, shared ones counted once for each."""
        return sum(self._past.values())

    def close(self) -> None:
        """Close it; nothing may be asked of it afterwards."""
        assert not self.closed, "closed twice"
        self.closed = True

    def _script(self, text: str) -> _Script:
        marks: dict[str, str] = dict(_MARK.findall(text))
        if marks.get("fail") == "":
            raise StubFailure("The prompt told the deterministic model to fail.")
        if "trouble" in marks:
            raise StubTrouble("The prompt told the deterministic model to fail this time.")
        start = zlib.crc32(text.encode("utf-8", "replace"))
        stride = 1 + start // len(_WORDS) % (len(_WORDS) - 1)
        pieces: Sequence[int] = [(start + i * stride) % len(_WORDS) for i in range(len(_WORDS))]
        if "say" in marks:
            pieces = self._words(_PIECES.findall(marks["say"]))
        elif "utf8" in marks:
            # two bytes a token, so that characters of three and four bytes are cut
            whole = " ".join(_UTF8).encode()
            pieces = self._tokens([whole[i : i + 2] for i in range(0, len(whole), 2)])
        return _Script(
            pieces,
            end=_number(marks, "end"),
            fail=_number(marks, "fail"),
            hang=_number(marks, "hang", 1),
            breaks="break" in marks,
            thought=self._thought(marks.get("think")),
        )

    def _thought(self, text: str | None) -> list[int]:
        return [] if text is None else self._words(["<think>", *_PIECES.findall(text), "</think>"])

    def _words(self, words: Sequence[str]) -> list[int]:
        return self._tokens([word.encode() for word in words]) or [0]

    def _tokens(self, pieces: Sequence[bytes]) -> list[int]:
        """Token numbers of these bytes, new ones where they are new."""
        numbers = []
        for piece in pieces:
            if piece not in self._pieces:
                self._pieces.append(piece)
            numbers.append(self._pieces.index(piece))
        return numbers


def _contents_of(work: GenerationRequest) -> list[str]:
    if work.messages is None:
        return [work.prompt or ""]
    return [message.content for message in work.messages]


def _tokens_of(work: GenerationRequest) -> list[int]:
    tokens: list[int] = []
    for content in _contents_of(work):
        if not work.raw or work.messages is not None:
            tokens += [0, 1]
        tokens += [zlib.crc32(p.encode()) & 0xFFFFF for p in _PIECES.findall(content)]
    if not tokens:
        raise EmptyPrompt("The prompt has no tokens.")
    return tokens


def _number(marks: dict[str, str], kind: str, default: int = 0) -> int | None:
    value = marks.get(kind)
    if value is None:
        return None
    return int(value) if value.isdecimal() else default
