"""`python -m tests.simulation 1..300`: run seeds, and say how fast, and what broke."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict

from tests.simulation.run import ORDERS, Report, run_many, run_seed, tell


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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; 1 if a rule broke."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("seeds", type=parse_seeds, help="A..B, or one seed")
    parser.add_argument("--orders", type=int, default=ORDERS, help="orders of each seed")
    parser.add_argument("--json", action="store_true", help="a summary as JSON, and nothing else")
    parser.add_argument("--history", action="store_true", help="show the whole history")
    given = parser.parse_args(arguments)
    began_s = time.perf_counter()
    told_s = began_s
    reports: list[Report] = []
    seeds: range = given.seeds
    several = len(seeds) > 1
    runs = (
        run_many(seeds, given.orders, history=given.history)
        if several
        else iter([run_seed(seeds[0], given.orders, history=given.history)])
    )
    for report in runs:
        reports.append(report)
        if given.json:
            continue
        if report.rule is not None:
            tell(report, given.orders, print, most=10**6 if given.history else 200)
        elif given.history:
            print("\n".join(report.history))
        if several and time.perf_counter() - told_s > 5:
            told_s = time.perf_counter()
            print(_line(reports, len(seeds), told_s - began_s), flush=True)
    took_s = time.perf_counter() - began_s
    if given.json:
        print(json.dumps(_summary(reports, given.orders, took_s), indent=1))
    else:
        print(_line(reports, len(seeds), took_s))
        ended = _ended(reports)
        print("ended: " + ", ".join(f"{state} {count}" for state, count in ended.items()))
    return int(any(report.rule is not None for report in reports))


def _ended(reports: Sequence[Report]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for report in reports:
        total.update(report.ended)
    return dict(sorted(total.items()))


def _line(reports: Sequence[Report], seeds: int, took_s: float) -> str:
    failed = [report.seed for report in reports if report.rule is not None]
    events = sum(report.events for report in reports)
    commits = sum(report.commits for report in reports)
    return (
        f"{len(reports)} of {seeds} seeds, {len(failed)} failed{f' {failed}' if failed else ''}; "
        f"{len(reports) / took_s:.2f} seeds/s, {events / took_s:.0f} events/s, "
        f"{commits / took_s:.0f} commits judged/s, {took_s:.0f} s"
    )


def _summary(reports: Sequence[Report], orders: int, took_s: float) -> dict[str, object]:
    events = sum(report.events for report in reports)
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
        "failed": [
            {key: value for key, value in asdict(report).items() if key != "history"}
            for report in sorted(reports, key=lambda one: one.seed)
            if report.rule is not None
        ],
    }


if __name__ == "__main__":
    sys.exit(main())
