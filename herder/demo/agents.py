"""`herd demo agents`: a herd, a gateway and a room, and the programs of `herder/examples` in it.

As `herd demo`, it touches no herd that you have, and leaves nothing behind.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import httpx

from herder.demo.agents_story import (
    BOTS,
    CHANCE,
    DEPOSITS,
    GRADE_S,
    GUEST,
    LINES,
    PRICE,
    SEEDS,
    SPEECH_S,
    Gathering,
    Shown,
    counts_in,
    troubles,
)
from herder.demo.run import (
    CONTEXT,
    DemoFailed,
    Stopped,
    forget_settings,
    running,
    signals_raise,
    temporary_home,
)
from herder.examples.room.client import Room
from herder.host.bundled import embedded_model
from herder.host.programs import make_plan
from herder.host.supervisor import Program, Supervisor
from herder.host.up import only_one, wait_ready
from herder.local.local_herd import LocalHerd
from herder.types import NamedBalance, Receipt

START_S = 60.0
END_S = 60.0
_HERD = (sys.executable, "-P", "-c", "from herder.cli import main; main()")


def demo_agents(seconds: int, shown: Shown) -> int:
    """Run it from end to end.

    Args:
        seconds: how long the programs run.
        shown: shows it.

    Returns:
        0 if all went well and the books balance; 1 if not; 128 + n when signal n stopped it.

    Raises:
        HerdError: it cannot start; the sentence says what to do.
    """
    model = embedded_model()
    forget_settings()
    gathering = Gathering(seconds=seconds)
    try:
        with signals_raise(), temporary_home() as folder:
            with only_one(folder):
                shown.starting(seconds)
                os.environ.update(
                    HERD_MODEL_PATH=str(model), HERD_CONTEXT=str(CONTEXT), HERD_GRACE_S="1"
                )
                _play(folder, gathering, shown)
            shown.finished(gathering)
    except Stopped as stopped:
        shown.interrupted()
        return stopped.exit_code
    except DemoFailed:
        return 1
    return 1 if gathering.trouble else 0


def _play(folder: Path, gathering: Gathering, shown: Shown) -> None:
    plan = make_plan(1, folder)
    env = {**os.environ, "HERD_HOME": str(folder), "PYTHONUNBUFFERED": "1"}
    gateway, room = _free_port(), _free_port()
    services = [
        Program(name, [*_HERD, name, "--port", str(port)], env, 15)
        for name, port in (("gateway", gateway), ("room", room))
    ]
    urls = [f"http://127.0.0.1:{port}" for port in (gateway, room)]
    with running(replace(plan, stages=[*plan.stages, services]), shown) as (_, supervisor):
        herd = LocalHerd(plan.settings)
        try:
            if not wait_ready(herd, supervisor, plan.workers, since_us=0):
                raise DemoFailed(supervisor.failure or "The herd ended before it was ready.")
            _wait(
                supervisor,
                lambda: all(map(_answers, urls)),
                START_S,
                "The gateway or the room did not answer",
            )
            gathering.model = herd.info().default_model
            keys = _open_accounts(herd)
            gathering.before = _balances(herd)
            shown.opened(gathering)
            with _programs(env, urls, keys, gathering, shown) as programs:
                _chat(urls[1], supervisor, programs, gathering, shown)
            _wait(supervisor, lambda: _ended(herd), END_S, "Not every order ended")
            _gather(herd, gathering)
        finally:
            herd.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz", timeout=5).is_success
    except httpx.TransportError:
        return False


def _wait(supervisor: Supervisor, done: Callable[[], bool], limit_s: float, what: str) -> None:
    until_s = time.monotonic() + limit_s
    while not done():
        if supervisor.stopping:
            raise DemoFailed(supervisor.failure or "The herd ended too early.")
        if time.monotonic() > until_s:
            raise DemoFailed(f"{what} within {limit_s:g} s.")
        time.sleep(0.1)


def _open_accounts(herd: LocalHerd) -> dict[str, str]:
    """Return the accounts, filled; API keys for those that buy."""
    keys = {}
    for account, amount in DEPOSITS.items():
        herd.accounts.create(account)
        if amount:
            herd.accounts.deposit(account, amount, str(uuid4()), "for the demo")
            _, keys[account] = herd.api_keys.create(account)
    return keys


def _balances(herd: LocalHerd) -> list[NamedBalance]:
    return [herd.accounts.balance(account) for account in DEPOSITS]


@contextmanager
def _programs(
    env: dict[str, str],
    urls: list[str],
    keys: dict[str, str],
    gathering: Gathering,
    shown: Shown,
) -> Iterator[Supervisor]:
    """Run the programs, as a person would type them, until the block ends."""
    at_room = ["--room-url", urls[1]]
    typed = {
        "agent": ("agent", "sentiment", [*at_room, "--every", str(GRADE_S), "--price", str(PRICE)])
    } | {
        name: (
            "bots",
            "chatbot",
            [
                *(*at_room, "--name", name, "--character", character),
                *("--chance", str(CHANCE), "--seed", str(SEEDS[name])),
            ],
        )
        for name, character in BOTS.items()
    }
    programs = [
        Program(
            name,
            [sys.executable, "-P", "-m", f"herder.examples.{program}", *arguments],
            {**env, "HERD_URL": urls[0], "HERD_API_KEY": keys[account]},
        )
        for name, (account, program, arguments) in typed.items()
    ]

    def show(name: str, line: str) -> None:
        if name == "herd":
            return
        gathering.lines.append((name, line))
        if name == "agent":
            shown.told(name, line)

    supervisor = Supervisor([programs], show)
    thread = threading.Thread(target=supervisor.run, name="programs")
    thread.start()
    try:
        yield supervisor
    finally:
        supervisor.stop()
        thread.join()
    if supervisor.failure is not None:
        raise DemoFailed(supervisor.failure)


def _chat(
    url: str, herd: Supervisor, programs: Supervisor, gathering: Gathering, shown: Shown
) -> None:
    """Let the guest speak now and then, and hear everything, while the time lasts."""
    with Room(url) as room:
        # Only who is there hears.
        _wait(
            herd,
            lambda: programs.stopping or _here(url) >= set(BOTS),
            START_S,
            "The chatbots did not join",
        )
        room.join(GUEST)
        began_s, spoken, heard = time.monotonic(), 0, 0
        while (passed_s := time.monotonic() - began_s) < gathering.seconds:
            if herd.stopping or programs.stopping:
                return  # why, is told by whoever keeps them running
            if passed_s >= spoken * SPEECH_S:
                room.say(LINES[spoken % len(LINES)])
                spoken += 1
            for said in room.last(100):
                if said.id > heard:
                    heard = said.id
                    gathering.said.append(said)
                    shown.said(said)
            time.sleep(0.2)


def _here(url: str) -> set[str]:
    return set(httpx.get(f"{url}/v1/rooms/lobby/members", timeout=10).json()["members"])


def _ended(herd: LocalHerd) -> bool:
    return all(balance.held == 0 for balance in _balances(herd))


def _gather(herd: LocalHerd, gathering: Gathering) -> None:
    """Gather what was paid and bought by the herd's own books, and what is wrong."""
    gathering.after = _balances(herd)
    gathering.audit = herd.accounts.audit()
    counted = [line for name, line in gathering.lines if name == "agent" and "requests=" in line]
    gathering.counts = counts_in(counted[-1]) if counted else {}
    for account in ("bots", "agent"):
        orders = _orders(herd, account)
        gathering.orders[account] = sum(one.state == "completed" for one in orders)
        gathering.charged[account] = sum(one.charged for one in orders)
    gathering.trouble += troubles(gathering)


def _orders(herd: LocalHerd, account: str) -> list[Receipt]:
    """Return all orders of an account, the newest first."""
    found: list[Receipt] = []
    while page := herd.orders(account=account, before=found[-1].order if found else None):
        found += page
    return found
