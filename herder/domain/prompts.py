"""The prompt of a client's call, parsed at the border: a text, or a conversation's messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import ValidationError

from herder.domain.order import Prompt
from herder.domain.template_args import parse_template_args
from herder.errors import InvalidPrompt, shown
from workers.wire import MAX_MESSAGES, ChatMessage


def parse_prompt(
    prompt: object,
    messages: object,
    most: int,
    *,
    raw: object = False,
    special: object = False,
    continue_final_message: object = False,
    reasoning_effort: object = None,
    chat_template_kwargs: object = None,
) -> Prompt:
    """Return the prompt, or the conversation, that the model is asked.

    Args:
        prompt: a text, or None where there are messages.
        messages: a conversation, or None.
        most: bytes that it may have.
        raw: whether the text reaches the model without its chat template.
        special: whether control tokens that are written in a raw text are honoured.
        continue_final_message: whether the answer continues the assistant's last message.
        reasoning_effort: how much a model is to think before it answers; `none` for not at all.
        chat_template_kwargs: variables that are set for the model's chat template.

    Raises:
        InvalidPrompt: neither is given, or both, or it is empty or too long; or what it is to be
            is not true or false, or does not go with it.
    """
    is_raw = _flag("raw", raw)
    is_special = _flag("special", special)
    continues = _flag("continue_final_message", continue_final_message)
    args = parse_template_args(chat_template_kwargs, reasoning_effort)
    if (prompt is None) == (messages is None):
        raise InvalidPrompt("Give either a prompt or messages, not both.")
    if messages is not None:
        if is_raw:
            raise InvalidPrompt(
                "raw is only for a prompt; messages need the model's chat template."
            )
        parsed = Prompt(None, _parse_messages(messages), continues=continues, template_args=args)
    elif isinstance(prompt, str):
        parsed = Prompt(prompt, raw=is_raw, special=is_special, template_args=args)
    else:
        raise InvalidPrompt(f"The prompt must be text, not {type(prompt).__name__}.")
    if is_special and not is_raw:
        raise InvalidPrompt(
            "special is only for a raw prompt; elsewhere the model's chat template alone writes "
            "control tokens."
        )
    if args and is_raw:
        raise InvalidPrompt(
            "A raw prompt is not given to the chat template; leave reasoning_effort and "
            "chat_template_kwargs out."
        )
    if continues and (parsed.messages is None or parsed.messages[-1].role != "assistant"):
        raise InvalidPrompt(
            "continue_final_message is only for messages of which the assistant's is the last."
        )
    try:
        size = len(parsed.counted.encode())
    except UnicodeEncodeError:
        raise InvalidPrompt(
            "The prompt contains a lone surrogate, which is not a character; send valid Unicode."
        ) from None
    if size == 0:
        raise InvalidPrompt("The prompt is empty; it needs at least one character, even a space.")
    if size > most:
        raise InvalidPrompt(
            f"The prompt has {size} bytes; at most {most} are allowed.", bytes=size, most=most
        )
    return parsed


def asked_of(prompt: object, asked: Mapping[str, object], most: int) -> Prompt:
    """Return the prompt of a call that asks for no more than what it is to the model.

    Args:
        prompt: a text, or None where there are messages.
        asked: the call's other arguments, by their names.
        most: bytes that it may have.

    Raises:
        InvalidPrompt: as `parse_prompt`.
    """
    return parse_prompt(
        prompt,
        asked.get("messages"),
        most,
        raw=asked.get("raw", False),
        special=asked.get("special", False),
        continue_final_message=asked.get("continue_final_message", False),
        reasoning_effort=asked.get("reasoning_effort"),
        chat_template_kwargs=asked.get("chat_template_kwargs"),
    )


def _flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise InvalidPrompt(f"{name} must be true or false, not {shown(value)}.")
    return value


def _parse_messages(messages: object) -> tuple[ChatMessage, ...]:
    if (
        isinstance(messages, (str, bytes, Mapping))
        or not isinstance(messages, Sequence)
        or not messages
    ):
        raise InvalidPrompt(f"messages must be a list of 1 to {MAX_MESSAGES} messages.")
    if len(messages) > MAX_MESSAGES:
        raise InvalidPrompt(
            f"messages must be a list of 1 to {MAX_MESSAGES} messages, not {len(messages)}.",
            turns=len(messages),
            most=MAX_MESSAGES,
        )
    turns = []
    for place, message in enumerate(messages, 1):
        try:
            turns.append(ChatMessage.model_validate(message))
        except ValidationError:
            raise InvalidPrompt(
                f"Message {place} must have a role (system, user or assistant) and a text "
                "content, and nothing else."
            ) from None
    return tuple(turns)
