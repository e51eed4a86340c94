"""A model's reasoning in calls: whether it is shown, and the reasoning of earlier turns.

OpenAI has no names for it in chat completions; `reasoning_content` is DeepSeek's, `reasoning` and
`include_reasoning` are vLLM's and OpenRouter's.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, StrictBool

from herder.web.errors import BadRequest
from herder.web.shapes import Must

Thought = Annotated[
    Any,
    Field(
        description="What the model thought before an earlier answer, as clients send it back. It "
        "is not shown to the model again."
    ),
]


class ReasoningFields(BaseModel):
    """The parameters that show reasoning, or hide it."""

    reasoning: Annotated[
        Literal["include", "hide"] | None,
        Must("include or hide"),
        Field(
            description="Whether what the model thinks before its answer comes beside it, as "
            "`reasoning_content`; included by default, and charged either way."
        ),
    ] = None
    include_reasoning: Annotated[
        StrictBool | None,
        Must("true or false"),
        Field(description="`false` is another way to say `reasoning: hide`."),
    ] = None

    def shows_reasoning(self) -> bool:
        """Return whether reasoning is part of the answer.

        Raises:
            BadRequest: the parameters contradict each other.
        """
        asked: set[Any] = {self.include_reasoning}
        if self.reasoning is not None:
            asked.add(self.reasoning == "include")
        asked.discard(None)
        if len(asked) > 1:
            raise BadRequest(
                "reasoning and include_reasoning contradict each other; give only one.",
                "include_reasoning",
            )
        return asked != {False}
