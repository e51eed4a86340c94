"""`herd account grant`, `grants`, `grant-end`: allowances that come anew in each period."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from herder.cli.base import MONEY, Json, Note, amount_of, opened, transfer_id_of
from herder.cli.show import UNREADABLE, print_json, print_table, say

if TYPE_CHECKING:
    from datetime import datetime

    from herder.store.grants import Grant


def register(accounts: typer.Typer) -> None:
    """Add the commands to `herd account`."""
    accounts.command(
        context_settings=MONEY, epilog="Example: herd account grant ada 5000 --every month"
    )(grant)
    accounts.command(epilog="Example: herd account grants ada")(grants)
    accounts.command(
        "grant-end",
        epilog="Example: herd account grant-end 2f5c0a52-6a0e-4f0c-9d5e-1f0c7c2f3b11",
    )(grant_end)


def grant(
    account: Annotated[
        str, typer.Argument(metavar="ACCOUNT", help="The account that receives the grant.")
    ],
    amount: Annotated[str, typer.Argument(metavar="AMOUNT", help="Whole winston per period.")],
    every: Annotated[
        str,
        typer.Option(
            "--every",
            metavar="PERIOD",
            help="The period: day, week or month, by the calendar in UTC.",
        ),
    ],
    starts: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="DATE",
            help="Start with the first period that begins on or after this day; by default with "
            "the current period.",
        ),
    ] = None,
    id_: Annotated[
        str | None,
        typer.Option(
            "--id",
            metavar="UUID",
            help="The idempotency key: repeated with the same key, the call makes only one grant. "
            "Generated and shown by default.",
        ),
    ] = None,
    note: Note = None,
    json: Json = False,
) -> None:
    """Grant an account an amount in each period, once per period, beginning at once.

    Herders post what is due, including what came due while none was running. A grant adds to the
    balance: what was not spent before stays.
    """
    from herder.domain.parsing import parse_note
    from herder.domain.periods import parse_day

    winston, words, key = amount_of(amount), parse_note("--note", note), transfer_id_of(id_)
    first = None if starts is None else parse_day("--from", starts)
    with opened() as herd:
        made = herd.grants.create(account, winston, every, starts=first, note=words, grant_id=key)
    if json:
        print_json(asdict(made))
        return
    said = f"Grant {made.id}: {winston} winston for {account}, every {made.every}"
    say(f"{said}; {_standing(made)}.")


def grants(
    account: Annotated[
        str | None, typer.Argument(metavar="ACCOUNT", help="Show only this account's grants.")
    ] = None,
    json: Json = False,
) -> None:
    """List grants, and when each is posted next."""
    with opened() as herd:
        if account is not None:
            herd.accounts.balance(account)  # an unknown account is an error, not an empty list
        found = herd.grants.list(account)
    if json:
        print_json({"grants": [asdict(one) for one in found]})
        return
    print_table(
        ("!Grant", "Account", ">Amount", "Every", ">Periods", "!Next", "Note"),
        (
            (one.id, one.account, one.amount, one.every, one.periods, _next(one), one.note)
            for one in found
        ),
    )
    for one in found:
        if one.failure is not None:
            how = "set aside, and tried again each hour" if one.ended_us is None else "ended"
            say(f"Grant {one.id} was {how}: {one.failure}")


def grant_end(
    grant_id: Annotated[
        str,
        typer.Argument(metavar="GRANT", help="The grant's id, as `herd account grants` shows it."),
    ],
    json: Json = False,
) -> None:
    """End a grant immediately and for good; the account keeps what it received."""
    with opened() as herd:
        ended = herd.grants.end(grant_id)
    if json:
        print_json(asdict(ended))
    else:
        say(f"Grant {ended.id} of account {ended.account} ended after {ended.periods} periods.")


def _next(grant: Grant) -> str:
    from herder.domain.periods import moment_or_none

    if grant.ended_us is None and grant.failure is not None:
        return "set aside"
    if grant.ended_us is None:
        return _day(moment_or_none(grant.next_us))
    return f"ended {_day(moment_or_none(grant.ended_us))}"


def _day(found: datetime | None) -> str:
    return UNREADABLE if found is None else found.date().isoformat()


def _standing(grant: Grant) -> str:
    posted = f"{grant.periods} posted" if grant.periods else "none posted yet"
    return (
        f"{posted}, next {_next(grant)}" if grant.ended_us is None else f"{posted}, {_next(grant)}"
    )
