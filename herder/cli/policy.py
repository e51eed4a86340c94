"""`herd policy`: the values that price, rank and limit for every model and account."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from herder.cli.base import Json, opened, optional_whole
from herder.cli.show import print_facts, print_json, say

app = typer.Typer(help="Show and set what prices, ranks and limits orders.")


@app.command(epilog="Example: herd policy show")
def show(json: Json = False) -> None:
    """Show the values; `herd init` took them from the environment."""
    from herder.market.policy import read_policy

    with opened() as herd:
        values = read_policy(herd.database)
    if json:
        print_json(values)
    else:
        print_facts(list(values.items()))


@app.command("set", epilog="Example: herd policy set --aging-s 3600 --max-open-orders 1000")
def set_(
    aging_s: Annotated[
        str | None,
        typer.Option(
            "--aging-s",
            metavar="N",
            help="Seconds of waiting that count as much as a multiplier 2.718 times higher; 0 for "
            "none. Open orders are ranked again.",
        ),
    ] = None,
    max_open_orders: Annotated[
        str | None,
        typer.Option("--max-open-orders", metavar="N", help="Per account; 0 for no limit."),
    ] = None,
    tokens_per_minute: Annotated[
        str | None,
        typer.Option("--tokens-per-minute", metavar="N", help="Per account; 0 for no limit."),
    ] = None,
    json: Json = False,
) -> None:
    """Set how much waiting counts, and the limits of accounts without limits of their own."""
    from herder.market.policy import read_policy, set_policy

    values: dict[str, Any] = {
        "aging_s": optional_whole(aging_s),
        "max_open_orders": optional_whole(max_open_orders),
        "tokens_per_minute": optional_whole(tokens_per_minute),
    }
    with opened() as herd:
        ranked = set_policy(herd.database, **values)
        now = read_policy(herd.database)
    if json:
        print_json({"policy": now, "ranked_anew": ranked})
        return
    said = ", ".join(f"{name} {now[name]}" for name, value in values.items() if value is not None)
    say(f"Set {said}." + (f" {ranked} open orders were ranked again." if ranked else ""))
