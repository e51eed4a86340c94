"""The parameters that reach the model's chat template, on every route that has one.

vLLM and llama.cpp's server have `chat_template_kwargs`; `reasoning_effort` is OpenAI's.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, Field

from herder.web.shapes import by_intake
from workers.wire import (
    MAX_TEMPLATE_ARG_CHARS,
    MAX_TEMPLATE_ARGS,
    TEMPLATE_ARG_NAME,
    Effort,
    TemplateArg,
)


class TemplateFields(BaseModel):
    """The variables that a call sets for the chat template."""

    reasoning_effort: Annotated[
        Any,
        by_intake(Effort),
        Field(
            description="How much a model that can think is to think before it answers, as the "
            "variable `reasoning_effort` of its chat template; `none` turns thinking off where the "
            "template has a switch."
        ),
    ] = None
    chat_template_kwargs: Annotated[
        Any,
        by_intake(
            Annotated[
                dict[
                    Annotated[str, Field(pattern=TEMPLATE_ARG_NAME)],
                    bool | int | float | Annotated[str, Field(max_length=MAX_TEMPLATE_ARG_CHARS)],
                ],
                Field(max_length=MAX_TEMPLATE_ARGS),
            ]
        ),
        Field(
            description="Variables of the model's chat template, such as `enable_thinking`: texts, "
            "numbers, true and false. One that the template does not know changes nothing."
        ),
    ] = None

    def template_args(self) -> dict[str, TemplateArg]:
        """Return those that were given, by their names."""
        return self.model_dump(include=set(TemplateFields.model_fields), exclude_none=True)
