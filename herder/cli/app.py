"""The app: its groups of commands, and what belongs to no group."""

from __future__ import annotations

import io
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from herder.cli import (
    accounts,
    chat,
    grants,
    keys,
    models,
    orders,
    policy,
    quote,
    receipts,
    running,
    submit,
    tokenize,
    usage,
    webhooks,
    workers,
)
from herder.cli.aside import print_aside
from herder.cli.base import (
    NOT_DONE,
    HerdGroup,
    Json,
    Named,
    amount_of,
    buying,
    name_herder,
    opened,
    require_home,
)
from herder.cli.show import complain, print_facts, print_json, print_table, say
from herder.types import PLACE_COUNTED, ModelInfo

app = typer.Typer(
    name="herd",
    cls=HerdGroup,
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    epilog="Exit codes: 0 for success; 1 for an order that did not complete, an audit that "
    "finds anything, a herd that is unavailable, or a limit that was reached; 2 for bad input or a "
    "refusal, explained by one line on standard error; 78 for a database of another version; 130 "
    "after Ctrl-C.\n\nCommands work on the herd in HERD_HOME (~/.llama-herder by default). To buy "
    "from a herd elsewhere over HTTP, give its address with --url or HERD_URL and an API key in "
    "HERD_API_KEY. Amounts are in whole winston.\n\nExample: herd init --deposit 1000, herd up, "
    'herd submit "Hello" -n 20',
)


def main() -> None:
    """Run the `herd` command."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # an old terminal shows ? where it has no sign
    app(prog_name="herd")


def _version(wanted: bool) -> None:
    if wanted:
        from herder.version import __version__

        say(f"herd {__version__}")
        raise typer.Exit


@app.callback()
def herd(
    context: typer.Context,
    version: Annotated[  # noqa: ARG001  (its callback answers)
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
    url: Annotated[
        str | None,
        typer.Option(
            "--url",
            metavar="URL",
            help="The address of a gateway, to use a herder elsewhere; HERD_URL by default. The "
            "API key is read from HERD_API_KEY.",
        ),
    ] = None,
    api_key_file: Annotated[
        Path | None,
        typer.Option(
            "--api-key-file",
            metavar="FILE",
            help="A file that holds the API key, instead of HERD_API_KEY.",
        ),
    ] = None,
) -> None:
    """Share a herd of machines for LLM inference: the best-paid prompt runs first."""
    name_herder(Named(url, api_key_file))
    if context.invoked_subcommand is None:
        context.get_help()  # Typer prints it itself


@app.command(epilog="Example: herd init --deposit 1000")
def init(
    deposit: Annotated[
        str | None,
        typer.Option(
            "--deposit", metavar="N", help="Winston to deposit to the first account, if it is new."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Set up the home folder: database, keys, settings and an account; what exists stays."""
    require_home()
    from herder.host import home
    from herder.settings import load_policy, load_settings

    winston = 0 if deposit is None else amount_of(deposit)
    settings = load_settings()
    made = home.init(settings, load_policy(), deposit=winston)
    deposited = f"deposit of {winston} winston" in made
    if json:
        print_json(
            {
                "home": str(settings.home),
                "account": settings.account,
                "deposited": winston if deposited else 0,
                "made": made,
            }
        )
    else:
        for line in made:
            say(f"Made {line}")
        say(f"The herd of {settings.home} is ready.")
    if (warning := home.open_home(settings.home)) is not None:
        complain(warning)
    if winston and not deposited:
        complain(
            f"Account {settings.account} already existed and got no deposit; `herd account "
            f"deposit {settings.account} {winston}` makes one."
        )


def _length(model: ModelInfo) -> str:
    if model.queue_length_exact:
        return str(model.queue_length)
    if model.queue_length <= PLACE_COUNTED + 1:
        return f"more than {PLACE_COUNTED}"
    return f"about {model.queue_length}"


@app.command(epilog="Example: herd info --json")
def info(json: Json = False) -> None:
    """Show the herd: its models, their rates, the queues and the workers."""
    with buying() as herd:
        found = herd.info()
    if json:
        print_json(found.to_dict())
        return
    say(f"{found.name} {found.version}")
    for model in found.models:
        say("")
        print_facts(
            [
                (
                    "model",
                    f"{model.name}{' (default)' if model.name == found.default_model else ''}",
                ),
                (
                    "rates",
                    f"{model.rates.prompt_fee} per prompt, {model.rates.fee_per_token} per token",
                ),
                ("last multiplier", model.last_multiplier),
                ("queue", f"{_length(model)} waiting"),
                ("wait", None if model.wait_s is None else f"{model.wait_s} s"),
                ("workers", model.workers),
                ("slots", f"{model.free_slots} free of {model.slots}"),
                ("context", model.context),
                ("weights", ", ".join(model.weights) or None),
            ]
        )


@app.command(epilog="Example: herd audit && echo balanced")
def audit(json: Json = False) -> None:
    """Check the books by adding up all transfers, and show what is set aside.

    The exit code is 1 if the books do not balance, or any order or grant is set aside.
    """
    from herder.domain.paging import MAX_PAGE

    with opened() as herd:
        report = herd.accounts.audit()
        stuck, count = herd.aside.list(limit=MAX_PAGE), herd.aside.count()
        due, stuck_grants = herd.grants.set_aside(limit=MAX_PAGE)
    if json:
        told = {
            "set_aside": count,
            "set_aside_orders": [one.to_dict() for one in stuck],
            "grants_set_aside": due,
            "set_aside_grants": [asdict(one) for one in stuck_grants],
        }
        print_json({"clean": report.clean} | asdict(report) | told)
    else:
        print_facts(
            [
                ("accounts", report.accounts),
                ("transfers", report.transfers),
                ("open holds", report.open_holds),
                ("held", report.held),
                ("circulating", report.circulating),
                ("outside", report.outside),
                ("set aside", count),
                ("grants set aside", due),
            ]
        )
        if report.clean:
            say("The books balance.")
        else:
            columns = ("Check", "Subject", ">Expected", ">Found")
            rows = ((one.check, one.subject, one.expected, one.found) for one in report.drifts)
            print_table(columns, rows)
        if stuck:
            print_aside(stuck)
        if stuck_grants:
            heads = ("!Grant", "Account", "Reason")
            print_table(heads, ((one.id, one.account, one.failure) for one in stuck_grants))
    if not report.clean:
        complain(f"The books do not balance; discrepancies found: {len(report.drifts)}.")
    if count:
        complain(
            f"Orders that are set aside, with their fees held: {count}. `herd order aside retry` "
            "ends one as intended; `herd order aside give-back` returns its whole fee."
        )
    if due:
        complain(
            f"Grants that are set aside, and tried again each hour: {due}. `herd account "
            "grant-end` ends one."
        )
    if count or due or not report.clean:
        raise typer.Exit(NOT_DONE)


grants.register(accounts.app)
app.add_typer(accounts.app, name="account")
app.add_typer(keys.app, name="key")
quote.register(app)
tokenize.register(app)
submit.register(app)
chat.register(app)
orders.register(app)
usage.register(app)
app.add_typer(receipts.app, name="receipt")
app.add_typer(models.app, name="model")
app.add_typer(policy.app, name="policy")
app.add_typer(workers.app, name="worker")
app.add_typer(webhooks.app, name="webhooks")
running.register(app)
