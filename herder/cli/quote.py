"""`herd quote`: what an order would need, pay and wait for, and what other bids would buy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from herder.cli.base import Json, buying, fee_of, optional_whole, whole
from herder.cli.order_options import (
    Account,
    Fee,
    MaxFee,
    MessagesFile,
    Model,
    Multiplier,
    Prompt,
    Tokens,
    messages_of,
    prompt_of,
)
from herder.cli.show import print_facts, print_json, print_table, say
from herder.types import PLACE_COUNTED, PLACE_UNKNOWN

if TYPE_CHECKING:
    from herder.types import Bid, Quote


def register(app: typer.Typer) -> None:
    """Add the command to the `herd` command."""
    app.command(
        epilog='Examples:\n\nherd quote "What is the meaning of life?" -n 20\n\n'
        "herd quote - -n 200 --bid 300 --bid 1.5x < prompt.txt"
    )(quote)


def quote(
    prompt: Prompt = None,
    *,
    tokens: Tokens,
    fee: Fee = None,
    multiplier: Multiplier = None,
    max_fee: MaxFee = None,
    account: Account = None,
    model: Model = None,
    messages: MessagesFile = None,
    bid: Annotated[
        list[str] | None,
        typer.Option(
            "--bid",
            metavar="BID",
            help="A bid to compare: winston, or a multiplier such as 1.5x; may be repeated.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Show what an order would need, cost and wait for now, without ordering it.

    Also shows what other bids would buy. The "quote" that --json shows binds the herd to its rates
    and its fee when given to `herd submit --quote` within a minute.
    """
    with buying() as herd:
        found = herd.quote(
            prompt_of(prompt),
            whole(tokens),
            fee=fee_of(fee),
            multiplier=multiplier,
            max_fee=optional_whole(max_fee),
            account=account,
            model=model,
            messages=messages_of(messages),
            bids=[_bid(one) for one in bid] if bid else None,
        )
    if json:
        print_json(found.to_dict())
    else:
        _print_quote(found)


def _bid(text: str) -> dict[str, int | str]:
    """Return a bid as typed: winston, or a multiplier that ends with an x."""
    return {"multiplier": text[:-1]} if text.endswith("x") else {"fee": whole(text)}


def _print_quote(found: Quote) -> None:
    if found.waiting_for_workers:
        wait: object = "for workers: none is running"
    else:
        wait = _wait(found.wait_s)
    print_facts(
        [
            ("account", found.account),
            ("model", found.model),
            ("words", found.words),
            ("tokens", found.tokens),
            (
                "rates",
                f"{found.rates.prompt_fee} per prompt, {found.rates.fee_per_token} per token",
            ),
            ("needed", found.needed),
            ("fee", found.fee),
            ("multiplier", found.multiplier),
            ("place", _place(found)),
            ("wait", wait),
            ("binding", f"until {found.expires}, with the quote that --json shows"),
        ]
    )
    if found.curve:
        say("")
        rows = ((bid.fee, bid.multiplier, _place(bid), _wait(bid.wait_s)) for bid in found.curve)
        print_table((">Fee", ">Multiplier", ">Place", ">Wait"), rows)


def _place(found: Quote | Bid) -> str:
    if found.place_exact:
        return str(found.place)
    return f"beyond {PLACE_COUNTED}" if found.place == PLACE_UNKNOWN else f"about {found.place}"


def _wait(wait_s: int | None) -> str | None:
    return None if wait_s is None else f"{wait_s} s"
