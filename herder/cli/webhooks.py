"""`herd webhooks …`: where accounts are told by HTTP what became of their orders."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from herder.cli.base import NOT_DONE, Json, opened
from herder.cli.show import complain, print_facts, print_json, print_table, say, when
from herder.errors import InvalidRequest
from herder.webhooks.views import shown, shown_delivery

if TYPE_CHECKING:
    from herder.local.local_herd import LocalHerd
    from herder.store.deliveries import Delivery
    from herder.store.webhooks import Endpoint

app = typer.Typer(help="Manage webhooks, which tell accounts over HTTP how their orders ended.")

Which = Annotated[
    str,
    typer.Argument(metavar="WEBHOOK", help="The webhook's id, as `herd webhooks list` shows it."),
]
POLL_S = 0.2


@app.command(epilog="Example: herd webhooks create ada https://ada.example/herd --include-text")
def create(
    account: Annotated[str, typer.Argument(metavar="ACCOUNT", help="Whose orders.")],
    url: Annotated[str, typer.Argument(metavar="URL", help="The URL that messages are sent to.")],
    types: Annotated[
        str | None,
        typer.Option(
            "--types",
            metavar="LIST",
            help="Any of order.completed, order.failed, order.cancelled, order.expired and "
            "message.created, separated by commas; by default the ends of orders.",
        ),
    ] = None,
    include_text: Annotated[
        bool, typer.Option("--include-text", help="Include the orders' texts.")
    ] = False,
    json: Json = False,
) -> None:
    """Create a webhook for an account, and show its secret; it cannot be shown again."""
    wanted = None if types is None else [one.strip() for one in types.split(",") if one.strip()]
    with opened() as herd:
        made = herd.webhooks.create(account, url, types=wanted, include_text=include_text)
    _show_secret(*made, json)


@app.command("list", epilog="Example: herd webhooks list ada")
def list_(
    account: Annotated[
        str | None, typer.Argument(metavar="ACCOUNT", help="Show only this account's webhooks.")
    ] = None,
    json: Json = False,
) -> None:
    """List webhooks, and whether they are reached."""
    with opened() as herd:
        found = herd.webhooks.list(account)
    if json:
        print_json({"webhooks": [shown(one) for one in found]})
        return
    print_table(
        ("!Webhook", "Account", "Url", "Types", "!State"),
        ((one.id, one.account, one.url, ",".join(one.types), _state(one)) for one in found),
    )


@app.command(epilog="Example: herd webhooks show we_0123456789abcdef --state dead")
def show(
    webhook: Which,
    state: Annotated[
        str | None,
        typer.Option(
            "--state",
            metavar="STATE",
            help="Show only messages in this state: pending, delivered or dead.",
        ),
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", metavar="N", help="How many messages to show, 1 to 100.")
    ] = 20,
    before: Annotated[
        str | None,
        typer.Option("--before", metavar="MESSAGE", help="Show only messages before this one."),
    ] = None,
    json: Json = False,
) -> None:
    """Show a webhook and its latest messages."""
    with opened() as herd:
        one = herd.webhooks.get(webhook)
        counts = herd.webhooks.deliveries.counts(webhook)
        page = herd.webhooks.deliveries.page(webhook, state=state, before=before, limit=limit)
        found = page.items
    if json:
        print_json(
            shown(one) | {"messages": counts, "deliveries": [shown_delivery(d) for d in found]}
        )
        return
    print_facts(
        [
            ("webhook", one.id),
            ("account", one.account),
            ("url", one.url),
            ("types", ", ".join(one.types)),
            ("text", "sent as well" if one.include_text else None),
            ("state", _state(one)),
            ("failing since", None if one.failing_since_us is None else when(one.failing_since_us)),
            ("old secret", _old_secret(one)),
            ("messages", ", ".join(f"{count} {name}" for name, count in counts.items())),
        ]
    )
    say("")
    print_table(
        ("!Message", "!Type", "Subject", "State", ">Tries", "!Last", "!Next"),
        (
            (
                d.id,
                d.type,
                d.subject,
                d.state,
                d.tries,
                d.trouble or d.status,
                when(d.due_us) if d.state == "pending" else None,
            )
            for d in found
        ),
    )


@app.command(epilog="Example: herd webhooks rotate we_0123456789abcdef")
def rotate(webhook: Which, json: Json = False) -> None:
    """Give a webhook a new secret; the old one also signs for HERD_WEBHOOK_OVERLAP_S seconds."""
    with opened() as herd:
        made = herd.webhooks.rotate(webhook)
    _show_secret(*made, json)


@app.command(epilog="Example: herd webhooks disable we_0123456789abcdef")
def disable(webhook: Which, json: Json = False) -> None:
    """Disable a webhook until it is enabled again; orders that end meanwhile are not reported."""
    with opened() as herd:
        _tell(herd.webhooks.disable(webhook), "gets no more messages.", json)


@app.command(epilog="Example: herd webhooks enable we_0123456789abcdef")
def enable(webhook: Which, json: Json = False) -> None:
    """Enable a webhook again."""
    with opened() as herd:
        _tell(herd.webhooks.enable(webhook), "gets messages again.", json)


@app.command(epilog="Example: herd webhooks delete we_0123456789abcdef")
def delete(webhook: Which, json: Json = False) -> None:
    """Delete a webhook, its secret and its messages."""
    with opened() as herd:
        _tell(herd.webhooks.delete(webhook), "is forgotten.", json)


@app.command(
    epilog="Examples: herd webhooks replay we_0123456789abcdef --since 2026-05-01T00:00Z, "
    "herd webhooks replay we_0123456789abcdef --message msg_…"
)
def replay(
    webhook: Which,
    message: Annotated[
        str | None,
        typer.Option(
            "--message", metavar="MESSAGE", help="Replay only this message, whatever its state."
        ),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            "--since", metavar="TIME", help="Replay only events since this time (RFC 3339)."
        ),
    ] = None,
    until: Annotated[
        str | None,
        typer.Option("--until", metavar="TIME", help="Replay only events before this time."),
    ] = None,
    delivered: Annotated[
        bool, typer.Option("--delivered", help="Replay delivered messages too.")
    ] = False,
    json: Json = False,
) -> None:
    """Send messages that were given up again, under their old ids."""
    with opened() as herd:
        count = herd.webhooks.deliveries.replay(
            webhook,
            message=message,
            since_us=moment_us("--since", since),
            until_us=moment_us("--until", until),
            delivered=delivered,
        )
    if json:
        print_json({"webhook": webhook, "replayed": count})
    else:
        say(f"{count} message{' is' if count == 1 else 's are'} queued to be sent again.")


@app.command("test", epilog="Example: herd webhooks test we_0123456789abcdef && echo reached")
def try_out(
    webhook: Which,
    wait_s: Annotated[
        int, typer.Option("--wait", metavar="S", help="Seconds to wait for the result.")
    ] = 20,
    json: Json = False,
) -> None:
    """Send a test message (type webhook.test); exit code 1 if it was not accepted."""
    with opened() as herd:
        found = _awaited(herd, webhook, herd.webhooks.deliveries.test(webhook), wait_s)
    if json:
        print_json(shown_delivery(found))
    elif found.state == "delivered":
        say(f"Message {found.id} was accepted with status {found.status}.")
    elif found.tries:
        complain(f"Message {found.id} was not accepted: {found.trouble or found.status}.")
    else:
        complain(f"No herder has tried to send message {found.id} in {wait_s} s; is one running?")
    if found.state != "delivered":
        raise typer.Exit(NOT_DONE)


def _awaited(
    herd: LocalHerd,
    webhook: str,
    message: str,
    wait_s: int,
    sleep: Callable[[float], None] = time.sleep,
) -> Delivery:
    until_s = time.monotonic() + wait_s
    while True:
        found = herd.webhooks.deliveries.get(webhook, message)
        if found.tries or time.monotonic() >= until_s:
            return found
        sleep(POLL_S)


def moment_us(name: str, text: str | None) -> int | None:
    """Return a time with its zone, as typed, in microseconds since the epoch.

    Raises:
        InvalidRequest: the time is not valid.
    """
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise InvalidRequest(
            f"{name} must be a time with its zone, such as 2026-05-01T12:00:00Z, not {text[:40]!r}."
        )
    return int(moment.timestamp() * 1_000_000)


def _show_secret(one: Endpoint, secret: str, json: bool) -> None:
    if json:
        print_json(shown(one) | {"secret": secret})
        return
    say(secret)
    say(
        f"Webhook {one.id} of account {one.account}. Store its secret safely; it is not shown "
        "again."
    )


def _tell(one: Endpoint, what: str, json: bool) -> None:
    if json:
        print_json(shown(one))
    else:
        say(f"Webhook {one.id} of account {one.account} {what}")


def _state(one: Endpoint) -> str:
    if not one.enabled:
        return f"disabled ({one.why})"
    return "enabled" if one.failing_since_us is None else "failing"


def _old_secret(one: Endpoint) -> str | None:
    return None if one.old_until_us is None else f"signs until {when(one.old_until_us)}"
