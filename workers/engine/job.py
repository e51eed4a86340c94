"""One piece of work on its way through the engine, and what its listener hears of it."""

from __future__ import annotations

from collections.abc import Callable

from workers.engine.sequences import Seq
from workers.engine.splitters import Parted
from workers.engine.thinking import ThinkingSettler
from workers.engine.work import (
    Completion,
    EndReason,
    GenerationRequest,
    Listener,
    ModelFacts,
    Prepared,
    Sampler,
)
from workers.errors import PromptTooLong, WorkerError
from workers.transport.event_log import EventLog

_log = EventLog("workers.engine.job")


class Generation:
    """A piece of work, its sequence, and the text so far.

    Attributes:
        seq: its sequence, once its prompt is in tokens and fits.
        sampler: how its tokens are chosen; freed at the end.
        error: what was wrong with it before it could begin.
        started_s: when it got its first slot.
        generated: sampled tokens so far.
        limit: the most that are sampled.
    """

    __slots__ = (
        "_first_s",
        "_listener",
        "_reasoning",
        "_settler",
        "_submitted_s",
        "_text",
        "error",
        "generated",
        "limit",
        "prompt_tokens",
        "sampler",
        "seq",
        "started_s",
        "work",
    )

    def __init__(self, work: GenerationRequest, listener: Listener, now_s: float) -> None:
        self.work = work
        self.seq: Seq | None = None
        self.sampler: Sampler | None = None
        self.error: WorkerError | None = None
        self.prompt_tokens = 0
        self.started_s: float | None = None
        self.generated = 0
        self.limit = work.tokens
        self._listener = listener
        self._settler = ThinkingSettler(work.stop)
        self._submitted_s = now_s
        self._first_s: float | None = None
        self._text: list[str] = []
        self._reasoning = 0

    def take(self, prepared: Prepared, facts: ModelFacts) -> None:
        """Take its prompt in tokens; what does not fit is cut, or is an error, as the work says."""
        work, prompt = self.work, len(prepared.tokens)
        self.sampler, self.prompt_tokens = prepared.sampler, prompt
        if work.splits_reasoning and prepared.thinking is not None:
            self._settler = ThinkingSettler(work.stop, prepared.thinking)
        room = min(facts.context, facts.cells) - prompt
        if work.fit_tokens and room >= 1:
            self.limit = min(self.limit, room)
        if self.limit > room:
            asked = 1 if work.fit_tokens else work.tokens
            self.error = PromptTooLong(prompt, asked, facts.context)
            return
        self.seq = Seq(work.key, prepared.tokens, self.limit, work.rank, arrival=0)

    def begin(self, now_s: float) -> None:
        """Note that it has a slot; called only once, even after a preemption."""
        if self.started_s is None:
            self.started_s = now_s
            self._tell("on_start", lambda: self._listener.on_start(self.prompt_tokens))

    def first(self, now_s: float) -> float | None:
        """Note a sampled token; return the seconds since submission if it is the first."""
        if self._first_s is not None:
            return None
        self._first_s = now_s
        return now_s - self._submitted_s

    def say(self, token: int, piece: bytes) -> EndReason | None:
        """Add one more token, of these bytes; return the reason if the work ends by it."""
        self.generated += 1
        self._show(self._settler.feed(token, piece))
        if self._settler.stopped:
            return "stop"
        return "length" if self.generated >= self.limit else None

    def end(self, reason: EndReason, now_s: float, error: WorkerError | None) -> None:
        """Free what it holds and tell its listener; call it once."""
        if self.sampler is not None:
            self.sampler.close()
            self.sampler = None
        self._show(self._settler.finish())
        started_s = now_s if self.started_s is None else self.started_s
        first_s = now_s if self._first_s is None else self._first_s
        end = Completion(
            reason=reason,
            text="".join(self._text),
            prompt_tokens=self.prompt_tokens,
            generated=self.generated,
            error=error,
            queued_s=started_s - self._submitted_s,
            prefill_s=first_s - started_s,
            decode_s=now_s - first_s,
            reasoning=self._reasoning,
            reasoning_tokens=self._settler.reasoning_tokens,
        )
        self._tell("on_end", lambda: self._listener.on_end(end))

    def _show(self, parted: Parted) -> None:
        text, reasoning = parted.reasoning + parted.answer, len(parted.reasoning)
        if text:
            self._text.append(text)
            self._reasoning += reasoning
            self._tell("on_text", lambda: self._listener.on_text(text, self.generated, reasoning))

    def _tell(self, what: str, call: Callable[[], None]) -> None:
        """Call the listener; one that fails must not end the work of all the others."""
        try:
            call()
        except Exception:  # noqa: BLE001 (logged with its trace)
            _log.exception("listener_failed", key=self.work.key, call=what)
