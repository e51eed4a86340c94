"""`herd up`: a herd that stays, on this machine: Redis, a herder and workers under one supervisor.

Everything that it makes stands in the home folder, so that it comes up the same the next time.
"""

from __future__ import annotations

import datetime
import fcntl
import json
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from honcho.colour import get_colours
from honcho.printer import Message, Printer

from herder.clock import clock_us
from herder.errors import HerdError, SetupError
from herder.host.programs import StartPlan, make_plan
from herder.host.supervisor import Show, Supervisor
from herder.local.local_herd import LocalHerd
from herder.settings import load_settings
from herder.store import herd as herd_sql

if TYPE_CHECKING:
    from herder.host.gateway import Chosen, GatewayPlan

LOCK_FILE = "up.lock"
POLL_S = 0.1


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Hold a home folder for this process, until it ends.

    Raises:
        SetupError: another `herd up` holds it, or the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise SetupError(
            f"The home folder {folder} cannot be written to ({error.strerror}); set HERD_HOME to "
            "a folder that you can write to."
        ) from None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(handle, 20, 0).decode(errors="replace").strip()
            raise SetupError(
                f"A herd is already running in {folder} (process {holder or 'unknown'}); stop it, "
                "or set HERD_HOME to another folder."
            ) from None
        os.truncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(handle)


def wait_ready(
    herd: LocalHerd,
    supervisor: Supervisor,
    names: list[str],
    *,
    since_us: int,
    on_join: Callable[[herd_sql.Worker], None] = lambda _worker: None,
) -> bool:
    """Wait until the herder sees all workers, and reaches them by the broker.

    Args:
        herd: where to look.
        supervisor: who runs them.
        names: whom to wait for; one that is set aside is not waited for.
        since_us: workers that joined before are of another time, and may be dead.
        on_join: called once for each as it is seen.

    Returns:
        False if the supervisor ended before.
    """
    seen: set[str] = set()
    while not supervisor.stopping:
        with herd.database.read() as connection:
            here = herd_sql.workers_here(connection)
        for worker in here:
            known = worker.joined_us >= since_us and worker.reached
            if known and worker.name in names and worker.name not in seen:
                seen.add(worker.name)
                on_join(worker)
        if seen.issuperset(set(names) & set(supervisor.kept())):
            return True
        time.sleep(POLL_S)
    return False


def up(
    workers: int = 1,
    folder: Path | None = None,
    *,
    gateway: Chosen | None = None,
    as_json: bool = False,
) -> int:
    """Run a herd until it is stopped.

    Args:
        workers: how many.
        folder: the home folder; None for `HERD_HOME`, else `~/.llama-herder`.
        gateway: the settings of a gateway to run too, for which a key is made; None for none.
        as_json: print one JSON document when it is ready, and the logs to standard error.

    Returns:
        The exit code: 0 after Ctrl-C or SIGTERM.

    Raises:
        HerdError: it cannot start; the sentence says what to do.
    """
    with only_one(load_settings(folder).home):
        plan = make_plan(workers, folder)
        served = None if gateway is None else _with_gateway(plan, gateway)
        colour = "NO_COLOR" not in os.environ
        output = sys.stderr if as_json else sys.stdout
        supervisor = Supervisor(plan.stages, line_printer(plan.names, output, colour=colour))
        stop_on_signals(supervisor)
        told = (plan, served, supervisor, as_json)
        threading.Thread(target=_announce, args=told, daemon=True).start()
        code = supervisor.run()
    if supervisor.failure is not None:
        print(f"The herd is down: {supervisor.failure}", file=sys.stderr)  # noqa: T201
    return code


def _with_gateway(plan: StartPlan, settings: Chosen) -> GatewayPlan:
    """Have a gateway run too: the last to be started, the first to be stopped.

    Raises:
        SetupError: it cannot be started.
    """
    from herder.host.gateway import plan_gateway  # loads what only a gateway needs

    served = plan_gateway(settings, plan.env)
    plan.stages.append([served.program])
    return served


def stop_on_signals(supervisor: Supervisor) -> None:
    """Stop in order on Ctrl-C, SIGTERM and a closed terminal; a second Ctrl-C stops at once."""
    asked = False

    def on_signal(number: int, _frame: object) -> None:
        nonlocal asked
        if asked and number == signal.SIGINT:
            supervisor.kill()
        asked = True
        supervisor.stop()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup
            signal.signal(number, on_signal)


