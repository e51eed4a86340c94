"""The options that `herd quote` and `herd submit` share, and how their files are read."""

from __future__ import annotations

import json as json_lib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from herder.cli.base import read_text
from herder.errors import InvalidPrompt, InvalidTemplateArguments

if TYPE_CHECKING:
    from workers.wire import TemplateArg

MAX_FILE_BYTES = 4 * 2**20
"""The longest prompt, messages or grammar that is read; the herd's own bounds are lower."""

Prompt = Annotated[
    str | None,
    typer.Argument(
        metavar="PROMPT", help="The prompt; - reads it from standard input.", show_default=False
    ),
]
Tokens = Annotated[
    str,
    typer.Option(
        "--tokens", "-n", metavar="TOKENS", help="The maximum number of tokens to generate."
    ),
]
Fee = Annotated[
    str | None,
    typer.Option(
        "--fee",
        metavar="N",
        help="The fee to offer, in winston; base for exactly what is needed, whatever others paid; "
        "automatic by default.",
    ),
]
Multiplier = Annotated[
    str | None,
    typer.Option(
        "--multiplier",
        metavar="X",
        help="A factor on the fee, such as 1.5; a receipt shows it as bid factor.",
    ),
]
MaxFee = Annotated[
    str | None,
    typer.Option(
        "--max-fee",
        metavar="N",
        help="Refuse the order if its fee would be higher than this, in winston.",
    ),
]
Account = Annotated[
    str | None, typer.Option("--account", help="The account that pays; HERD_ACCOUNT by default.")
]
Model = Annotated[
    str | None, typer.Option("--model", help="The model; the herd's default model by default.")
]
MessagesFile = Annotated[
    Path | None,
    typer.Option(
        "--messages",
        metavar="FILE",
        help='A conversation instead of a prompt, as JSON: [{"role": "user", "content": "Hi"}].',
    ),
]

Special = Annotated[
    bool,
    typer.Option("--special", help="With --raw: control tokens in the prompt are those tokens."),
]
ContinueFinalMessage = Annotated[
    bool,
    typer.Option(
        "--continue-final-message",
        help="Continue the last of the messages, which must be the assistant's.",
    ),
]
ReasoningEffort = Annotated[
    str | None,
    typer.Option(
        "--reasoning-effort",
        metavar="LEVEL",
        help="How much a model that can think is to think before it answers: none, low, medium, "
        "high.",
    ),
]
TemplateKwargs = Annotated[
    str | None,
    typer.Option(
        "--chat-template-kwargs",
        metavar="JSON",
        help="Variables for the model's chat template, as JSON: '{\"enable_thinking\": false}'.",
    ),
]


def template_kwargs_of(text: str | None) -> Mapping[str, TemplateArg] | None:
    """Return the variables for the chat template, which order intake judges.

    Raises:
        InvalidTemplateArguments: they are no JSON.
    """
    if text is None:
        return None
    try:
        return cast("Mapping[str, TemplateArg]", json_lib.loads(text))
    except (ValueError, RecursionError):
        raise InvalidTemplateArguments(
            'chat_template_kwargs must be a JSON object, such as {"enable_thinking": false}.',
            "chat_template_kwargs",
        ) from None


def prompt_of(prompt: str | None) -> str | None:
    """Return the prompt; of `-`, what stands on standard input.

    Raises:
        InvalidPrompt: that is too long, or no text.
    """
    if prompt != "-":
        return prompt
    content = sys.stdin.buffer.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise InvalidPrompt(
            f"The prompt has more than {MAX_FILE_BYTES} bytes, more than any herd accepts.",
            most=MAX_FILE_BYTES,
        )
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise InvalidPrompt("The prompt on standard input is not UTF-8 text.") from None


def messages_of(path: Path | None) -> Any:
    """Return the content of the messages file, if one is named.

    Raises:
        InvalidPrompt: the file is not valid JSON.
    """
    if path is None:
        return None
    try:
        messages = json_lib.loads(read_text(path, "messages file", MAX_FILE_BYTES))
    except (ValueError, RecursionError):
        raise InvalidPrompt(f"The messages file {str(path)!r} is not valid JSON.") from None
    if messages is None:
        raise InvalidPrompt(f"The messages file {str(path)!r} holds null, not a list.")
    return messages


def file_of(path: Path | None, what: str) -> str | None:
    """Return the text of a file, if one is named.

    `what` it is stands in the sentence that refuses it.
    """
    return None if path is None else read_text(path, what, MAX_FILE_BYTES)
