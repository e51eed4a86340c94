"""Run a herd in one process under a simulated clock, broker, Redis and workers, and judge it.

A seed decides all that happens. At each commit and at each message that leaves a herder the rules
of the design are checked; a seed that breaks one prints its history and the command that runs it
again exactly.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from tests.simulation.run import ORDERS, Report, run_many, run_seed, tell
from tests.simulation.tally import added, missing, table

EXAMPLES = """\
examples:
  python -m tests.simulation 1..300             run 300 seeds of 200 orders in two processes
  python -m tests.simulation 1..50 --verbose    and say how often each kind of trouble occurred
  python -m tests.simulation 17 --history       run one seed, and show all that happened in it

exit status: 0 all seeds held, 1 some seed broke a rule, 2 the command line is wrong
"""
MAX_ORDERS = 100_000
TOLD_EVERY_S = 5
SHOWN_EVERY_S = 0.5
"""The same on a terminal, where a line is written over the one before."""
SHOWN = 200
"""Lines of a failed seed's history; all of them with `--history`."""


def parse_seeds(text: str) -> range:
    """`A..B`, both included, or one seed.

    Raises:
        argparse.ArgumentTypeError: it is neither.
    """
    first, dots, last = text.partition("..")
    try:
        start = int(first)
        stop = int(last) if dots else start
    except ValueError:
        raise argparse.ArgumentTypeError("seeds are A..B, such as 1..300, or one number") from None
    if stop < start:
        raise argparse.ArgumentTypeError("the last seed is before the first")
    return range(start, stop + 1)


def parse_orders(text: str) -> int:
    """How many orders a seed has.

    Raises:
        argparse.ArgumentTypeError: it is no number from 1 to `MAX_ORDERS`.
    """
    if not text.isdecimal() or not 1 <= int(text) <= MAX_ORDERS:
        raise argparse.ArgumentTypeError(f"orders are a whole number from 1 to {MAX_ORDERS}")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.simulation",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("seeds", type=parse_seeds, help="A..B, both included, or one seed")
    parser.add_argument(
        "--orders", type=parse_orders, default=ORDERS, help=f"orders of each seed ({ORDERS})"
    )
    parser.add_argument("--json", action="store_true", help="a summary as JSON, and nothing else")
    parser.add_argument("--history", action="store_true", help="show the whole history")
    parser.add_argument(
        "--verbose", action="store_true", help="say how often each kind of trouble occurred"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; 1 if a rule broke."""
    given = _parser().parse_args(arguments)
    began_s = time.perf_counter()
    progress = Progress(len(given.seeds), began_s)
    reports: list[Report] = []
    for report in _run(given.seeds, given.orders, history=given.history):
        reports.append(report)
        if given.json:
            continue
        if report.rule is not None:
            progress.clear()
            tell(report, given.orders, print, most=10**6 if given.history else SHOWN)
        elif given.history:
            progress.clear()
            print("\n".join(report.history))
        progress.show(reports)
    progress.clear()
    took_s = time.perf_counter() - began_s
    if given.json:
        print(json.dumps(_summary(reports, given.orders, took_s), indent=1))
    else:
        print(_line(reports, len(given.seeds), took_s))
        ended = _ended(reports)
        print("ended: " + ", ".join(f"{state} {count}" for state, count in ended.items()))
        if given.verbose:
            print("\n".join(table(added(report.tally for report in reports))))
    return int(any(report.rule is not None for report in reports))


def _run(seeds: range, orders: int, *, history: bool) -> Iterator[Report]:
    if len(seeds) == 1:
        return iter([run_seed(seeds[0], orders, history=history)])
    return run_many(seeds, orders, history=history)


class Progress:
    """How far it is: one line that changes on a terminal, a line now and then elsewhere."""

    def __init__(self, seeds: int, began_s: float) -> None:
        self._seeds = seeds
        self._began_s = began_s
        self._told_s = began_s
        self._terminal = sys.stderr.isatty()
        self._shown = False

    def show(self, reports: Sequence[Report]) -> None:
        """Say it, if it was not said just now."""
        now_s = time.perf_counter()
        every_s = SHOWN_EVERY_S if self._terminal else TOLD_EVERY_S
        if self._seeds == 1 or now_s - self._told_s < every_s:
            return
        self._told_s = now_s
        line = _line(reports, self._seeds, now_s - self._began_s)
        if self._terminal:
            self._shown = True
            print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)
        else:
            print(line, file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Make room for something else."""
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _ended(reports: Sequence[Report]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for report in reports:
        total.update(report.ended)
    return dict(sorted(total.items()))


def _line(reports: Sequence[Report], seeds: int, took_s: float) -> str:
    failed = sorted(report.seed for report in reports if report.rule is not None)
    events = sum(report.events for report in reports)
    commits = sum(report.commits for report in reports)
    return (
        f"{len(reports)} of {seeds} seeds, {len(failed)} failed{f' {failed}' if failed else ''}; "
        f"{len(reports) / took_s:.2f} seeds/s, {events / took_s:.0f} events/s, "
        f"{commits / took_s:.0f} commits judged/s, {took_s:.0f} s"
    )


def _summary(reports: Sequence[Report], orders: int, took_s: float) -> dict[str, object]:
    events = sum(report.events for report in reports)
    tally = added(report.tally for report in reports)
    return {
        "seeds": len(reports),
        "orders_each": orders,
        "orders": sum(report.orders for report in reports),
        "ended": _ended(reports),
        "events": events,
        "commits_judged": sum(report.commits for report in reports),
        "simulated_s": round(sum(report.simulated_s for report in reports)),
        "took_s": round(took_s, 1),
        "seeds_per_s": round(len(reports) / took_s, 3),
        "events_per_s": round(events / took_s),
        "happened": dict(sorted(tally.items())),
        "never_happened": missing(tally),
        "failed": [
            {key: value for key, value in asdict(report).items() if key not in {"history", "tally"}}
            for report in sorted(reports, key=lambda one: one.seed)
            if report.rule is not None
        ],
    }


if __name__ == "__main__":
    sys.exit(main())
