"""A prompt that does not fit, in the words and with the code by which OpenAI's clients know it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from herder.errors import InvalidRequest

CODE = "context_length_exceeded"


class ContextLengthExceeded(InvalidRequest):
    """Raised on OpenAI's routes where prompt and tokens exceed the context; nothing was held."""

    code = CODE

    def __init__(self, data: Mapping[str, Any]) -> None:
        super().__init__(context_sentence(data), **data)
        self.param = "messages"


def context_sentence(data: object) -> str:
    """Return the sentence that clients look for, with the code in it, by which others do.

    Args:
        data: of the error: `context`, `tokens`, and `prompt_tokens` where they were counted.
    """
    found = data if isinstance(data, Mapping) else {}
    context, tokens, prompt = (found.get(one) for one in ("context", "tokens", "prompt_tokens"))
    if not isinstance(context, int):
        return f"This model's maximum context length is exceeded ({CODE})."
    said = [f"This model's maximum context length is {context} tokens."]
    if isinstance(prompt, int) and isinstance(tokens, int):
        said.append(
            f"However, you requested {prompt + tokens} tokens ({prompt} in the prompt, {tokens} "
            "in the completion)."
        )
    elif isinstance(tokens, int):
        said.append(f"However, you requested {tokens} tokens in the completion alone.")
    said.append(f"Please reduce the length of the prompt or completion ({CODE}).")
    return " ".join(said)
