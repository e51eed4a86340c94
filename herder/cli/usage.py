"""`herd usage`: what accounts ordered, as a table, CSV or JSON."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from herder.cli.base import Json, opened
from herder.cli.show import print_json, print_table
from herder.errors import InvalidRequest

if TYPE_CHECKING:
    from herder.accounts.usage import Report
    from herder.store.usage import Used


def register(root: typer.Typer) -> None:
    """Add the command to the `herd` command."""
    root.command(epilog="Example: herd usage --by account --from 2026-11-01 --to 2026-11-30")(usage)


def usage(
    by: Annotated[
        str,
        typer.Option("--by", metavar="WHAT", help="Show a row for each account or for each model."),
    ] = "account",
    first: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="DATE",
            help="The first day; by default the first of the last day's month.",
        ),
    ] = None,
    last: Annotated[
        str | None,
        typer.Option("--to", metavar="DATE", help="The last day, inclusive; today by default."),
    ] = None,
    account: Annotated[
        str | None, typer.Option("--account", help="Show only this account's usage.")
    ] = None,
    csv: Annotated[
        bool, typer.Option("--csv", help="Print CSV that is safe to open in spreadsheets.")
    ] = False,
    json: Json = False,
) -> None:
    """Show what was ordered between two days, by the day (UTC) on which each order ended.

    Refunds count on the day of their order, whenever they were made. At most 366 days at a time.
    """
    from herder.accounts.usage import NUMBERS, numbers_of, read_usage, row_of, to_sheet, total
    from herder.clock import clock_us

    if csv and json:
        raise InvalidRequest("Give either --csv or --json, not both.")
    rows: list[Used] = []
    with opened() as herd:
        if account is not None:
            herd.accounts.balance(account)  # an unknown account is an error, not an empty list
        now_us = clock_us()
        after: str | None = ""
        while after is not None:
            page: Report = read_usage(
                herd.database,
                now_us,
                by=by,
                first=first,
                last=last,
                account=account,
                after=after,
                names=("--from", "--to"),
            )
            rows += page.rows
            after = page.next
    if csv:
        sys.stdout.write(to_sheet(by, rows, line_end="\n"))
        return
    if json:
        print_json(page.to_dict() | {"rows": [row_of(row) for row in rows]})
        return
    columns = ("!" + by.capitalize(), *(f">{_title(name)}" for name in NUMBERS))
    shown = rows if len(rows) < 2 else [*rows, total(rows)]
    print_table(columns, ([row.name, *numbers_of(row)] for row in shown))


def _title(name: str) -> str:
    short = {"completed": "Done", "cancelled": "Canc.", "prompt_tokens": "Read"}
    return short.get(name, name.capitalize())
