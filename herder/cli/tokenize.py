"""`herd tokenize`: how many tokens a prompt is for a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, cast

import typer

from herder.cli.base import Json, buying
from herder.cli.order_options import (
    ContinueFinalMessage,
    MessagesFile,
    Model,
    Prompt,
    ReasoningEffort,
    Special,
    TemplateKwargs,
    messages_of,
    prompt_of,
    template_kwargs_of,
)
from herder.cli.show import print_facts, print_json

if TYPE_CHECKING:
    from workers.wire import Effort


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
    reasoning_effort: ReasoningEffort = None,
    chat_template_kwargs: TemplateKwargs = None,
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
            reasoning_effort=cast("Effort | None", reasoning_effort),
            chat_template_kwargs=template_kwargs_of(chat_template_kwargs),
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
