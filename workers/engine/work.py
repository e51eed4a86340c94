"""The words that engine, models and Celery app share: what is asked, what comes back.

`workers.engine` exports all of them; a model needs only this module. Loads neither llama_cpp
nor Celery.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from workers.engine.sequences import BatchRow
from workers.engine.thinking import Thinking
from workers.errors import WorkerError
from workers.wire import ChatMessage, Sampling, TemplateArg

EndReason = Literal["stop", "length", "deadline", "cancelled", "handed_back", "failed"]


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One attempt at an order, as the engine sees it.

    Attributes:
        key: unique among all that the engine holds: `<order>:<attempt>`.
        prompt: what to continue; None if there are messages.
        messages: a conversation to continue; None if there is a prompt.
        raw: the prompt goes to the model as it stands, without the chat template.
        tokens: the most tokens to generate, at least 1.
        stop: strings that end the text and are left out of it.
        sampling: how the next token is chosen; temperature 0 takes the likeliest.
        rank: higher goes first, then who came first.
        run_limit_s: seconds from the start in the engine to the end with reason `deadline`.
        special: texts of control tokens in a raw prompt are those tokens.
        continues: the answer continues the last message, which is the assistant's.
        template_args: variables that the caller sets for the chat template.
        fit_tokens: where the prompt leaves fewer tokens, at least 1, so many are generated; else
            what does not fit fails.
        splits_reasoning: what the model thinks is told from what it answers.
    """

    key: str
    prompt: str | None
    messages: tuple[ChatMessage, ...] | None
    raw: bool
    tokens: int
    stop: tuple[str, ...]
    sampling: Sampling
    rank: int
    run_limit_s: float
    special: bool = False
    continues: bool = False
    template_args: Mapping[str, TemplateArg] = field(default_factory=dict, hash=False)
    fit_tokens: bool = False
    splits_reasoning: bool = False


@dataclass(frozen=True, slots=True)
class Completion:
    """The end of a piece of work.

    Attributes:
        reason: `stop` (the model ended, or a stop string), `length` (as many tokens as were
            asked for), `deadline`, `cancelled`, `handed_back` (not done, run it elsewhere) or
            `failed` (then there is an error).
        text: all that was generated; the pieces given to `on_text`, joined.
        prompt_tokens: tokens of the prompt with the template; 0 if it was never counted.
        generated: sampled tokens: an end-of-generation token not, tokens cut off by a stop
            string yes.
        reasoning: characters at the beginning of the text that are the model's reasoning; its
            answer comes after them.
        reasoning_tokens: those of the generated tokens that went into that.
        error: what went wrong, for `failed` only.
        queued_s: seconds in the engine before the start.
        prefill_s: seconds from the start to the first token.
        decode_s: seconds from the first token to the end.
    """

    reason: EndReason
    text: str
    prompt_tokens: int
    generated: int
    error: WorkerError | None
    queued_s: float
    prefill_s: float
    decode_s: float
    reasoning: int = 0
    reasoning_tokens: int = 0


class Listener(Protocol):
    """A listener to a piece of work. Called on the engine's thread: be quick and never raise."""

    def on_start(self, prompt_tokens: int) -> None:
        """Hear that it has a slot and its prompt of this many tokens is about to be computed."""

    def on_text(self, text: str, generated: int, reasoning: int) -> None:
        """More text: whole characters, never part of a stop string, never taken back.

        Args:
            text: what came.
            generated: the tokens so far, from the first.
            reasoning: characters at its beginning that are the model's reasoning; none once the
                answer has begun.
        """

    def on_end(self, end: Completion) -> None:
        """Hear of the end, exactly once, and of nothing after it."""


@dataclass(frozen=True, slots=True)
class TemplateFacts:
    """The facts of a model's chat template.

    Attributes:
        source: `model` (its file has one), `file` (`HERD_CHAT_TEMPLATE`), or `none`.
        path: the file.
        renders: whether it shows the message of a user, without which it is of no use here.
        system: what becomes of a system message at the beginning of a conversation; `merged` into
            the user's text.
        later_system: what becomes of one that comes later.
        thinking: the mark by which the model's reasoning begins, where it is told from answers.
    """

    source: Literal["model", "file", "none"] = "none"
    path: str | None = None
    renders: bool = False
    system: Literal["shown", "merged", "refused"] = "refused"
    later_system: Literal["shown", "merged", "refused"] = "refused"
    thinking: str | None = None


