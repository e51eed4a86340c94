"""The shapes of what is told beside orders: refusals, models, keys, health."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from herder.types import Rate, Usage


class ErrorDetail(BaseModel):
    """An error: what was wrong, and what would be right."""

    message: str = Field(description="What is wrong, for people to read.")
    type: str = Field(description="OpenAI's type of error.")
    param: str | None = Field(description="The parameter that is wrong, if it is a single one.")
    code: str = Field(description="A stable code, the same as in `herder.errors`.")
    data: dict[str, Any] = Field({}, description="The values in the message; often left out.")


class ErrorAnswer(BaseModel):
    """The one form of all refusals, which is OpenAI's."""

    error: ErrorDetail


class ModelCard(BaseModel):
    """A model, or another name for one (`alias_of`), in OpenAI's form and with what it costs."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str
    alias_of: str | None
    default: bool
    context: int | None
    default_tokens: int = Field(
        description="The most tokens of a call to OpenAI's routes that names no number; 0 for as "
        "many as fit."
    )
    rates: Rate
    weights: list[str]
    queue_length: int
    wait_s: int | None
    workers: int


class ModelsAnswer(BaseModel):
    """All models."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


class SigningKey(BaseModel):
    """A public key as a JWK (RFC 8037)."""

    kty: str
    crv: str
    x: str
    kid: str
    alg: str
    use: str


class KeysAnswer(BaseModel):
    """A JWK set (RFC 7517)."""

    keys: list[SigningKey]


class NextPrice(BaseModel):
    """The price of a model's next order that names no fee, as the herd stands now.

    The fee is `multiplier * (prompt_fee + fee_per_token * (words + tokens))`, rounded down.
    No order that is placed at this price pays more.
    """

    model: str
    default: bool = Field(description="Whether it is the herd's own model.")
    multiplier: str = Field(
        description="The going multiplier, a decimal, rounded up in its ninth place."
    )
    prompt_fee: int = Field(description="Winston for a prompt.")
    fee_per_token: int = Field(description="Winston for each word and each token asked for.")


class AboutAnswer(BaseModel):
    """A gateway of a herd, and how to use it."""

    name: Literal["Llama Herder"] = "Llama Herder"
    version: str
    description: str = (
        "A shared herd of machines for LLM inference: the best-paid prompt runs first. OpenAI's "
        "clients use this address with /v1 as their base URL, and an API key of the herd's."
    )
    base_url: Literal["/v1"] = "/v1"
    openapi: Literal["/openapi.json"] = "/openapi.json"
    health: Literal["/health"] = "/health"
    next_prices: list[NextPrice] = Field(
        description="Of each model, a second old at most; empty while they cannot be read."
    )


class HealthAnswer(BaseModel):
    """This process answers."""

    status: Literal["ok"] = "ok"


class ReadyAnswer(BaseModel):
    """The readiness of the herd: for each part `ok` or what is missing."""

    ready: bool
    checks: dict[str, str]


class StartData(BaseModel):
    """`start`: a worker has the order."""

    attempt: int
    worker: str | None = None


class TextData(BaseModel):
    """`text`: more of the answer."""

    text: str


class RestartData(BaseModel):
    """`restart`: so many characters were shown that count for nothing; the text begins anew."""

    shown: int


class EndData(BaseModel):
    """`end`: how the order ended."""

    state: str
    finish_reason: str | None
    usage: Usage
    failure: dict[str, Any] | None
