"""`herd order aside …`: orders whose end was refused, until an operator has decided."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from herder.cli.base import Json, opened, whole
from herder.cli.show import complain, print_json, print_table, say

if TYPE_CHECKING:
    from herder.orders.set_aside import AsideView

app = typer.Typer(
    help="Orders that could not be ended: their fees stay held until you retry or give back."
)

OrderId = Annotated[str, typer.Argument(metavar="ID", help="As `herd order aside list` shows it.")]


@app.command("list", epilog="Example: herd order aside list --json")
def list_(
    limit: Annotated[
        str, typer.Option("--limit", metavar="N", help="Orders at most, 1 to 1000.")
    ] = "100",
    after: Annotated[
        str, typer.Option("--after", metavar="ID", help="Only those after this one.")
    ] = "",
    json: Json = False,
) -> None:
    """Show the orders that are set aside, and why."""
    most: Any = whole(limit)
    with opened() as herd:
        found = herd.aside.list(after=after, limit=most)
    more = found[-1].order if len(found) == most else None
    if json:
        print_json({"set_aside": [one.to_dict() for one in found], "next_after": more})
        return
    print_aside(found)
    if more is not None:
        complain(f"There may be more: --after {more}")


def print_aside(found: list[AsideView]) -> None:
    """Print orders that are set aside as a table."""
    print_table(("!Order", ">Held", "Reason"), ((one.order, one.held, one.reason) for one in found))


@app.command(epilog="Example: herd order aside retry 2f5c0a52-6a0e-4f0c-9d5e-1f0c7c2f3b11")
def retry(order: OrderId, json: Json = False) -> None:
    """End an order as it was to end, once the reason is gone; it is charged what it was to be."""
    with opened() as herd:
        receipt = herd.aside.retry(order)
    if json:
        print_json(receipt.to_dict())
    elif receipt.held:
        say(f"Order {order} is {receipt.state} again; {receipt.held} winston are held.")
    else:
        say(
            f"Order {order} is {receipt.state}: {receipt.charged} winston were charged and "
            f"{receipt.returned} returned."
        )


@app.command(
    "give-back", epilog="Example: herd order aside give-back 2f5c0a52-6a0e-4f0c-9d5e-1f0c7c2f3b11"
)
def give_back(order: OrderId, json: Json = False) -> None:
    """End an order as failed and give its buyer everything back, a charge included."""
    with opened() as herd:
        receipt = herd.aside.give_back(order)
    if json:
        print_json(receipt.to_dict())
    else:
        given = receipt.returned + receipt.refunded
        say(f"Order {order} failed; {given} winston came back to {receipt.account}.")
