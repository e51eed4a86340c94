"""The sampling parameters of an order, and their bounds."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

MAX_GRAMMAR_CHARS: Final = 16 * 1024
MAX_SCHEMA_CHARS: Final = 1024 * 1024
MAX_REGEX_CHARS: Final = 16 * 1024
MAX_CHOICES: Final = 1000
MAX_CHOICE_CHARS: Final = 256

FORMS: Final = ("grammar", "json_schema", "regex", "choice")
"""The parameters that say what form an answer has."""

TokenId = Annotated[int, Field(ge=0, lt=2**31)]
"""A token, as llama.cpp numbers them: with 32 bits and a sign."""


class Sampling(BaseModel):
    """The sampling parameters; the defaults are llama.cpp's own."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True
    )
    temperature: Annotated[float, Field(ge=0, le=10)] = 0.8
    top_k: Annotated[int, Field(ge=0, le=1_000_000)] = 40
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.95
    min_p: Annotated[float, Field(ge=0, le=1)] = 0.05
    repeat_penalty: Annotated[float, Field(gt=0, le=10)] = 1.0
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] = 0.0
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] = 0.0
    seed: Annotated[int, Field(ge=0, lt=2**32)] | None = None
    logit_bias: Annotated[dict[TokenId, float], Field(max_length=1024)] = {}
    ignore_eos: bool = False
    """True to go on where the model would end; not beside one of the forms."""
    grammar: Annotated[str, Field(max_length=MAX_GRAMMAR_CHARS)] | None = None
    """Of llama.cpp's GBNF."""
    json_schema: Annotated[str, Field(max_length=MAX_SCHEMA_CHARS)] | None = None
    regex: Annotated[str, Field(max_length=MAX_REGEX_CHARS)] | None = None
    """Of the whole answer."""
    choice: (
        Annotated[
            tuple[Annotated[str, Field(min_length=1, max_length=MAX_CHOICE_CHARS)], ...],
            Field(min_length=1, max_length=MAX_CHOICES),
        ]
        | None
    ) = None
    """The answer is one of these texts."""

    @property
    def forms(self) -> tuple[str, ...]:
        """The parameters that say what form an answer has; more than one contradict each other."""
        return tuple(name for name in FORMS if getattr(self, name) is not None)
