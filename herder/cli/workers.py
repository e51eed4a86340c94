"""`herd worker …`: who is in the herd, who may join, and what this machine would be worth."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from herder.cli.base import INTERRUPTED, NOT_DONE, REFUSED, Json, opened, whole
from herder.cli.show import complain, print_json, print_table, say, when
from herder.client.optional import require
from herder.errors import InvalidRequest

app = typer.Typer(help="Show, add, drain, check and tune workers.")

MAX_SLOTS = 256
MAX_SECONDS = 3600


@app.command("list", epilog="Example: herd worker list --all")
def list_(
    all_of_them: Annotated[
        bool, typer.Option("--all", help="Include workers that left or were lost.")
    ] = False,
    json: Json = False,
) -> None:
    """List the herd's workers."""
    from herder.herd.roster import list_workers, why_unreached

    with opened() as herd:
        found = list_workers(herd.database, all_of_them=all_of_them)
    if json:
        print_json(
            {"workers": [asdict(one) | {"free": one.free, "reached": one.reached} for one in found]}
        )
        return
    print_table(
        ("Worker", "Model", "!State", ">Busy", ">Slots", ">Tokens/s", "!Heard"),
        (
            (
                one.name,
                one.model,
                one.shown_state,
                one.out + one.strays,
                one.slots,
                one.tokens_per_s * one.slots,
                when(one.seen_us),
            )
            for one in found
        ),
    )
    for one in found:
        if (doubt := why_unreached(one)) is not None:
            say(doubt)
        if one.clock_ahead_s and one.state in ("alive", "draining"):
            which = "ahead of" if one.clock_ahead_s > 0 else "behind"
            complain(
                f"The clock of {one.name} is {abs(one.clock_ahead_s)} s {which} the herder's; "
                "orders are not affected, but set it right, or the herder's."
            )


@app.command(epilog="Example: herd worker add gpu-1")
def add(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A name for people to recognise it by.")
    ],
    json: Json = False,
) -> None:
    """Let another worker join: create its key, and print the environment that it needs.

    The file that HERD_WORKER_KEY names is the worker's secret: whoever has it can answer orders.
    Copy it to the worker's machine, and give HERD_REDIS_URL as that machine sees it.
    `celery -A workers worker --help` says what Celery's options do in a herd.
    """
    from herder.host.home import add_worker

    with opened() as herd:
        environment = add_worker(herd.database, herd.settings, name)
    if json:
        print_json({"worker": name, "environment": environment})
        return
    lines = [f"export {key}={shlex.quote(value)}" for key, value in environment.items()]
    lines += ["export HERD_MODEL_PATH=/path/to/model.gguf", "celery -A workers worker -Q inference"]
    sys.stdout.write("\n".join(lines) + "\n")


@app.command(epilog="Example: herd worker drain gpu-1")
def drain(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="The worker's name, as `herd worker list` shows it."),
    ],
    json: Json = False,
) -> None:
    """Tell a worker to accept no more orders, finish or hand back what it has, and exit."""
    with opened() as herd:
        told = herd.workers.drain(name)
    if json:
        print_json({"worker": name, "instances": told})
    else:
        which = "it" if len(told) == 1 else f"all {len(told)} of that name"
        say(f"Told {name} to drain ({which}); `herd worker list` shows when it is gone.")


@app.command(epilog="Example: herd worker revoke gpu-1")
def revoke(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="The name that `herd worker add` gave it, or its key's id.",
        ),
    ],
    json: Json = False,
) -> None:
    """Revoke a worker's key for good: nothing it sends counts any more, and it is told to end.

    What it is running goes to other workers once its lease has run out (HERD_LEASE_S), and only
    the run that answers is charged. `herd worker drain` lets it finish first. `herd worker add`
    with the same name creates a new key.
    """
    with opened() as herd:
        revoked = herd.workers.revoke(name)
        lease_s = herd.settings.lease_s
    if json:
        print_json({"worker": name, **asdict(revoked)})
        return
    say(f"Revoked {_count(len(revoked.keys), 'key')} of {name}.")
    if revoked.instances:
        say(
            f"Told {_count(len(revoked.instances), 'process')} to end. "
            f"{_count(revoked.running, 'running order')} will be dispatched again within about "
            f"{lease_s} s, and nothing is charged for what it had generated."
        )