NO_TEMPLATE = TemplateFacts()


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """The facts of a loaded model.

    Attributes:
        name: as the file calls it.
        context: tokens that one order may have, prompt and answer together.
        slots: orders decoded at once.
        vocab: number of tokens in the vocabulary.
        cells: tokens of all orders together that the cache holds.
        prefixes: further sequences of the cache that may keep shared prefixes.
        batch_tokens: the most tokens in one decode call.
        step_tokens: the most prompt tokens computed beside running streams in one step.
        can_share: whether cells of one sequence can be given to another.
        separate: whether each slot has a part of the cache of its own.
        weights: `as in the file`, or the type that they were converted to at load.
        size_bytes: the weights in memory.
        kv_bytes: the cache in memory.
        threads: CPU threads that decode.
        gpu: the accelerator in use, or None.
        system: build flags and CPU features in use, as llama.cpp prints them.
        template: its chat template.
        notes: what is not as the settings have it, and why: a sentence each.
    """

    name: str
    context: int
    slots: int
    vocab: int
    cells: int
    prefixes: int = 0
    batch_tokens: int = 512
    step_tokens: int = 512
    can_share: bool = False
    separate: bool = False
    weights: str = "as in the file"
    size_bytes: int = 0
    kv_bytes: int = 0
    threads: int = 1
    gpu: str | None = None
    system: str = ""
    template: TemplateFacts = NO_TEMPLATE
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class EngineMetrics:
    """The engine's counters since its start, to be turned into rates.

    Attributes:
        steps: decode calls.
        rows: sequences in them, summed; `rows / steps / slots` is the occupancy.
        prefilled: prompt tokens computed.
        reused: prompt tokens taken from another sequence's cells.
        generated: tokens sampled.
        preempted: times that a running sequence gave up its cells.
        started: pieces of work that got a slot.
        first_tokens: first tokens, and first_token_s the seconds from submission to them, summed.
        busy_s: seconds in steps; model_s: those of them in decode and sampling.
    """

    steps: int = 0
    rows: int = 0
    prefilled: int = 0
    reused: int = 0
    generated: int = 0
    preempted: int = 0
    started: int = 0
    first_tokens: int = 0
    first_token_s: float = 0.0
    busy_s: float = 0.0
    model_s: float = 0.0


class Sampler(Protocol):
    """The state by which a model chooses the tokens of one sequence."""

    def close(self) -> None:
        """Free what it holds. Called once, on the engine's thread."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A prompt in tokens.

    Attributes:
        tokens: the prompt.
        sampler: how its continuation is sampled; None: greedy.
        thinking: how reasoning is told from the answer in it; None: all of it is the answer.
    """

    tokens: list[int]
    sampler: Sampler | None
    thinking: Thinking | None = None


class Model(Protocol):
    """A model, as the engine needs it.

    All but `prepare` and `count_tokens` is called on the engine's thread.
    """

    @property
    def facts(self) -> ModelFacts:
        """What was loaded."""

    def prepare(self, work: GenerationRequest) -> Prepared:
        """Format and tokenise a prompt and make its sampler; any thread may call this.

        Raises:
            PromptError: the prompt cannot be made into tokens.
            SamplingError: the parameters cannot be used.
        """

    def count_tokens(self, work: GenerationRequest) -> int:
        """Return the number of tokens of a prompt as `prepare` makes it; any thread may call this.

        Raises:
            PromptError: the prompt cannot be made into tokens.
        """

    def decode(self, rows: Sequence[BatchRow]) -> bool:
        """Compute the cells of these rows.

        Returns:
            False if the cache has no room for them; then nothing has changed.

        Raises:
            DecodeFailed: the model is of no more use.
        """

    def sample(self, samplers: Sequence[Sampler | None]) -> list[int | WorkerError | None]:
        """Return the next token for each row with output of the last decode, in the rows' order.

        A `WorkerError` in a place ends that sequence alone; None is no token this time: the
        engine asks again in the next step.
        """

    def piece(self, token: int) -> bytes:
        """Return the bytes of a token, possibly part of a character; control tokens have none."""

    def is_end(self, token: int) -> bool:
        """Return whether the token ends the generation."""

    def keep(self, slot: int, length: int) -> None:
        """Drop the cells of a sequence from position `length` on; 0 drops all."""

    def copy(self, source: int, target: int, length: int) -> None:
        """Give the first `length` cells of a sequence to another, which must be empty."""

    def close(self) -> None:
        """Free everything. The engine's thread has stopped before."""
