"""`herd model …`: which models are sold here, and at what rates."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from herder.cli.base import Json, buying, opened, optional_whole
from herder.cli.show import print_json, print_table, say

app = typer.Typer(help="Show models and set their rates.")


@app.command("list", epilog="Example: herd model list")
def list_(json: Json = False) -> None:
    """List the models that were configured, with their rates."""
    with buying() as herd:
        info = herd.info()
    if json:
        models = [asdict(one) for one in info.models]
        print_json({"default_model": info.default_model, "models": models})
        return
    print_table(
        ("Model", ">Prompt fee", ">Per token", ">Context", ">Workers"),
        (
            (
                f"{one.name} (default)" if one.name == info.default_model else one.name,
                one.rates.prompt_fee,
                one.rates.fee_per_token,
                one.context,
                one.workers,
            )
            for one in info.models
        ),
    )


@app.command("set", epilog="Example: herd model set smollm2-135m-instruct --fee-per-token 2")
def set_(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="The model's name; a new model is added.")
    ],
    prompt_fee: Annotated[
        str | None,
        typer.Option("--prompt-fee", metavar="N", help="Winston per prompt, at least 1."),
    ] = None,
    fee_per_token: Annotated[
        str | None,
        typer.Option("--fee-per-token", metavar="N", help="Winston per word and per token."),
    ] = None,
    default: Annotated[
        bool,
        typer.Option(
            "--default",
            help="Make it the herd's model: orders that name none get it, and workers that "
            "announce another are refused.",
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Set a model's rates for new orders (existing orders keep theirs), or the herd's model."""
    from herder.market.policy import set_rates

    with opened() as herd:
        model, new = set_rates(
            herd.database,
            name,
            prompt_fee=optional_whole(prompt_fee),
            fee_per_token=optional_whole(fee_per_token),
            default=default,
        )
    if json:
        print_json({"model": model.name, "rates": asdict(model.rates), "new": new})
    else:
        rates = model.rates
        say(
            f"{'New model ' if new else ''}{model.name}: {rates.prompt_fee} winston per prompt, "
            f"{rates.fee_per_token} per word and per token."
            + (" It is the herd's model from now on." if default else "")
        )
