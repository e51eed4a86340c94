"""`herd key …`: API keys, with which programs elsewhere buy over HTTP."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from herder.cli.base import Json, opened, optional_whole
from herder.cli.show import print_json, print_table, say, when

if TYPE_CHECKING:
    from herder.store.api_keys import ApiKey

app = typer.Typer(help="API keys: for programs that buy over HTTP.")

DAY_S = 86_400


@app.command(epilog="Example: herd key create ada --name laptop --spending-limit 5000 --days 90")
def create(
    account: Annotated[str, typer.Argument(metavar="ACCOUNT", help="Who pays.")],
    name: Annotated[str, typer.Option("--name", metavar="TEXT", help="What people call it.")] = "",
    scopes: Annotated[
        str,
        typer.Option(
            "--scopes",
            metavar="LIST",
            help="Of buy, read and operate, with commas between.",
        ),
    ] = "buy,read",
    days: Annotated[
        str | None,
        typer.Option("--days", metavar="N", help="Days after which it ends; never unless given."),
    ] = None,
    max_fee: Annotated[
        str | None,
        typer.Option("--max-fee", metavar="N", help="The highest fee that it may offer."),
    ] = None,
    spending_limit: Annotated[
        str | None,
        typer.Option("--spending-limit", metavar="N", help="The most that it may spend in all."),
    ] = None,
    json: Json = False,
) -> None:
    """Make an API key for an account, and show it: this once and never again."""
    given: dict[str, Any] = {
        "expires_s": _seconds(days),
        "max_fee": optional_whole(max_fee),
        "spending_limit": optional_whole(spending_limit),
    }
    with opened() as herd:
        wanted = [one.strip() for one in scopes.split(",") if one.strip()]
        key, text = herd.api_keys.create(account, name=name, scopes=wanted, **given)
    if json:
        print_json(shown(key) | {"key": text})
        return
    say(text)
    say(f"Key {key.id} of account {account}: keep it well, it is not shown again.")


@app.command("list", epilog="Example: herd key list ada")
def list_(
    account: Annotated[
        str | None, typer.Argument(metavar="ACCOUNT", help="Only this account's.")
    ] = None,
    json: Json = False,
) -> None:
    """Show API keys, and what was spent with each."""
    with opened() as herd:
        found = herd.api_keys.list(account)
    if json:
        print_json({"keys": [shown(key) for key in found]})
        return
    print_table(
        ("Key", "Account", "Name", "!Scopes", ">Held", ">Charged", ">Limit", "!Ends"),
        (
            (
                key.id,
                key.account,
                key.name,
                ",".join(key.scopes),
                key.held,
                key.charged,
                key.spending_limit,
                _end(key),
            )
            for key in found
        ),
    )


@app.command(epilog="Example: herd key revoke 0123456789abcdef")
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="KEY", help="As `herd key list` shows it.")],
    json: Json = False,
) -> None:
    """End an API key, at once and for good; orders that were bought with it go on."""
    with opened() as herd:
        key = herd.api_keys.revoke(key_id)
    if json:
        print_json(shown(key))
    else:
        say(f"Key {key.id} of account {key.account} opens nothing any more.")


def shown(key: ApiKey) -> dict[str, Any]:
    """A key as JSON would have it, without what only its owner knows."""
    values = asdict(key)
    del values["digest"]
    return values


def _seconds(days: str | None) -> int | str | None:
    count = optional_whole(days)
    return count * DAY_S if isinstance(count, int) else count


def _end(key: ApiKey) -> str:
    if key.revoked_us is not None:
        return f"revoked {when(key.revoked_us)}"
    return "never" if key.expires_us is None else when(key.expires_us)
