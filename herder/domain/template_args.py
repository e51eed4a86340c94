"""Variables that a call sets for the model's chat template: `chat_template_kwargs`.

By them templates turn thinking on and off, and more; `reasoning_effort` is one of them under a name
of its own. Which of them a template reads is the template's to say: one that it does not know
changes nothing, as on other servers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import get_args

from herder.errors import InvalidTemplateArguments, shown
from workers.wire import (
    MAX_TEMPLATE_ARG,
    MAX_TEMPLATE_ARG_CHARS,
    MAX_TEMPLATE_ARGS,
    TEMPLATE_ARG_NAME,
    Effort,
    TemplateArg,
)

EFFORTS: tuple[str, ...] = get_args(Effort)

_NAME = re.compile(TEMPLATE_ARG_NAME)

_OURS = {
    "add_generation_prompt": "give add_generation_prompt or continue_final_message beside it",
    "continue_final_message": "give it beside them",
    "messages": "give messages beside them",
    "tools": "tools are not supported here",
    "documents": "put them into the messages",
    **dict.fromkeys(
        (
            "functions",
            "function_call",
            "tool_choice",
            "bos_token",
            "eos_token",
            "raise_exception",
            "strftime_now",
            # and what Jinja itself has by these names
            "self",
            "range",
            "dict",
            "lipsum",
            "cycler",
            "joiner",
            "namespace",
        ),
        "it is the herd's to set",
    ),
}
"""Variables that are no caller's, and the advice to one who sets them."""


def parse_template_args(kwargs: object, effort: object) -> Mapping[str, TemplateArg]:
    """Return the variables that a call sets for the chat template.

    Args:
        kwargs: `chat_template_kwargs`: an object of texts, numbers, true and false; or None.
        effort: `reasoning_effort`: one of `EFFORTS`; or None.

    Raises:
        InvalidTemplateArguments: something of it cannot be set.
    """
    if effort is not None and effort not in EFFORTS:
        raise InvalidTemplateArguments(
            f"reasoning_effort must be one of {', '.join(EFFORTS)}, not {shown(effort)}.",
            "reasoning_effort",
        )
    if kwargs is None and effort is None:
        return {}
    found = {} if kwargs is None else _parse(kwargs)
    if effort is None:
        return found
    if found.get("reasoning_effort", effort) != effort:
        raise InvalidTemplateArguments(
            "reasoning_effort and chat_template_kwargs contradict each other; give only one.",
            "reasoning_effort",
        )
    return {**found, "reasoning_effort": str(effort)}


def _parse(kwargs: object) -> dict[str, TemplateArg]:
    if not isinstance(kwargs, Mapping) or len(kwargs) > MAX_TEMPLATE_ARGS:
        raise _refused(f"must be an object of at most {MAX_TEMPLATE_ARGS} variables")
    for name, value in kwargs.items():
        if not isinstance(name, str) or _NAME.fullmatch(name) is None:
            raise _refused(f"may not set {shown(name)}, which is not a variable's name")
        if name in _OURS:
            raise _refused(f"may not set {name}; {_OURS[name]}")
        if not _is_plain(value):
            raise _refused(
                f"may hold only true, false, numbers and texts of at most {MAX_TEMPLATE_ARG_CHARS} "
                f"characters, and {name} is not one"
            )
    return dict(kwargs)


def _is_plain(value: object) -> bool:
    match value:
        case bool():
            return True
        case int():
            return -MAX_TEMPLATE_ARG <= value <= MAX_TEMPLATE_ARG
        case float():
            return math.isfinite(value)
        case str():
            return len(value) <= MAX_TEMPLATE_ARG_CHARS and not any(
                "\ud800" <= char <= "\udfff" for char in value
            )
    return False


def _refused(why: str) -> InvalidTemplateArguments:
    return InvalidTemplateArguments(f"chat_template_kwargs {why}.", "chat_template_kwargs")
