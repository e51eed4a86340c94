"""`herd receipt …`: receipts that a herder signed, and whether one is genuine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from herder.cli.base import Json, buying, read_text
from herder.cli.show import print_json, say

if TYPE_CHECKING:
    from workers.wire import PublicKey

app = typer.Typer(help="Get and verify signed receipts.")

MAX_BYTES = 65_536


@app.command(epilog="Example: herd receipt get ID > receipt.jws")
def get(
    order: Annotated[str, typer.Argument(metavar="ID", help="The order.")], json: Json = False
) -> None:
    """Print an order's current receipt, signed by the herder."""
    with buying() as herd:
        token = herd.signed_receipt(order)
    if json:
        print_json({"order": order, "jws": token})
    else:
        say(token)


@app.command(epilog="Example: herd receipt verify receipt.jws --keys jwks.json")
def verify(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A file that holds a signed receipt.")
    ],
    keys: Annotated[
        Path | None,
        typer.Option(
            "--keys",
            metavar="FILE",
            help="A file with the herder's public keys, as /.well-known/jwks.json provides them; "
            "fetched from the herd by default.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Verify a signed receipt, offline with --keys; exit code 2 if it is not genuine."""
    from herder.domain.signed_tokens import from_jwks, read_receipt

    token = read_text(file, "receipt", MAX_BYTES).strip()
    if keys is not None:
        known: Mapping[str, PublicKey] = from_jwks(read_text(keys, "keys file", MAX_BYTES))
    else:
        with buying() as herd:
            known = herd.public_keys()
    claims = read_receipt(token, known)
    if json:
        print_json(claims)
        return
    receipt = claims["receipt"]
    say(
        f"Genuine: order {receipt['order']} of {receipt['account']} is {receipt['state']}, "
        f"charged {receipt['charged']} of {receipt['fee']} winston."
    )