def _announce(
    plan: StartPlan, served: GatewayPlan | None, supervisor: Supervisor, as_json: bool
) -> None:
    """On a thread: when the herd is ready, say how to use it."""
    since_us = clock_us()
    herd = LocalHerd(plan.settings)
    try:
        if not wait_ready(herd, supervisor, plan.workers, since_us=since_us):
            return
        document = _document(plan, supervisor, herd)
        if served is not None and not _open_gateway(served, supervisor, herd, document):
            return
    except HerdError as error:
        print(f"Cannot tell whether the herd is ready: {error}", file=sys.stderr)  # noqa: T201
        return
    finally:
        herd.close()
    text = json.dumps(document) if as_json else _told(document)
    print(text, flush=True)  # noqa: T201


def _document(plan: StartPlan, supervisor: Supervisor, herd: LocalHerd) -> dict[str, Any]:
    info = herd.info().model
    account = plan.settings.account
    return {
        "home": str(plan.settings.home),
        "model": info.name,
        "workers": plan.workers,
        "slots": info.slots,
        "processes": {name: supervisor.pid(name) for name in plan.names[1:]},
        "account": account,
        "available": herd.accounts.balance(account).available,
        "join": {"environment": plan.join, "command": "celery -A workers worker -Q inference"},
    }


def _open_gateway(
    served: GatewayPlan, supervisor: Supervisor, herd: LocalHerd, document: dict[str, Any]
) -> bool:
    """Wait for the gateway, and add to the document how it is used; False if the herd ended."""
    from herder.host.gateway import open_buyer

    while not served.answers():
        if supervisor.stopping:
            return False
        time.sleep(POLL_S)
    buyer = open_buyer(herd, document["account"])
    document["available"] = buyer.available
    document["processes"]["gateway"] = supervisor.pid("gateway")
    document["gateway"] = {
        "url": served.url,
        "deposited": buyer.deposited,
        "environment": {
            "OPENAI_BASE_URL": f"{served.url}/v1",
            "OPENAI_API_KEY": buyer.key,
            "HERD_URL": served.url,
            "HERD_API_KEY": buyer.key,
        },
    }
    return True


def _told(document: dict[str, Any]) -> str:
    count, join = len(document["workers"]), document["join"]
    environment = " \\\n    ".join(f"{k}={shlex.quote(v)}" for k, v in join["environment"].items())
    lines = [
        "",
        f"The herd is up: {count} worker{'' if count == 1 else 's'} with {document['slots']} slots"
        f" in all, model {document['model']}. Ctrl-C stops it.",
        "",
        *_told_of_gateway(document),
        "To submit, in another terminal:",
        f"    export HERD_HOME={shlex.quote(document['home'])}",
    ]
    if document["available"] <= 0:
        lines.append(f"    herd account deposit {document['account']} 1000")
    lines += [
        '    herd submit "What is the meaning of life?" -n 20',
        "",
        "For one more worker, in another terminal:",
        f"    {environment} \\\n    {join['command']}",
        "",
    ]
    return "\n".join(lines)


def _told_of_gateway(document: dict[str, Any]) -> list[str]:
    """Return the lines that say how the gateway is used, if there is one."""
    if "gateway" not in document:
        return []
    env = {name: shlex.quote(value) for name, value in document["gateway"]["environment"].items()}
    exports = [
        f"    export {prefix}={env[prefix]} {key}={env[key]}"
        for prefix, key in (("OPENAI_BASE_URL", "OPENAI_API_KEY"), ("HERD_URL", "HERD_API_KEY"))
    ]
    money = "play money" if document["gateway"]["deposited"] else "money"
    return [
        f"To buy over HTTP, with the {money} of account {document['account']}"
        f" ({document['available']} winston); the key is not shown again:",
        "  programs written for OpenAI's API:",
        exports[0],
        "  the library and the herd command:",
        exports[1],
        "",
    ]


def line_printer(names: Sequence[str], output: Any, *, colour: bool) -> Show:
    """Return a printer of lines with time and name, coloured on a terminal.

    Args:
        names: whose lines will come; they share a width, and each has a colour.
        output: a text stream.
        colour: False for none, whatever the stream is.
    """
    colours = dict(zip(names, get_colours(), strict=False))
    printer = Printer(output, width=max(map(len, names)), colour=colour)

    def show(name: str, line: str) -> None:
        now = datetime.datetime.now()  # noqa: DTZ005  (for the person before the screen)
        printer.write(Message("line", line, now, name, colours.get(name)))

    return show
