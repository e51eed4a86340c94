"""OpenAI's requests: one model for each body, which /openapi.json shows and which reads it.

A parameter that would be ignored in silence changes what a program gets without telling it; so
whatever is not honoured here is refused by its name, unless its value asks for what happens anyway.
What order intake judges (fees, bounds of sampling, times) is described here and left to it.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
    model_validator,
)

from herder.domain.parsing import MAX_REFERENCE_CHARS
from herder.domain.pricing import MAX_WINSTON
from herder.gateway.schemas.openai_continuing import ContinuingFields
from herder.gateway.schemas.openai_harmless import (
    MIN_TOP_P,
    Empty,
    HarmlessFields,
    Metadata,
    Penalty,
    Same,
    Seed,
    TopP,
    reference_of,
    seed_of,
)
from herder.gateway.schemas.openai_reasoning import ReasoningFields, Thought
from herder.gateway.schemas.orders import BASE_OR_WINSTON, Number, SamplingFields, Winston
from herder.gateway.schemas.template_args import TemplateFields
from herder.interface import SAMPLING_NAMES
from herder.web.errors import BadRequest
from herder.web.shapes import Must, Refused, by_intake, said
from workers.wire import MAX_MESSAGES, MAX_RUN_LIMIT_S, MAX_STOP_CHARS, MAX_STOPS

Stop = Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARS)]
OnDisconnect = Literal["cancel", "continue"]

_SENT_ON = ("fee", "multiplier", "max_fee", "quote", "reference", "start_by", "run_limit_s", "stop")
_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}


def _schema(**shown: Any) -> Any:
    """Bounds that order intake keeps, for those who read the document."""
    return Field(json_schema_extra=shown)


def _one_text(value: Any) -> Any:
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _as_parts(value: Any) -> Any:
    return [{"type": "text", "text": value}] if isinstance(value, str) else value


def _object(value: Any) -> Any:
    if not isinstance(value, dict):
        raise said("must be an object")
    return value


class _Given(BaseModel):
    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _as_given(cls, value: Any) -> Any:
        """Take null for what is left out, and let a field that is missing be told as it must be."""
        given = {name: one for name, one in _object(value).items() if one is not None}
        cls.check(given)
        return dict.fromkeys(_required(cls)) | given

    @classmethod
    def check(cls, given: dict[str, Any]) -> None:
        """Refuse, by a sentence of its own, what is no such object."""


def _required(kind: type[BaseModel]) -> list[str]:
    return [name for name, field in kind.model_fields.items() if field.is_required()]


class TextPart(_Given):
    """A part of a turn: text, and nothing else."""

    type: Literal["text"]
    text: Annotated[StrictStr, Must("text")]

    @classmethod
    def check(cls, given: dict[str, Any]) -> None:
        """Refuse other kinds."""
        if given.get("type") != "text":
            kind = str(given.get("type"))[:40]
            raise said(f"is of type {kind}; only text is supported here")


class ChatTurn(_Given):
    """A turn of a conversation; `developer` is taken as `system`, `name` is not shown to models."""

    role: Annotated[
        Literal["system", "developer", "user", "assistant"], Must(f"one of {', '.join(_ROLES)}")
    ]
    content: Annotated[
        list[TextPart],
        Field(min_length=1),
        BeforeValidator(
            _as_parts,
            json_schema_input_type=str | Annotated[list[TextPart], Field(min_length=1)],
        ),
        Must("text", inside=True),
    ]
    name: Any = None
    annotations: Empty = None
    tool_calls: Empty = None
    reasoning_content: Thought = None
    reasoning: Thought = None

    def turn(self) -> dict[str, str]:
        """Return it as the herd takes it."""
        return {
            "role": _ROLES[self.role],
            "content": "".join(part.text for part in self.content),
        }


class StreamOptions(_Given):
    """`include_usage`: the last chunk of a stream has the counts and the receipt.

    `continuous_usage_stats` is taken and changes nothing: only the last chunk has the counts.
    """

    include_usage: Annotated[StrictBool | None, Must("true or false")] = None
    include_obfuscation: Any = None
    continuous_usage_stats: Annotated[StrictBool | None, Must("true or false")] = None

    @classmethod
    def check(cls, given: dict[str, Any]) -> None:
        """Refuse other options."""
        if given.keys() - cls.model_fields.keys():
            raise said("may only contain include_usage")


class _AnyText(BaseModel):
    """Text of any form."""

    type: Literal["text"]


class _AnyObject(BaseModel):
    """Any JSON object, or what a schema beside it says."""

    type: Literal["json_object"]
    json_schema_: Annotated[dict[str, Any] | None, Field(alias="schema")] = None


class _WantedSchema(BaseModel):
    """The JSON schema that an answer has to follow."""

    json_schema_: Annotated[dict[str, Any], Field(alias="schema")]


class _SchemaFormat(BaseModel):
    """JSON that follows a schema."""

    type: Literal["json_schema"]
    json_schema: _WantedSchema


Tokens = Annotated[
    Annotated[StrictInt, Field(ge=1, le=MAX_WINSTON)] | None,
    Must(f"a whole number from 1 to {MAX_WINSTON}"),
    Field(description="As many as fit if it is left out; more than fit are cut to those that do."),
]
Bias = dict[Annotated[StrictStr, Field(pattern="^[0-9]{1,9}$")], Number]


class _Body(_Given, SamplingFields, HarmlessFields):
    """The parameters of both routes; any other is refused by its name, unless it is null."""

    seed: Seed = None
    top_p: TopP = None
    repetition_penalty: Penalty = None

    model: Annotated[
        StrictStr,
        Must("text"),
        Field(description="A model or another name for one, as /v1/models lists them."),
    ]
    max_tokens: Tokens = None
    stream: Annotated[StrictBool | None, Must("true or false")] = None
    stream_options: Annotated[
        StreamOptions | None, Refused("may only contain include_usage", inside=True)
    ] = None
    stop: Annotated[Any, by_intake(Stop | Annotated[list[Stop], Field(max_length=MAX_STOPS)])] = (
        None
    )
    logit_bias: Annotated[
        Bias | None,
        Refused("must map token numbers to numbers"),
        _schema(propertyNames={"pattern": "^[0-9]{1,9}$"}),
    ] = None
    response_format: Annotated[
        Annotated[_AnyText | _AnyObject | _SchemaFormat, Field(discriminator="type")] | None,
        Must("of type text, json_object, or json_schema with a schema"),
        BeforeValidator(_object),
    ] = None
    user: Annotated[
        StrictStr | None,
        Must("text"),
        Field(
            description=f"The order's reference, cut to {MAX_REFERENCE_CHARS} characters, unless "
            "`reference` gives one."
        ),
    ] = None
    # Not OpenAI's; in its package they go into `extra_body`.
    fee: Annotated[
        Any,
        by_intake(Winston | Literal["base"]),
        Field(description=BASE_OR_WINSTON),
    ] = None
    max_fee: Annotated[Any, by_intake(Winston)] = None
    multiplier: Annotated[
        Any,
        by_intake(float | str),
        Field(description="A factor on the fee; in receipts, it is `bid_factor`."),
    ] = None
    quote: Annotated[
        Any,
        by_intake(str),
        Field(description="The signed text of a quote from /v1/quotes that has not expired."),
    ] = None
    reference: Annotated[Any, by_intake(Annotated[str, Field(max_length=MAX_REFERENCE_CHARS)])] = (
        None
    )
    start_by: Annotated[
        Any,
        by_intake(str),
        Field(description="The time, with its zone (RFC 3339), by which the order must start."),
    ] = None
    run_limit_s: Annotated[Any, by_intake(Annotated[int, Field(ge=1, le=MAX_RUN_LIMIT_S)])] = None
    on_disconnect: Annotated[
        OnDisconnect | None,
        Must("cancel or continue"),
        Field(
            description="What happens to the order when the caller disconnects; cancelled by "
            "default."
        ),
    ] = None
    # These are taken where they ask for what happens anyway.
    n: Annotated[Literal[1] | None, Same] = None
    best_of: Annotated[Literal[1] | None, Same] = None
    logprobs: Annotated[Literal[False] | None, Same] = None
    top_logprobs: Annotated[Literal[0] | None, Same] = None
    echo: Annotated[Literal[False] | None, Same] = None
    suffix: Annotated[Literal[""] | None, Same] = None
    tools: Empty = None
    tool_choice: Annotated[Literal["none", "auto"] | None, Same] = None
    parallel_tool_calls: Annotated[StrictBool | None, Same] = None
    functions: Empty = None
    modalities: Annotated[
        Annotated[list[Literal["text"]], Field(min_length=1, max_length=1)] | None, Same
    ] = None
    metadata: Metadata = None

    def tokens(self) -> int | None:
        """Return the most tokens to generate; None where the call gives no number."""
        return self.max_tokens

    def call(self) -> dict[str, Any]:
        """Return the herd's call, without prompt and tokens."""
        call = {name: one for name in _SENT_ON if (one := getattr(self, name)) is not None}
        if self.user is not None:
            call.setdefault("reference", reference_of(self.user))
        return call | {"model": self.model, "sampling": self._sampling()}

    def _sampling(self) -> dict[str, Any]:
        found = self.model_dump(include=set(SAMPLING_NAMES) - {"seed"}, exclude_none=True)
        if self.seed is not None:
            found |= seed_of(self.seed)
        if self.top_p == 0:
            found["top_p"] = MIN_TOP_P
        if self.repetition_penalty is not None:
            if self.repeat_penalty not in (None, self.repetition_penalty):
                raise BadRequest(
                    "repeat_penalty and repetition_penalty differ; give only one.",
                    "repetition_penalty",
                )
            found["repeat_penalty"] = self.repetition_penalty
        if self.logit_bias is not None:
            found["logit_bias"] = {int(token): value for token, value in self.logit_bias.items()}
        schema = self._json_schema()
        return found if schema is None else {**found, "json_schema": schema}

    def _json_schema(self) -> str | None:
        """Return the JSON schema that the answer has to follow, as text."""
        match self.response_format:
            case _AnyObject(json_schema_=wanted):
                schema = {"type": "object"} if wanted is None else wanted
            case _SchemaFormat(json_schema=given):
                schema = given.json_schema_
            case _:
                return None
        try:
            return json.dumps(schema, allow_nan=False, ensure_ascii=False)
        except (ValueError, RecursionError):  # 1e999, or as deep as it could just be read
            raise BadRequest(
                "The schema is not valid JSON, or it is nested too deeply.", "response_format"
            ) from None


