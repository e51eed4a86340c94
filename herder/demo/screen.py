"""The output of `herd demo`: for people in 80 columns, or one JSON document."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn
from rich.status import Status
from rich.table import Table
from rich.text import Text

from herder.demo.story import FIRST, SLOTS, WAITING, WORKERS, Placed, Story
from herder.store.herd import Worker

WIDTH = 80
INDENT = 9


class People:
    """Shows the demo to people."""

    def __init__(self, console: Console | None = None) -> None:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")  # whatever a model says, in any locale
        self._console = console or Console(highlight=False)
        self._console.width = min(WIDTH, self._console.width)
        self._status: Status | None = None
        self._progress: Progress | None = None
        self._answered = 0

    def starting(self, model: Path) -> None:
        """Show that the processes are starting."""
        self._console.rule("[bold]Llama Herder: a demo")
        self._say(
            f"A herd of {WORKERS} workers on this machine: both decode {SLOTS} orders at once, "
            f"clients pay in winston, and the best-paid prompt runs first. It is temporary; "
            f"nothing of it stays."
        )
        size_mb = model.stat().st_size // 10**6
        self._head("Starting")
        self._say(f"Redis, a herder, and {WORKERS} workers that load {model.stem} ({size_mb} MB).")
        self._wait("Loading the model, twice …")

    def joined(self, worker: Worker) -> None:
        """Show a worker that has its model and is known to the herder."""
        self._say(
            f"[green]✓[/] {worker.name} joined: {worker.slots} slots, "
            f"{worker.tokens_per_s} tokens/s each"
        )

    def opened(self, story: Story) -> None:
        """Show the accounts."""
        self._done()
        self._say(f"Ready after {_seconds(story.ready_ms)}.")
        self._head("Accounts")
        for balance in story.before:
            self._say(f"{balance.account:<6} deposits {balance.posted} winston")
        self._head(f"Orders: {len(FIRST)} to fill all slots, then {len(WAITING)} that must wait")
        self._say(
            "An order needs 1 winston, and 1 for each word and each token; the fee offered, "
            "divided by that, is its multiplier (x). The first have the automatic fee."
        )
        self._console.print()
        self._say(f"[dim]{'#':>2}  {'client':<6} {'needs':>5} {'offers':>6} {'x':>5}  prompt[/]")

    def submitted(self, placed: Placed) -> None:
        """Show an order that was accepted."""
        receipt = placed.receipt
        line = Text.assemble(
            f"{placed.number:>2}  {receipt.account:<6} {receipt.needed:>5} {receipt.fee:>6} ",
            (f"{_times(receipt.multiplier):>5}", "bold"),
            f"  {placed.ask.prompt}",
        )
        line.truncate(self._console.width, overflow="ellipsis")
        self._console.print(line)

    def progress(self, story: Story) -> None:
        """Show the progress; called repeatedly while orders run."""
        if not self._console.is_terminal:
            return
        if self._progress is None:
            self._progress = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                console=self._console,
                transient=True,
            )
            self._progress.add_task("", total=len(story.orders))
            self._progress.start()
        states = [placed.receipt.state for placed in story.orders]
        done = sum(placed.ended for placed in story.orders)
        waiting = states.count("queued")
        self._progress.update(
            self._progress.task_ids[0],
            completed=done,
            description=f"{len(states) - done - waiting} running, {waiting} waiting",
        )

    def answered(self, placed: Placed, story: Story) -> None:
        """Show an order that ended."""
        self._answered += 1
        if self._answered == 1:
            self._head("Answers, as they end")
        receipt = placed.receipt
        mark = ("✓", "green") if receipt.state == "completed" else ("✗", "bold red")
        self._console.print(
            Text.assemble(
                mark,
                f" {self._answered:>2}/{len(story.orders)}  #{placed.number} ",
                (f"x{_times(receipt.multiplier)}", "bold"),
                f" {receipt.account} on {receipt.worker}: {placed.ask.prompt}",
            ),
            overflow="ellipsis",
            no_wrap=True,
        )
        words = " ".join(placed.text.split()) or receipt.state
        # A model may say anything; a terminal gets no control characters.
        answer = Text("".join(filter(str.isprintable, words)), "cyan")
        width = self._console.width - INDENT
        answer.truncate(2 * width - 10, overflow="ellipsis")
        for line in answer.wrap(self._console, width):
            self._console.print(Text(" " * INDENT).append_text(line))

    def finished(self, story: Story) -> None:
        """Everything is known: receipts, order of service, balances, audit."""
        self._done()
        self._receipts(story)
        self._service(story)
        self._balances(story)
        self._audit(story)
        self._console.print()
        for line in story.trouble:
            self._console.print(Text(line, "bold red"))
        if story.trouble:
            return
        self._console.print(
            "[bold green]All orders completed, and the books balance.[/] "
            f"It took {_seconds(story.took_ms)}."
        )
        self._say(
            "Next: [bold]herd up[/] starts a herd that stays, and says how to submit to it; "
            "README.md has the tour, and the same in Python: from herder import submit"
        )

    def failed(self, reason: str, tail: list[str]) -> None:
        """Show why it did not get that far, and what the processes said last."""
        self._done()
        for line in tail:
            self._console.print(Text(line, "dim"))
        self._console.print(Text(f"The demo failed: {reason}", "bold red"))

    def interrupted(self) -> None:
        """Show that a signal ended it and everything has stopped."""
        self._done()
        self._say("The demo was stopped; nothing of it is left.")

    def stopping(self) -> None:
        """Show that the processes are being stopped."""
        self._done()
        self._wait("Stopping the herd …")

    def close(self) -> None:
        """End the display."""
        self._done()

    # The pieces

    def _receipts(self, story: Story) -> None:
        self._head("Receipts, in winston and seconds")
        table = _table()
        table.add_column("#", justify="right")
        table.add_column("client")
        for title in ("needed", "fee", "x", "words", "tokens", "charged", "returned"):
            table.add_column(title, justify="right")
        table.add_column("worker")
        table.add_column("waited", justify="right")
        table.add_column("took", justify="right")
        for placed in story.orders:
            one = placed.receipt
            table.add_row(
                str(placed.number),
                one.account,
                str(one.needed),
                str(one.fee),
                _times(one.multiplier),
                str(one.words),
                f"{one.generated}/{one.tokens}",
                str(one.charged),
                str(one.returned),
                (one.worker or "-").removeprefix("worker-"),
                _tenths(one.waited_ms),
                _tenths(one.took_ms),
            )
        self._console.print(table)
        self._say("[dim]tokens: generated / asked for; what was not generated is not paid.[/]")

    def _service(self, story: Story) -> None:
        waited = sorted(story.orders[len(FIRST) :], key=lambda placed: placed.served or 0)
        self._head("The queue: served by price")
        self._say("came as    " + " ".join(f"{placed.number:>4}" for placed in _came(waited)))
        self._say("served as  " + " ".join(f"{placed.number:>4}" for placed in waited))
        self._say(
            "at x       " + " ".join(f"{_times(one.receipt.multiplier):>4}" for one in waited)
        )
        exact = all(placed.served == placed.by_price for placed in waited)
        shares = ", ".join(
            f"{worker.name} served {_count(story, worker.name)}" for worker in story.workers
        )
        self._say(
            ("[green]✓[/] Exactly in order of price" if exact else "Nearly in order of price")
            + f"; {shares}."
        )

    def _balances(self, story: Story) -> None:
        self._head("Balances, in winston")
        table = _table()
        table.add_column("account")
        for title in ("before", "charged", "after"):
            table.add_column(title, justify="right")
        for before, after in zip(story.before, story.after, strict=True):
            charged = sum(
                placed.receipt.charged
                for placed in story.orders
                if placed.receipt.account == before.account
            )
            table.add_row(before.account, str(before.posted), str(charged), str(after.posted))
        table.add_row("herd", "0", f"+{story.revenue}", str(story.revenue))
        self._console.print(table)

    def _audit(self, story: Story) -> None:
        audit = story.audit
        assert audit is not None
        self._head("Audit")
        verdict = "[green]✓ clean[/]" if audit.clean else "[bold red]✗ drifts were found[/]"
        self._say(
            f"{verdict}: {audit.transfers} transfers add up in {audit.accounts} accounts; "
            f"{audit.circulating} winston came in from outside, {audit.open_holds} holds are open."
        )

    def _head(self, title: str) -> None:
        self._console.print()
        self._console.print(Text(title, "bold"))

    def _say(self, text: str) -> None:
        self._console.print(text)

    def _wait(self, what: str) -> None:
        if self._console.is_terminal:
            self._status = self._console.status(what)
            self._status.start()

    def _done(self) -> None:
        for live in (self._status, self._progress):
            if live is not None:
                live.stop()
        self._status = self._progress = None


class Machine:
    """Prints one JSON document at the end, and nothing else to standard output."""

    def starting(self, model: Path) -> None:
        """Show nothing."""

    def joined(self, worker: Worker) -> None:
        """Show nothing."""

    def opened(self, story: Story) -> None:
        """Show nothing."""

    def submitted(self, placed: Placed) -> None:
        """Show nothing."""

    def progress(self, story: Story) -> None:
        """Show nothing."""

    def answered(self, placed: Placed, story: Story) -> None:
        """Show nothing."""

    def finished(self, story: Story) -> None:
        """Print the document."""
        _dump(story.to_dict())

    def failed(self, reason: str, tail: list[str]) -> None:
        """Print the document of a failed demo; what the processes said goes to standard error."""
        sys.stderr.write("\n".join([*tail, ""]))
        _dump({"ok": False, "trouble": [reason]})

    def interrupted(self) -> None:
        """Show nothing."""

    def stopping(self) -> None:
        """Show nothing."""

    def close(self) -> None:
        """Show nothing."""


def _dump(document: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def _table() -> Table:
    return Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim")


def _came(orders: list[Placed]) -> list[Placed]:
    return sorted(orders, key=lambda placed: placed.number)


def _count(story: Story, worker: str) -> int:
    return sum(placed.receipt.worker == worker for placed in story.orders)


def _times(multiplier: str) -> str:
    """Return a multiplier to two places, cut and not rounded.

    It is text, and stays exact until here.
    """
    whole, _, rest = multiplier.partition(".")
    rest = rest[:2].rstrip("0")
    return f"{whole}.{rest}" if rest else whole


def _seconds(ms: int) -> str:
    return f"{ms // 1000}.{ms % 1000 // 100} s"


def _tenths(ms: int | None) -> str:
    return "-" if ms is None else f"{ms // 1000}.{ms % 1000 // 100}"