def _count(number: int, what: str) -> str:
    plural = what + ("es" if what.endswith("s") else "s")
    return f"{number} {what if number == 1 else plural}"


@app.command(epilog="Example: herd worker check --model-path model.gguf --seconds 5")
def check(
    model_path: Annotated[
        Path | None,
        typer.Option(
            "--model-path",
            metavar="FILE",
            help="The model's GGUF file; HERD_MODEL_PATH by default.",
        ),
    ] = None,
    slots: Annotated[
        str | None,
        typer.Option(
            "--slots", metavar="N", help="How many orders to decode at once; HERD_SLOTS by default."
        ),
    ] = None,
    seconds: Annotated[
        str,
        typer.Option("--seconds", metavar="N", help="How long to measure the speed, in seconds."),
    ] = "10",
    json: Json = False,
) -> None:
    """Load a model here and measure it as a worker with these settings would; needs no herd."""
    require("llama_cpp")
    from herder.host.bundled import model_file

    file = model_file() if model_path is None else model_path
    command = [sys.executable, "-m", "workers.tuning.check", "--model-path", str(file)]
    if slots is not None:
        command += ["--slots", _within("slots", slots, MAX_SLOTS)]
    command += ["--seconds", _within("seconds", seconds, MAX_SECONDS)]
    if json:
        command.append("--json")
    if sys.stderr.isatty():
        complain(f"Loading {file}, then measuring for {seconds} s ...")
    # A child: a build that crashes on this CPU takes only the child with it.
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    sys.stdout.write(done.stdout)
    if done.returncode == 0:
        return
    said = done.stderr.strip().splitlines()
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        complain(
            f"The check was killed by {name}; SIGILL or SIGSEGV means that this build of "
            "llama-cpp-python does not fit this CPU."
        )
        raise typer.Exit(NOT_DONE)
    complain(said[-1] if said else f"The check ended with exit code {done.returncode}.")
    raise typer.Exit(REFUSED if done.returncode == REFUSED else NOT_DONE)


@app.command(epilog="Example: herd worker tune --model-path model.gguf --seconds 10")
def tune(
    model_path: Annotated[
        Path | None,
        typer.Option(
            "--model-path",
            metavar="FILE",
            help="The model's GGUF file; HERD_MODEL_PATH by default.",
        ),
    ] = None,
    seconds: Annotated[
        str,
        typer.Option(
            "--seconds", metavar="N", help="How long to measure each setting, in seconds."
        ),
    ] = "5",
    only: Annotated[
        str | None,
        typer.Option(
            "--only",
            metavar="LIST",
            help="Any of threads,cache,slots,step,weights; all by default.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Measure which settings are fastest here, and print them for herd.env; takes minutes.

    It starts from the current settings and changes one thing at a time. Ctrl-C ends it and shows
    what was found until then.
    """
    require("llama_cpp")
    from herder.host.bundled import model_file

    file = model_file() if model_path is None else model_path
    command = [sys.executable, "-m", "workers.tuning.tune", "--model-path", str(file)]
    command += ["--seconds", _within("seconds", seconds, MAX_SECONDS)]
    if only is not None:
        command += ["--only", only]
    if json:
        command.append("--json")
    # A child, as for the check; it shows its table as it grows.
    with subprocess.Popen(command) as child:  # noqa: S603
        while True:
            try:
                code = child.wait()
                break
            except KeyboardInterrupt:
                continue  # the terminal told the child too, and it has something to say
    if code < 0:
        name = signal.Signals(-code).name
        complain(f"The tuning was killed by {name}: a setting that it tried does not work here.")
        raise typer.Exit(NOT_DONE)
    if code:
        raise typer.Exit(code if code in (REFUSED, INTERRUPTED) else NOT_DONE)


def _within(name: str, text: str, most: int) -> str:
    number = whole(text)
    if not isinstance(number, int) or not 1 <= number <= most:
        raise InvalidRequest(f"{name} must be a whole number from 1 to {most}, not {text[:40]}.")
    return str(number)
