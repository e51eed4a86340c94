"""`herd demo`: a herd of two workers in a temporary home, three clients, and a queue by price.

Nothing of it touches a herd that you have: home, Redis, database and keys are its own, and are
gone when it ends, however it ends.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol
from uuid import uuid4

from herder.demo.story import (
    DEPOSITS,
    FIRST,
    SLOTS,
    WAITING,
    WORKERS,
    Ask,
    Placed,
    Shown,
    Story,
)
from herder.errors import HerdError
from herder.host.bundled import embedded_model
from herder.host.programs import StartPlan, make_plan
from herder.host.supervisor import Supervisor
from herder.host.up import only_one, wait_ready
from herder.local.local_herd import LocalHerd
from herder.store import monitor as monitor_sql
from herder.store.herd import Worker
from herder.types import NamedBalance

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LIMIT_S = 300
POLL_S = 0.05
CONTEXT = 2048


class Failing(Protocol):
    """A display of how a demo ends."""

    def failed(self, reason: str, tail: list[str]) -> None:
        """Show why it cannot continue."""

    def stopping(self) -> None:
        """Show that it is stopping what it started."""


class DemoFailed(Exception):
    """The demo cannot go on; the sentence says why."""


class Stopped(BaseException):
    """Ctrl-C, SIGTERM, or a closed terminal."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.exit_code = 128 + number


def demo(shown: Shown) -> int:
    """Run the demo from end to end.

    Returns:
        0 if every order completed and the audit balances; 1 if not; 128 + n when signal n
        stopped it.

    Raises:
        HerdError: it cannot start; the sentence says what to do.
    """
    model = embedded_model()
    forget_settings()
    story = Story()
    try:
        with signals_raise(), temporary_home() as folder:
            with only_one(folder):
                shown.starting(model)
                os.environ.update(_settings(model))
                with running(make_plan(WORKERS, folder), shown) as (plan, supervisor):
                    _play(plan, supervisor, story, shown)
            shown.finished(story)
    except Stopped as stopped:
        shown.interrupted()
        return stopped.exit_code
    except DemoFailed:
        return 1
    finally:
        shown.close()
    return 1 if story.trouble else 0


def forget_settings() -> None:
    """Take the settings of a herd that you have out of this process's environment."""
    for name in [name for name in os.environ if name.startswith("HERD_")]:
        del os.environ[name]


def _settings(model: Path) -> dict[str, str]:
    return {
        "HERD_MODEL_PATH": str(model),
        "HERD_SLOTS": str(SLOTS),
        "HERD_CONTEXT": str(CONTEXT),
        "HERD_ACCOUNT": next(iter(DEPOSITS)),
        "HERD_GRACE_S": "1",
    }


