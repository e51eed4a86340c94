"""The messages between herder and workers: the bodies of the envelopes, and their bounds."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from workers.wire.names import job_label
from workers.wire.sampling import Sampling
from workers.wire.template_args import TemplateArgs

MAX_PROMPT_BYTES = 1024 * 1024
MAX_MESSAGES = 256
MAX_TOKENS = 1_000_000
MAX_STOPS = 16
MAX_STOP_CHARS = 256
MAX_TEXT_CHARS = 1024 * 1024
MAX_HELD = 1024
MAX_OUTCOMES = 64
MAX_RANK = 2**63 - 1
MAX_RUN_LIMIT_S = 30 * 86_400
"""The longest run of an attempt in seconds, whoever set it."""

Id = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[0-9A-Za-z_-]+$")]
Name = Annotated[str, Field(min_length=1, max_length=128)]
Count = Annotated[int, Field(ge=0, le=2**40)]
Attempt = Annotated[int, Field(ge=1, le=2**31)]
Stop = Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARS)]
FinishReason = Literal["stop", "length", "deadline", "cancelled"]


class Body(BaseModel):
    """The body of a message; its `kind` stands in the envelope."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True
    )
    kind: ClassVar[str]
    expires: ClassVar[bool] = False
    """True where the envelope carries `exp`: for what a worker might otherwise run too late."""


class ChatMessage(BaseModel):
    """One turn of a conversation."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)
    role: Literal["system", "user", "assistant"]
    content: Annotated[str, Field(max_length=MAX_PROMPT_BYTES)]


class AttemptRef(BaseModel):
    """One attempt at one order, and the secret that proves who was given it."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)
    order: Id
    attempt: Attempt
    nonce: Id


class InferenceJob(Body):
    """Herder to worker: run this attempt at this order."""

    kind = "job"
    expires = True
    order: Id
    attempt: Attempt
    nonce: Id
    rank: Annotated[int, Field(ge=-MAX_RANK, le=MAX_RANK)]
    model: Name
    multiplier: Annotated[str, Field(max_length=40)] = "1"
    """The offer per winston needed, shown to people who watch; it decides nothing."""
    prompt: Annotated[str, Field(max_length=MAX_PROMPT_BYTES)] | None = None
    messages: Annotated[tuple[ChatMessage, ...], Field(max_length=MAX_MESSAGES)] | None = None
    raw: bool = False
    special: bool = False
    """Of a raw prompt: texts of control tokens in it are those tokens."""
    continues: bool = False
    """The answer continues the last message, which is the assistant's."""
    template_args: TemplateArgs = {}
    tokens: Annotated[int, Field(ge=0, le=MAX_TOKENS)]
    """At least 1 wherever a client is answered; dispatch takes 0, as the original did."""
    fit_tokens: bool = False
    """The tokens are the herd's to say: what the prompt leaves of the context, if that is fewer."""
    stop: Annotated[tuple[Stop, ...], Field(max_length=MAX_STOPS)] = ()
    sampling: Sampling = Sampling()
    run_limit_s: Annotated[int, Field(ge=1, le=MAX_RUN_LIMIT_S)]
    splits_reasoning: bool = False
    """True: reasoning is told from the answer. Herders of earlier versions do not ask for it."""

    @model_validator(mode="after")
    def _one_prompt(self) -> Self:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("a job has either a prompt or messages")
        return self

    @property
    def held(self) -> AttemptRef:
        """The attempt that this job is."""
        return AttemptRef(order=self.order, attempt=self.attempt, nonce=self.nonce)

    @property
    def label(self) -> str:
        """What people who watch see of it."""
        return job_label(self.order, self.multiplier, self.tokens)


class Failure(BaseModel):
    """A worker's failure to deliver; `permanent` means that no other worker could either."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)
    code: Annotated[str, Field(max_length=64, pattern=r"^[a-z][a-z0-9_]*$")]
    message: Annotated[str, Field(max_length=2000)]
    permanent: bool
    data: Annotated[dict[str, int | str], Field(max_length=16)] = {}


class Outcome(BaseModel):
    """The end of an attempt."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True
    )
    order: Id
    attempt: Attempt
    nonce: Id
    result: Literal["completed", "failed", "handed_back"]
    finish_reason: FinishReason | None = None
    text: Annotated[str, Field(max_length=MAX_TEXT_CHARS)] = ""
    """Reasoning, and the answer behind it."""
    reasoning: Count = 0
    """Characters at the beginning of the text that are reasoning."""
    prompt_tokens: Count = 0
    generated: Count = 0
    reasoning_tokens: Count = 0
    """Generated tokens that went into reasoning."""
    failure: Failure | None = None
    took_ms: Count = 0

    @property
    def held(self) -> AttemptRef:
        """The attempt that ended."""
        return AttemptRef(order=self.order, attempt=self.attempt, nonce=self.nonce)


class Outcomes(Body):
    """Worker to herder: how attempts ended, all that waited to be sent. Again until confirmed."""

    kind = "outcomes"
    outcomes: Annotated[tuple[Outcome, ...], Field(min_length=1, max_length=MAX_OUTCOMES)]


