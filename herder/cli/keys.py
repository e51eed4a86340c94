"""`herd key …`: API keys, with which programs elsewhere buy over HTTP."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from herder.cli.base import Json, opened, optional_whole
from herder.cli.show import print_json, print_table, say, when

if TYPE_CHECKING:
    from herder.store.api_keys import ApiKey

app = typer.Typer(help="Manage API keys for programs that buy over HTTP.")

DAY_S = 86_400


@app.command(epilog="Example: herd key create ada --name laptop --spending-limit 5000 --days 90")
def create(
    account: Annotated[str, typer.Argument(metavar="ACCOUNT", help="Who pays.")],
    name: Annotated[
        str, typer.Option("--name", metavar="TEXT", help="A name for people to recognise it by.")
    ] = "",
    scopes: Annotated[
        str,
        typer.Option(
            "--scopes",
            metavar="LIST",
            help="Any of buy, read and operate, separated by commas.",
        ),
    ] = "buy,read",
    days: Annotated[
        str | None,
        typer.Option("--days", metavar="N", help="Days until the key expires; never by default."),
    ] = None,
    max_fee: Annotated[
        str | None,
        typer.Option("--max-fee", metavar="N", help="The highest fee that the key may offer."),
    ] = None,
    spending_limit: Annotated[
        str | None,
        typer.Option(
            "--spending-limit", metavar="N", help="The most that the key may spend in total."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Create an API key for an account, and show it; it cannot be shown again."""
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
    say(f"Key {key.id} of account {account}. Store it safely; it is not shown again.")
    say("To use it, with the gateway's address (`herd gateway` shows it) and the key above:")
    say("    export HERD_URL=http://… HERD_API_KEY=herd_…")
    say("    export OPENAI_BASE_URL=$HERD_URL/v1 OPENAI_API_KEY=$HERD_API_KEY")


@app.command("list", epilog="Example: herd key list ada")
def list_(
    account: Annotated[
        str | None, typer.Argument(metavar="ACCOUNT", help="Show only this account's keys.")
    ] = None,
    json: Json = False,
) -> None:
    """List API keys, and what was spent with each."""
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
    key_id: Annotated[
        str, typer.Argument(metavar="KEY", help="The key's id, as `herd key list` shows it.")
    ],
    json: Json = False,
) -> None:
    """Revoke an API key immediately and for good; orders bought with it continue."""
    with opened() as herd:
        key = herd.api_keys.revoke(key_id)
    if json:
        print_json(shown(key))
    else:
        say(f"Key {key.id} of account {key.account} is no longer valid.")


def shown(key: ApiKey) -> dict[str, Any]:
    """Return a key as JSON would have it, without what only its owner knows."""
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
