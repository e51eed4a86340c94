"""The two names by which programs ask for the assistant's last message to be continued.

vLLM and transformers have them; OpenAI has none.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field, StrictBool

from herder.web.errors import BadRequest
from herder.web.shapes import Must


class ContinuingFields(BaseModel):
    """The parameters that ask for it."""

    continue_final_message: Annotated[
        StrictBool | None,
        Must("true or false"),
        Field(description="Continue the last message, which must be the assistant's."),
    ] = None
    add_generation_prompt: Annotated[
        StrictBool | None,
        Must("true or false"),
        Field(description="`false` is another way to ask for `continue_final_message`."),
    ] = None

    def continues(self, last_role: str) -> bool:
        """Return whether the last message is to be continued.

        Args:
            last_role: whose message that is.

        Raises:
            BadRequest: it is not the assistant's, or the parameters contradict each other.
        """
        continues, opens = self.continue_final_message, self.add_generation_prompt
        if continues is not None and continues is opens:
            raise BadRequest(
                "continue_final_message and add_generation_prompt contradict each other; give "
                "only one.",
                "add_generation_prompt",
            )
        name = "continue_final_message" if continues else "add_generation_prompt"
        is_asked = continues is True or opens is False
        if is_asked and last_role != "assistant":
            raise BadRequest(
                f"{name} continues the last message, which must be the assistant's.", name
            )
        return is_asked
