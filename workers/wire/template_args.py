"""Variables that a caller sets for a model's chat template, and their bounds."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StrictBool, StrictFloat, StrictInt, StrictStr

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
"""The levels of thinking before an answer, in the words of OpenAI's `reasoning_effort`."""

MAX_TEMPLATE_ARGS = 16
MAX_TEMPLATE_ARG = 2**53
"""The largest number, either way: no reader of JSON rounds it."""
MAX_TEMPLATE_ARG_CHARS = 256
TEMPLATE_ARG_NAME = r"^[A-Za-z_][A-Za-z0-9_]{0,63}$"

TemplateArg = (
    StrictBool
    | Annotated[StrictInt, Field(ge=-MAX_TEMPLATE_ARG, le=MAX_TEMPLATE_ARG)]
    | StrictFloat
    | Annotated[StrictStr, Field(max_length=MAX_TEMPLATE_ARG_CHARS)]
)
TemplateArgs = Annotated[
    dict[Annotated[str, Field(pattern=TEMPLATE_ARG_NAME)], TemplateArg],
    Field(max_length=MAX_TEMPLATE_ARGS),
]
"""The variables, such as `enable_thinking`, by their names."""