class Announcement(BaseModel):
    """A worker's announcement: the herder's view of the herd comes only from this."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)
    name: Name
    model: Name
    slots: Annotated[int, Field(ge=1, le=256)]
    context: Annotated[int, Field(ge=1, le=2**24)]
    tokens_per_s: Annotated[int, Field(ge=0, le=10**7)] = 0
    """Measured decoding speed of one slot with all slots busy; 0 while nothing was measured."""
    weights: Annotated[str, Field(max_length=64)] = "as in the file"
    draining: bool = False
    clock_ahead_s: Annotated[int, Field(ge=-(2**40), le=2**40)] = 0
    """By how many seconds its clock is ahead of the herders'; 0 for a few seconds either way."""


class Beat(Body):
    """Worker to herder, every few seconds: still here, still running these."""

    kind = "beat"
    number: Count
    """Rises by one with each beat of an instance, so that an old one is known as old."""
    worker: Announcement
    running: Annotated[tuple[AttemptRef, ...], Field(max_length=MAX_HELD)] = ()
    unconfirmed: Annotated[tuple[AttemptRef, ...], Field(max_length=MAX_HELD)] = ()


class Claim(Body):
    """Worker to herder: these attempts are mine; sent before their prompts reach the engine."""

    kind = "claim"
    held: Annotated[tuple[AttemptRef, ...], Field(min_length=1, max_length=MAX_HELD)]


class WorkerStopped(Body):
    """Worker to herder: this instance ends and holds nothing any more."""

    kind = "farewell"


class Hello(Body):
    """Herder to worker, by the broker and the worker's own queue: do messages reach you there?"""

    kind = "hello"
    number: Count
    """Rises with each time that the herders have reason to ask: an old answer answers nothing."""


class HelloAnswer(Body):
    """Worker to herder: this hello came through the broker, and a thread took it."""

    kind = "hello_answer"
    number: Count


class ClockRequest(Body):
    """Worker to herder: what does your clock show?"""

    kind = "ask_clock"
    nonce: Id
    """Drawn anew for each question, and named in its answer: an old answer answers nothing."""


class ClockReading(Body):
    """Herder to worker: what its clock shows now, between the question's departure and now."""

    kind = "clock"
    nonce: Id
    herder: Name
    """The name of the herder that answers: their clocks may differ."""
    now_us: Annotated[int, Field(ge=0, le=2**53)]


class Marker(Body):
    """Herder to herders, on the beats' stream: one more second in which somebody listened."""

    kind = "marker"
    number: Count


class Nudge(Body):
    """Client to herder: something waits for this model. It decides nothing."""

    kind = "nudge"
    model: Name


class CancelAttempt(Body):
    """Herder to worker: stop this attempt between two tokens."""

    kind = "stop"
    held: AttemptRef
    reason: Literal["cancelled", "deadline", "void"]


class Confirm(Body):
    """Herder to worker: these outcomes are settled; forget them."""

    kind = "confirm"
    held: Annotated[tuple[AttemptRef, ...], Field(max_length=MAX_HELD)]


class Reject(Body):
    """Herder to worker: this instance may not join; say why and end."""

    kind = "refuse"
    reason: Annotated[str, Field(max_length=2000)]


class Drain(Body):
    """Herder to worker: take no more, finish or hand back, and end."""

    kind = "drain"


class CountTokens(Body):
    """Herder to worker: count the tokens of the prompt that was left under this id.

    Not in the control stream itself: it keeps thousands of messages, and a prompt may be long.
    """

    kind = "count_tokens"
    request: Id


class PromptToCount(Body):
    """Herder to worker: a prompt whose tokens are to be counted, as a job would give it."""

    kind = "prompt_to_count"
    request: Id
    prompt: Annotated[str, Field(max_length=MAX_PROMPT_BYTES)] | None = None
    messages: Annotated[tuple[ChatMessage, ...], Field(max_length=MAX_MESSAGES)] | None = None
    raw: bool = False
    special: bool = False
    continues: bool = False
    template_args: TemplateArgs = {}


class CountedTokens(Body):
    """Worker to herder: the tokens of a prompt, as the model would be given it."""

    kind = "counted_tokens"
    request: Id
    prompt_tokens: Count = 0
    context: Count = 0
    """Tokens that one order may have here, prompt and answer together."""
    share: Count = 0
    """Tokens that each order may have so that all slots find room in the cache; 0 if unknown."""
    failure: Failure | None = None
    """The reason for which the prompt cannot run on this model, whatever its length."""


KINDS: dict[str, type[Body]] = {
    body.kind: body
    for body in (
        InferenceJob,
        Outcomes,
        Beat,
        Claim,
        ClockRequest,
        ClockReading,
        WorkerStopped,
        Hello,
        HelloAnswer,
        Marker,
        Nudge,
        CancelAttempt,
        Confirm,
        Reject,
        Drain,
        CountTokens,
        PromptToCount,
        CountedTokens,
    )
}


def attempt_id(held: AttemptRef) -> str:
    """Return the Celery task id that stands for an attempt."""
    return f"{held.order}.{held.attempt}"