class ChatBody(_Body, ContinuingFields, TemplateFields, ReasoningFields):
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

    messages: Annotated[
        list[ChatTurn],
        Field(min_length=1),
        Must("a list of at least one message", inside=True),
        _schema(maxItems=MAX_MESSAGES),
    ]
    max_completion_tokens: Tokens = None

    def tokens(self) -> int | None:
        """Return the most tokens to generate, by either name."""
        both = {self.max_tokens, self.max_completion_tokens} - {None}
        if len(both) > 1:
            raise BadRequest(
                "max_tokens and max_completion_tokens differ; give only one.", "max_tokens"
            )
        return self.max_completion_tokens or self.max_tokens

    def call(self) -> dict[str, Any]:
        """Return the herd's call, without tokens."""
        call = super().call() | {"messages": [turn.turn() for turn in self.messages]}
        if self.continues(self.messages[-1].role):
            call["continue_final_message"] = True
        return call | self.template_args()


class CompletionBody(_Body):
    """A completion."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"model": "smollm2-135m-instruct", "prompt": "A llama is", "max_tokens": 20}
            ]
        }
    )

    prompt: Annotated[
        StrictStr,
        BeforeValidator(
            _one_text,
            json_schema_input_type=Annotated[str, Field(min_length=1)]
            | Annotated[list[str], Field(min_length=1, max_length=1)],
        ),
        Must("a single string"),
    ]
    reasoning_effort: Annotated[Literal["none"] | None, Same] = None
    special: Annotated[
        StrictBool | None,
        Must("true or false"),
        Field(description="What the prompt writes as a control token is that token."),
    ] = None

    def call(self) -> dict[str, Any]:
        """Return the herd's call, without prompt and tokens."""
        call = super().call() | {"raw": True}
        return call | {"special": True} if self.special else call
