"""`herd orders` and `herd order …`: what became of orders, and an operator's refunds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from herder.cli import aside
from herder.cli.base import (
    MONEY,
    Json,
    TransferId,
    amount_of,
    buying,
    opened,
    transfer_id_of,
    whole,
)
from herder.cli.show import (
    complain,
    one_line,
    print_json,
    print_receipt,
    print_table,
    say,
    write_text,
)

if TYPE_CHECKING:
    from herder.types import Receipt

app = typer.Typer(help="Work with one order: show, re-bid, cancel or refund it.")

many = typer.Typer(help="List orders, newest first.")

ByAccount = Annotated[
    str | None, typer.Option("--account", help="Show only this account's orders.")
]
ByState = Annotated[
    str | None,
    typer.Option(
        "--state",
        help="Show only orders in this state: queued, dispatched, running, completed, failed, "
        "cancelled, expired or set_aside.",
    ),
]
Most = Annotated[
    str, typer.Option("--limit", metavar="N", help="How many orders to show at most, 1 to 1000.")
]
Before = Annotated[
    str | None,
    typer.Option("--before", metavar="ID", help="Show only orders older than this one."),
]
OrderId = Annotated[str, typer.Argument(metavar="ID", help="The order.")]


def register(root: typer.Typer) -> None:
    """Add the commands to the `herd` command."""
    root.add_typer(many, name="orders")
    app.add_typer(aside.app, name="aside")
    root.add_typer(app, name="order")


@many.callback(
    invoke_without_command=True, epilog="Example: herd orders --account ada --state queued"
)
def orders(
    context: typer.Context,
    account: ByAccount = None,
    state: ByState = None,
    limit: Most = "20",
    before: Before = None,
    json: Json = False,
) -> None:
    """List orders, newest first."""
    if context.invoked_subcommand is None:
        list_(account, state, limit, before, json)


@many.command("list", epilog="Example: herd orders list --account ada --state queued")
def list_(
    account: ByAccount = None,
    state: ByState = None,
    limit: Most = "20",
    before: Before = None,
    json: Json = False,
) -> None:
    """List orders, newest first, as `herd orders` does."""
    most: Any = whole(limit)
    with buying() as herd:
        if account is not None:
            herd.balance(account)  # an unknown account is an error, not an empty list
        found = herd.orders(account=account, state=state, before=before, limit=most)
    more = found[-1].order if len(found) == most else None
    if json:
        print_json({"orders": [one.to_dict() for one in found], "next_before": more})
        return
    print_table(
        ("!Order", "Account", "!State", ">Mult.", ">Fee", ">Charged"),
        (_cells(one) for one in found),
    )
    if more is not None:
        complain(f"There may be more: --before {more}")


def _cells(one: Receipt) -> tuple[object, ...]:
    charged = None if one.held else one.charged - one.refunded
    return one.order, one.account, one.state, one.multiplier, one.fee, charged


@many.command(epilog="Example: herd orders purge --older-than-days 30")
def purge(
    older_than_days: Annotated[
        str | None,
        typer.Option(
            "--older-than-days", metavar="N", help="Purge orders that ended at least N days ago."
        ),
    ] = None,
    account: Annotated[
        str | None, typer.Option("--account", help="Purge this account's orders.")
    ] = None,
    order: Annotated[
        str | None, typer.Option("--order", metavar="ID", help="Purge this order.")
    ] = None,
    json: Json = False,
) -> None:
    """Delete the prompts and texts of ended orders for good; receipts and transfers stay."""
    with opened() as herd:
        if account is not None:
            herd.accounts.balance(account)
        days: Any = None if older_than_days is None else whole(older_than_days)
        deleted = herd.purge(older_than_days=days, account=account, order=order)
    if json:
        print_json({"deleted": deleted})
    else:
        say(f"Deleted the prompts and texts of {deleted} orders.")


@app.command(epilog="Example: herd order cancel 2f5c0a52-6a0e-4f0c-9d5e-1f0c7c2f3b11")
def cancel(order: OrderId, json: Json = False) -> None:
    """Cancel an order; a waiting one costs nothing, a running one what was read of it."""
    with buying() as herd:
        receipt = herd.cancel(order)
    if json:
        print_json(receipt.to_dict())
    elif receipt.state == "set_aside":
        say(f"Order {order} cannot end yet: the herd's operator decides. Its fee stays held.")
    elif receipt.held:
        say(f"Order {order} is being stopped; what was read of it is charged.")
    elif receipt.state == "cancelled":
        say(f"Order {order} is cancelled; {receipt.returned} winston were returned.")
    else:
        say(f"Order {order} had already ended: it is {receipt.state}.")


@app.command(
    epilog="Example: herd order rebid 2f5c0a52-6a0e-4f0c-9d5e-1f0c7c2f3b11 200",
    context_settings=MONEY,
)
def rebid(
    order: OrderId,
    fee: Annotated[
        str, typer.Argument(metavar="FEE", help="The new fee for the whole order, in winston.")
    ],
    json: Json = False,
) -> None:
    """Raise the fee of a queued order; it moves to its new place at once."""
    offered: Any = whole(fee)
    with buying() as herd:
        receipt = herd.rebid(order, offered)
    if json:
        print_json(receipt.to_dict())
    else:
        say(
            f"Order {order} now offers {receipt.fee} winston, {receipt.multiplier} times what it "
            "needs."
        )


@app.command(epilog="Example: herd order show 2f5c0a52-6a0e-4f0c-9d5e-1f0c7c2f3b11 --text")
def show(
    order: OrderId,
    text: Annotated[
        bool,
        typer.Option("--text", help="Show the answer instead of the receipt; with --json, both."),
    ] = False,
    json: Json = False,
) -> None:
    """Show an order's current receipt, or its answer.

    The multiplier is the fee divided by what the order needs: it ranks the order, and what is
    delivered is charged at it. The bid factor is the --multiplier that the order was given.
    """
    with buying() as herd:
        result = herd.answer(order)
    if json:
        document = result.to_dict()
        if not text:
            del document["text"], document["reasoning"]
        print_json(document)
    elif not text:
        noted = (result.metadata or {}).items()
        metadata = [(one_line(f"metadata {name}"), value) for name, value in noted]
        print_receipt(result.receipt, [("request id", result.request_id), *metadata])
    else:
        write_text(result.text)
        if result.text and not result.text.endswith("\n"):
            write_text("\n")
        if result.reasoning and not result.text:
            complain("The model thought and gave no answer; --text --json shows what it thought.")
        if result.text_deleted:
            complain("The text of this order was deleted.")
        if result.receipt.held:
            complain(f"The order is {result.receipt.state}; its text is available once it ends.")


@app.command(
    epilog="Example: herd order refund 2f5c0a52-6a0e-4f0c-9d5e-1f0c7c2f3b11 "
    '--amount 5 --reason "cut off"'
)
def refund(
    order: OrderId,
    reason: Annotated[
        str, typer.Option("--reason", help="The reason, shown in the account's statement.")
    ],
    amount: Annotated[
        str | None,
        typer.Option(
            "--amount",
            metavar="N",
            help="Winston to refund; by default all that can still be refunded.",
        ),
    ] = None,
    id_: TransferId = None,
    json: Json = False,
) -> None:
    """Refund part or all of what an ended order was charged."""
    from herder.domain.parsing import parse_note

    winston = None if amount is None else amount_of(amount)
    why, key = parse_note("--reason", reason), transfer_id_of(id_)
    with opened() as herd:
        given = herd.intake.refund(order, winston, why, refund_id=key)
        receipt = herd.receipt(order)
    if json:
        print_json({"id": key, "amount": given, "receipt": receipt.to_dict()})
    else:
        say(f"Refunded {given} winston to {receipt.account} (id {key}).")
