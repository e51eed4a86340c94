"""OpenAI's requests and answers as the OpenAPI document shows them.

`openai_bodies` reads the requests: it names what it refuses, and takes what asks for what happens
anyway. Here stands the same for programs; a test holds the two together.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from herder.domain.parsing import MAX_REFERENCE_CHARS
from herder.types import Receipt
from workers.wire import MAX_MESSAGES, MAX_RUN_LIMIT_S, MAX_STOP_CHARS, MAX_STOPS, MAX_TOKENS

Tokens = Annotated[int, Field(ge=1, le=MAX_TOKENS)]
Penalty = Annotated[float, Field(ge=-2, le=2)]
Winston = Annotated[int, Field(ge=1)]
Stop = Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARS)]
Nothing = Annotated[list[Any], Field(max_length=0)]


class _Shown(BaseModel):
    model_config = ConfigDict(extra="forbid")


class TextPart(_Shown):
    """A part of a turn: text, and nothing else."""

    type: Literal["text"]
    text: str


class ChatTurn(_Shown):
    """A turn of a conversation; `developer` is taken as `system`, `name` is not shown to models."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[TextPart], Field(min_length=1)]
    name: Any = None


class StreamOptions(_Shown):
    """`include_usage`: the last chunk of a stream has the counts and the receipt."""

    include_usage: bool = False
    include_obfuscation: Any = None


class SchemaWanted(BaseModel):
    """The JSON schema that an answer has to follow."""

    json_schema_: Annotated[dict[str, Any], Field(alias="schema")]


class AnswerFormat(BaseModel):
    """The format that the answer must have."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: SchemaWanted | None = None


class _Body(_Shown):
    """The parameters of both routes; any other is refused by name, unless it is null."""

    model: Annotated[
        str, Field(description="A model or another name for one, as /v1/models lists them.")
    ]
    max_tokens: Tokens | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=MAX_STOPS)] | None = None
    temperature: Annotated[float, Field(ge=0, le=10)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**32)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: dict[Annotated[str, Field(pattern="^[0-9]{1,9}$")], float] | None = None
    response_format: AnswerFormat | None = None
    user: Annotated[str, Field(max_length=MAX_REFERENCE_CHARS)] | None = None
    # Not OpenAI's; in its package they go into `extra_body`.
    fee: Annotated[
        Winston | None, Field(description="The fee in whole winston; automatic if left out.")
    ] = None
    max_fee: Winston | None = None
    multiplier: float | str | None = None
    quote: Annotated[
        str | None,
        Field(description="The signed text of a quote from /v1/quotes that has not expired."),
    ] = None
    reference: Annotated[str, Field(max_length=MAX_REFERENCE_CHARS)] | None = None
    start_by: Annotated[
        str | None,
        Field(description="The time, with its zone (RFC 3339), by which the order must start."),
    ] = None
    run_limit_s: Annotated[int, Field(ge=1, le=MAX_RUN_LIMIT_S)] | None = None
    top_k: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repeat_penalty: Annotated[float, Field(gt=0, le=10)] | None = None
    grammar: str | None = None
    on_disconnect: Annotated[
        Literal["cancel", "continue"] | None,
        Field(
            description="What happens to the order when the caller disconnects; cancelled by "
            "default."
        ),
    ] = None
    # These are taken where they ask for what happens anyway.
    n: Literal[1] | None = None
    best_of: Literal[1] | None = None
    logprobs: Literal[False] | None = None
    top_logprobs: Literal[0] | None = None
    echo: Literal[False] | None = None
    suffix: Literal[""] | None = None
    store: Literal[False] | None = None
    tools: Nothing | None = None
    tool_choice: Literal["none", "auto"] | None = None
    parallel_tool_calls: bool | None = None
    functions: Nothing | None = None
    modalities: Annotated[list[Literal["text"]], Field(min_length=1, max_length=1)] | None = None
    metadata: Annotated[dict[str, Any], Field(max_length=0)] | None = None


class ChatBody(_Body):
    """A chat completion."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": "smollm2-135m-instruct",
                    "messages": [{"role": "user", "content": "What is a llama?"}],
                    "max_completion_tokens": 20,
                }
            ]
        }
    )

    messages: Annotated[list[ChatTurn], Field(min_length=1, max_length=MAX_MESSAGES)]
    max_completion_tokens: Tokens | None = None


class CompletionBody(_Body):
    """A completion."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"model": "smollm2-135m-instruct", "prompt": "A llama is", "max_tokens": 20}
            ]
        }
    )

    prompt: (
        Annotated[str, Field(min_length=1)]
        | Annotated[list[str], Field(min_length=1, max_length=1)]
    )


class TokenUsage(BaseModel):
    """Tokens as the model counted them."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ChatMessage(BaseModel):
    """The message that the model generated."""

    role: Literal["assistant"]
    content: str


class ChatDelta(BaseModel):
    """More of what the model says."""

    role: Literal["assistant"] | None = None
    content: str | None = None


class _Choice(BaseModel):
    index: Literal[0]
    logprobs: None
    finish_reason: Literal["stop", "length"]


class ChatChoice(_Choice):
    """The answer."""

    message: ChatMessage


class TextChoice(_Choice):
    """The answer."""

    text: str


class ChatPiece(BaseModel):
    """A piece of the answer."""

    index: Literal[0]
    delta: ChatDelta
    logprobs: None
    finish_reason: Literal["stop", "length"] | None


class TextPiece(BaseModel):
    """A piece of the answer."""

    index: Literal[0]
    text: str
    logprobs: None
    finish_reason: Literal["stop", "length"] | None


class _Head(BaseModel):
    id: str
    created: int
    model: str


class ChatCompletion(_Head):
    """A chat completion, and what it cost."""

    object: Literal["chat.completion"]
    choices: list[ChatChoice]
    usage: TokenUsage
    receipt: Receipt


class Completion(_Head):
    """A completion, and what it cost."""

    object: Literal["text_completion"]
    choices: list[TextChoice]
    usage: TokenUsage
    receipt: Receipt


class ChatChunk(_Head):
    """An event of a stream; with `include_usage` the last has no choices, but the counts."""

    object: Literal["chat.completion.chunk"]
    choices: Annotated[list[ChatPiece], Field(max_length=1)]
    usage: TokenUsage | None = None
    receipt: Receipt | None = None


class CompletionChunk(_Head):
    """An event of a stream; with `include_usage` the last has no choices, but the counts."""

    object: Literal["text_completion"]
    choices: Annotated[list[TextPiece], Field(max_length=1)]
    usage: TokenUsage | None = None
    receipt: Receipt | None = None


PRICED = [
    {
        "name": name,
        "in": "header",
        "required": False,
        "description": description,
        "schema": {"type": "string", "pattern": pattern},
    }
    for name, pattern, description in (
        ("X-Fee", "^[0-9]{1,20}$", "As `fee`."),
        ("X-Max-Fee", "^[0-9]{1,20}$", "As `max_fee`."),
        ("X-Multiplier", "^[0-9.]{1,20}$", "As `multiplier`."),
        ("X-On-Disconnect", "^(cancel|continue)$", "As `on_disconnect`."),
        ("Idempotency-Key", "^[!-~]{1,255}$", "The same call with the same key is one order."),
    )
]
"""Headers that price a call or name it."""
