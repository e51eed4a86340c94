"""`herd tokenize`: how many tokens a prompt is for a model."""

from __future__ import annotations

from typing import Annotated

import typer

from herder.cli.base import Json, buying
from herder.cli.order_options import (
    ContinueFinalMessage,
    MessagesFile,
    Model,
    Prompt,
    Special,
    messages_of,
    prompt_of,
)
from herder.cli.show import print_facts, print_json


def register(app: typer.Typer) -> None:
    """Add the command to the `herd` command."""
    app.command(
        epilog='Examples:\n\nherd tokenize "What is the meaning of life?"\n\n'
        "herd tokenize - --raw < prompt.txt"
    )(tokenize)


def tokenize(
    prompt: Prompt = None,
    model: Model = None,
    messages: MessagesFile = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="Count the prompt without the model's chat template.")
    ] = False,
    special: Special = False,
    continue_final_message: ContinueFinalMessage = False,
    json: Json = False,
) -> None:
    """Count the tokens of a prompt as the model is given it; a worker counts them, at no cost."""
    with buying() as herd:
        found = herd.count_tokens(
            prompt_of(prompt),
            model=model,
            messages=messages_of(messages),
            raw=raw,
            special=special,
            continue_final_message=continue_final_message,
        )
    if json:
        print_json(found.to_dict())
    else:
        left = max(0, found.context - found.prompt_tokens)
        print_facts(
            [
                ("model", found.model),
                ("prompt", f"{found.prompt_tokens} tokens"),
                ("context", f"{found.context} tokens, of which {left} are left for the answer"),
            ]
        )
