"""OpenAI's requests: one model for each body, which /openapi.json shows and which reads it.

A parameter that would be ignored in silence changes what a program gets without telling it; so
whatever is not honoured here is refused by its name, unless its value asks for what happens anyway.
What order intake judges (fees, bounds of sampling, times) is described here and left to it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
)

from herder.domain.parsing import MAX_REFERENCE_CHARS
from herder.domain.pricing import MAX_WINSTON
from herder.gateway.schemas.openai_continuing import ContinuingFields
from herder.gateway.schemas.openai_given import Given
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
from herder.gateway.schemas.openai_structured import StructuredFields
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


class TextPart(Given):
    """A part of a turn: text, and nothing else."""

    type: Literal["text"]
    text: Annotated[StrictStr, Must("text")]

    @classmethod
    def check(cls, given: dict[str, Any]) -> None:
        """Refuse other kinds."""
        if given.get("type") != "text":
            kind = str(given.get("type"))[:40]
            raise said(f"is of type {kind}; only text is supported here")


class ChatTurn(Given):
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


class StreamOptions(Given):
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


Tokens = Annotated[
    Annotated[StrictInt, Field(ge=1, le=MAX_WINSTON)] | None,
    Must(f"a whole number from 1 to {MAX_WINSTON}"),
    Field(description="As many as fit if it is left out; more than fit are cut to those that do."),
]
Bias = dict[Annotated[StrictStr, Field(pattern="^[0-9]{1,9}$")], Number]


class _Body(Given, SamplingFields, HarmlessFields, StructuredFields):
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
        return found | self.form()[0]


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
