"""`herd account …`: who pays and earns, and how money comes in and goes out."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from herder.cli.base import (
    MONEY,
    Json,
    Note,
    TransferId,
    amount_of,
    buying,
    opened,
    optional_whole,
    transfer_id_of,
    whole,
)
from herder.cli.show import complain, print_json, print_table, say, when

if TYPE_CHECKING:
    from herder.types import NamedBalance, StatementEntry

app = typer.Typer(help="Create accounts, move money, read statements.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="The account's name.")]
NameOrDefault = Annotated[
    str | None,
    typer.Argument(metavar="NAME", help="The account's name; HERD_ACCOUNT unless given."),
]
Amount = Annotated[str, typer.Argument(metavar="AMOUNT", help="Whole winston.")]

_COLUMNS = ("Account", ">Posted", ">Held", ">Available")


@app.command(epilog="Example: herd account create ada")
def create(name: Name, json: Json = False) -> None:
    """Create an empty account."""
    with opened() as herd:
        herd.accounts.create(name)
        _show(herd.accounts.balance(name), json)


@app.command(epilog="Example: herd account limit ada --open-orders 100 --tokens-per-minute 20000")
def limit(
    name: Name,
    open_orders: Annotated[
        str | None,
        typer.Option(
            "--open-orders",
            metavar="N",
            help="How many orders may be open at once; 0 for no limit.",
        ),
    ] = None,
    tokens_per_minute: Annotated[
        str | None,
        typer.Option(
            "--tokens-per-minute",
            metavar="N",
            help="How many words and tokens may be ordered per minute; 0 for no limit.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Set an account's own limits; a limit that is left out is the herd's again."""
    limits: dict[str, Any] = {
        "max_open_orders": optional_whole(open_orders),
        "tokens_per_minute": optional_whole(tokens_per_minute),
    }
    with opened() as herd:
        herd.accounts.set_limits(name, **limits)
    if json:
        print_json({"account": name, **limits})
    else:
        shown = ", ".join(
            f"{key} {'as the herd' if value is None else value}" for key, value in limits.items()
        )
        say(f"Account {name}: {shown}.")


@app.command("list", epilog="Example: herd account list")
def list_(json: Json = False) -> None:
    """List all accounts and their balances."""
    with opened() as herd:
        found = herd.accounts.balances()
    if json:
        print_json({"accounts": [asdict(one) for one in found]})
    else:
        print_table(_COLUMNS, (_cells(one) for one in found))


@app.command(epilog="Example: herd account balance ada")
def balance(name: NameOrDefault = None, json: Json = False) -> None:
    """Show an account's balance, and how much of it is held for orders."""
    with buying() as herd:
        _show(herd.balance(name or None), json)


@app.command(context_settings=MONEY, epilog="Example: herd account deposit ada 1000 --note March")
def deposit(
    name: Name, amount: Amount, id_: TransferId = None, note: Note = None, json: Json = False
) -> None:
    """Add money to an account."""
    from herder.domain.parsing import parse_note

    winston, words, key = amount_of(amount), parse_note("--note", note), transfer_id_of(id_)
    with opened() as herd:
        after = herd.accounts.deposit(name, winston, key, words)
    _moved([after], f"Deposited {winston} winston to {name}", winston, key, json)


@app.command(context_settings=MONEY, epilog="Example: herd account withdraw ada 250")
def withdraw(
    name: Name, amount: Amount, id_: TransferId = None, note: Note = None, json: Json = False
) -> None:
    """Take money out of an account; held money stays."""
    from herder.domain.parsing import parse_note

    winston, words, key = amount_of(amount), parse_note("--note", note), transfer_id_of(id_)
    with opened() as herd:
        after = herd.accounts.withdraw(name, winston, key, words)
    _moved([after], f"Withdrew {winston} winston from {name}", winston, key, json)


@app.command(context_settings=MONEY, epilog="Example: herd account transfer ada bob 100")
def transfer(
    payer: Annotated[str, typer.Argument(metavar="FROM", help="The account that pays.")],
    payee: Annotated[str, typer.Argument(metavar="TO", help="The account that receives.")],
    amount: Amount,
    id_: TransferId = None,
    note: Note = None,
    json: Json = False,
) -> None:
    """Move money from one account to another."""
    from herder.domain.parsing import parse_note

    winston, words, key = amount_of(amount), parse_note("--note", note), transfer_id_of(id_)
    with opened() as herd:
        after = herd.accounts.transfer(payer, payee, winston, key, words)
        received = herd.accounts.balance(payee)
    said = f"Moved {winston} winston from {payer} to {payee}"
    _moved([after, received], said, winston, key, json)


@app.command(epilog="Example: herd account statement ada --limit 20")
def statement(
    name: NameOrDefault = None,
    after: Annotated[
        str, typer.Option("--after", metavar="SEQ", help="Start after this entry.")
    ] = "0",
    limit: Annotated[
        str,
        typer.Option("--limit", metavar="N", help="How many entries to show at most, 1 to 1000."),
    ] = "100",
    json: Json = False,
) -> None:
    """Show an account's statement, oldest entries first."""
    most: Any = whole(limit)
    begin: Any = whole(after)
    with buying() as herd:
        account = herd.balance(name or None).account
        entries = herd.statement(account, after=begin, limit=most)
    more = len(entries) == most
    if json:
        print_json(
            {
                "account": account,
                "entries": [asdict(one) for one in entries],
                "next_after": entries[-1].seq if more else None,
            }
        )
        return
    print_table(("!When", "!What", ">Amount", ">Held", "About"), (_line(one) for one in entries))
    if more:
        complain(f"There may be more: --after {entries[-1].seq}")


def _cells(one: NamedBalance) -> tuple[object, ...]:
    return one.account, one.posted, one.held, one.available


def _show(one: NamedBalance, json: bool) -> None:
    if json:
        print_json(asdict(one))
    else:
        print_table(_COLUMNS, [_cells(one)])


def _moved(after: list[NamedBalance], said: str, winston: int, key: str, json: bool) -> None:
    if json:
        accounts = [asdict(one) for one in after]
        print_json({"id": key, "amount": winston, "accounts": accounts})
        return
    say(f"{said} (id {key}).")
    print_table(_COLUMNS, (_cells(one) for one in after))


def _line(entry: StatementEntry) -> tuple[object, ...]:
    return (
        when(entry.at_us),
        entry.kind,
        f"{entry.amount:+d}" if entry.amount else "",
        f"{entry.held:+d}" if entry.held else "",
        " ".join(part for part in _about(entry) if part),
    )


def _about(entry: StatementEntry) -> tuple[str | None, ...]:
    return entry.order, entry.counterparty, entry.period, entry.note
