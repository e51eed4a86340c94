"""What `herd quote` and `herd submit` are both told: the options, and how their files are read."""

from __future__ import annotations

import json as json_lib
import sys
from pathlib import Path
from typing import Annotated

import typer

from herder.cli.base import read_text
from herder.errors import InvalidPrompt

MOST_FILE_BYTES = 4 * 2**20
"""The longest prompt, messages or grammar that is read; the herd's own bounds are lower."""

Prompt = Annotated[
    str | None,
    typer.Argument(
        metavar="PROMPT", help="The prompt; - reads it from standard input.", show_default=False
    ),
]
Tokens = Annotated[
    str, typer.Option("--tokens", "-n", metavar="TOKENS", help="The most tokens to generate.")
]
Fee = Annotated[
    str | None,
    typer.Option("--fee", metavar="N", help="Winston offered; automatic unless given."),
]
Multiplier = Annotated[
    str | None, typer.Option("--multiplier", metavar="X", help="A factor on the fee, such as 1.5.")
]
MaxFee = Annotated[
    str | None,
    typer.Option("--max-fee", metavar="N", help="Refuse if the fee would be more winston."),
]
Account = Annotated[
    str | None, typer.Option("--account", help="Who pays; HERD_ACCOUNT unless given.")
]
Model = Annotated[str | None, typer.Option("--model", help="The herd's default unless given.")]
MessagesFile = Annotated[
    Path | None,
    typer.Option(
        "--messages",
        metavar="FILE",
        help='A conversation in place of a prompt: JSON, [{"role": "user", "content": "Hi"}].',
    ),
]


def prompt_of(prompt: str | None) -> str | None:
    """The prompt; of `-`, what stands on standard input.

    Raises:
        InvalidPrompt: that is too long, or no text.
    """
    if prompt != "-":
        return prompt
    content = sys.stdin.buffer.read(MOST_FILE_BYTES + 1)
    if len(content) > MOST_FILE_BYTES:
        raise InvalidPrompt(
            f"The prompt has more than {MOST_FILE_BYTES} bytes; no herd takes that many.",
            most=MOST_FILE_BYTES,
        )
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise InvalidPrompt("The prompt on standard input is no UTF-8 text.") from None


def messages_of(path: Path | None) -> object:
    """What a file of messages holds, if one is named.

    Raises:
        InvalidPrompt: it is no JSON.
    """
    if path is None:
        return None
    try:
        messages = json_lib.loads(read_text(path, "file of messages", MOST_FILE_BYTES))
    except (ValueError, RecursionError):
        raise InvalidPrompt(f"The file of messages {str(path)!r} is no JSON.") from None
    if messages is None:
        raise InvalidPrompt(f"The file of messages {str(path)!r} holds null, not a list.")
    return messages


def file_of(path: Path | None, what: str) -> str | None:
    """The text of a file, if one is named; `what` it is stands in the sentence that refuses it."""
    return None if path is None else read_text(path, what, MOST_FILE_BYTES)