@contextmanager
def signals_raise() -> Iterator[None]:
    """Let what ends this process end it once, by way of its `finally` clauses."""

    def stop(number: int) -> None:
        _on_signals(lambda _number: None)
        raise Stopped(number)

    before = {number: signal.getsignal(number) for number in SIGNALS}
    _on_signals(stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _on_signals(act: Callable[[int], None]) -> None:
    for number in SIGNALS:
        signal.signal(number, lambda number, _frame: act(number))


@contextmanager
def temporary_home() -> Iterator[Path]:
    """Provide a folder that is deleted at the end of the block."""
    folder = Path(tempfile.mkdtemp(prefix="herd-demo-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def running(plan: StartPlan, shown: Failing) -> Iterator[tuple[StartPlan, Supervisor]]:
    """Keep the herd running beside the block; at its end, and at any failure, stop it."""
    logs = plan.settings.home / "logs"
    logs.mkdir()
    with _log_files(logs, plan.names) as show:
        supervisor = Supervisor(plan.stages, show)
        thread = threading.Thread(target=supervisor.run, name="supervisor")
        thread.start()
        try:
            yield plan, supervisor
        except BaseException as error:
            # Who failed is still alive here, and its log is.
            if isinstance(error, Exception):
                shown.failed(supervisor.failure or str(error), _tail(logs, plan.names))
            supervisor.stop()
            if not isinstance(error, HerdError):
                raise
            raise DemoFailed(str(error)) from error
        finally:
            # From here on Ctrl-C raises nothing, which would leave them running: it hurries.
            _on_signals(lambda _number: supervisor.kill())
            shown.stopping()
            supervisor.stop()
            thread.join()


@contextmanager
def _log_files(folder: Path, names: list[str]) -> Iterator[Callable[[str, str], None]]:
    files = {name: (folder / f"{name}.log").open("w", encoding="utf-8") for name in names}

    def show(name: str, line: str) -> None:
        files[name].write(f"{line}\n")
        files[name].flush()

    try:
        yield show
    finally:
        for file in files.values():
            file.close()


def _tail(folder: Path, names: list[str], lines: int = 5) -> list[str]:
    """Return the last output of each process."""
    told: list[str] = []
    for name in names:
        last = (folder / f"{name}.log").read_text(encoding="utf-8").splitlines()[-lines:]
        told += [f"{name}: {line}" for line in last]
    return told


# The play


def _play(plan: StartPlan, supervisor: Supervisor, story: Story, shown: Shown) -> None:
    began_s = time.monotonic()
    herd = LocalHerd(plan.settings)
    try:

        def on_join(worker: Worker) -> None:
            story.workers.append(worker)
            shown.joined(worker)

        if not wait_ready(herd, supervisor, plan.workers, since_us=0, on_join=on_join):
            raise DemoFailed(supervisor.failure or "The herd ended before it was ready.")
        story.model = herd.info().default_model
        story.ready_ms = _since_ms(began_s)
        _open_accounts(herd)
        story.before = _balances(herd)
        shown.opened(story)
        _submit_all(herd, supervisor, story, shown)
        _await_answers(herd, supervisor, story, shown)
        story.after = _balances(herd)
        story.audit = herd.accounts.audit()
        _place(herd, story)
        _judge(story)
        story.took_ms = _since_ms(began_s)
    finally:
        herd.close()


def _since_ms(began_s: float) -> int:
    return int((time.monotonic() - began_s) * 1000)


def _open_accounts(herd: LocalHerd) -> None:
    for name, amount in DEPOSITS.items():
        if name != herd.settings.account:  # that one was made with the home folder
            herd.accounts.create(name)
        herd.accounts.deposit(name, amount, str(uuid4()), "for the demo")


def _balances(herd: LocalHerd) -> list[NamedBalance]:
    return [herd.accounts.balance(name) for name in DEPOSITS]


def _submit_all(herd: LocalHerd, supervisor: Supervisor, story: Story, shown: Shown) -> None:
    for ask in FIRST:
        _submit(herd, ask, story, shown)
    # Only when every slot is taken does what is submitted next form a queue.
    _wait(herd, supervisor, story, lambda: all(p.receipt.state != "queued" for p in story.orders))
    for ask in WAITING:
        _submit(herd, ask, story, shown)


def _submit(herd: LocalHerd, ask: Ask, story: Story, shown: Shown) -> None:
    fee = None
    if ask.percent is not None:
        needed = herd.quote(ask.prompt, ask.tokens, account=ask.account).needed
        fee = -(-needed * ask.percent // 100)  # rounded up
    receipt = herd.submit(
        ask.prompt, ask.tokens, account=ask.account, fee=fee, sampling={"temperature": 0}
    )
    placed = Placed(len(story.orders) + 1, ask, receipt)
    story.orders.append(placed)
    shown.submitted(placed)


def _await_answers(herd: LocalHerd, supervisor: Supervisor, story: Story, shown: Shown) -> None:
    told: set[int] = set()

    def all_ended() -> bool:
        for placed in sorted(story.orders, key=_end_us):
            if placed.ended and placed.number not in told:
                told.add(placed.number)
                answer = herd.answer(placed.receipt.order)
                placed.text, placed.finish_reason = answer.text, answer.finish_reason
                shown.answered(placed, story)
        shown.progress(story)
        return len(told) == len(story.orders)

    _wait(herd, supervisor, story, all_ended)


def _end_us(placed: Placed) -> int:
    receipt = placed.receipt
    return receipt.submitted_us + ((receipt.waited_ms or 0) + (receipt.took_ms or 0)) * 1000


def _wait(herd: LocalHerd, supervisor: Supervisor, story: Story, done: Callable[[], bool]) -> None:
    """Look at all orders again and again, until something holds."""
    until_s = time.monotonic() + LIMIT_S
    while True:
        now = {receipt.order: receipt for receipt in herd.orders(limit=len(story.orders))}
        for placed in story.orders:
            placed.receipt = now[placed.receipt.order]
        if done():
            return
        if supervisor.stopping:
            raise DemoFailed(supervisor.failure or "The herd ended before the orders did.")
        if time.monotonic() > until_s:
            open_ones = [str(one.number) for one in story.orders if not one.ended]
            raise DemoFailed(f"Orders {', '.join(open_ones)} did not end within {LIMIT_S} s.")
        time.sleep(POLL_S)


def _place(herd: LocalHerd, story: Story) -> None:
    """Give each order its number by dispatch, and by price."""
    with herd.database.read() as connection:
        dispatched = monitor_sql.dispatched(connection, len(story.orders))
    for placed in story.orders:
        placed.served = dispatched.index(placed.receipt.order) + 1
    first = len(FIRST)
    best = sorted(story.orders[first:], key=_price, reverse=True)
    for place, placed in enumerate([*story.orders[:first], *best], start=1):
        placed.by_price = place


def _price(placed: Placed) -> tuple[int, int]:
    """Higher multipliers first; the earlier one of two that are equal."""
    receipt = placed.receipt
    return receipt.fee * 2**40 // receipt.needed, -placed.number


def _judge(story: Story) -> None:
    for placed in story.orders:
        receipt = placed.receipt
        if receipt.state != "completed":
            reason = (receipt.failure or {}).get("message", "")
            story.trouble.append(f"Order {placed.number} {receipt.state}. {reason}".strip())
        elif receipt.charged + receipt.returned != receipt.fee:
            story.trouble.append(f"Order {placed.number}: its receipt does not add up.")
    assert story.audit is not None
    if not story.audit.clean or story.audit.open_holds:
        story.trouble.append("The audit found that the books do not balance.")
