"""OpenAI's answers, as they are sent and as /openapi.json shows them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from herder.types import Receipt


class TokenDetails(BaseModel):
    """Parts of the tokens that were generated."""

    reasoning_tokens: int = Field(
        description="What the model thought before its answer; charged as all that it generates."
    )


class TokenUsage(BaseModel):
    """Tokens as the model counted them."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    completion_tokens_details: TokenDetails
    cost: int = Field(description="Winston charged, as in the receipt.")
    max_tokens: int = Field(
        description="The most tokens that the answer could have: those that the call named, or "
        "what fitted."
    )
    max_tokens_requested: int | None = Field(
        None, description="The `max_tokens` of the call, where it was cut to what fitted."
    )


class ChatMessage(BaseModel):
    """The message that the model generated."""

    role: Literal["assistant"]
    content: str
    reasoning_content: str | None = Field(
        None, description="What the model thought before, if it did."
    )


class ChatDelta(BaseModel):
    """More of what the model says."""

    role: Literal["assistant"] | None = None
    content: str | None = None
    reasoning_content: str | None = None


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
    service_tier: Literal["default"]
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
    service_tier: Literal["default"]
    choices: Annotated[list[ChatPiece], Field(max_length=1)]
    usage: TokenUsage | None = None
    receipt: Receipt | None = None


class CompletionChunk(_Head):
    """An event of a stream; with `include_usage` the last has no choices, but the counts."""

    object: Literal["text_completion"]
    choices: Annotated[list[TextPiece], Field(max_length=1)]
    usage: TokenUsage | None = None
    receipt: Receipt | None = None
