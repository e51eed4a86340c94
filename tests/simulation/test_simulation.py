"""The herd under a simulated clock, broker and workers: no seed breaks a rule."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from argparse import ArgumentTypeError
from collections.abc import Callable
from dataclasses import asdict
from functools import cache
from pathlib import Path

import pytest

import tests.simulation.__main__ as command
from tests.simulation.__main__ import main, parse_orders, parse_seeds
from tests.simulation.clockwork import Broken
from tests.simulation.run import ORDERS, Report, run_seed, tell
from tests.simulation.tally import KINDS, added, missing
from tests.simulation.world import World

ROOT = Path(__file__).parents[2]
FIXED = (1, 2, 3, 4, 5, 7, 8, 11, 13, 17, 21, 26, 30, 44, 45, 48, 50, 53, 59, 60)
"""Every kind of trouble occurs in three of them or more; `make simulate` runs three hundred."""


@pytest.fixture(scope="session")
def fixed(tmp_path_factory) -> Callable[[int], Report]:
    """Runs one of the fixed seeds; it is the same each time, and all pytest processes share it."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # theirs together

    @cache
    def run(seed: int) -> Report:
        file = folder / f"seed{seed}.json"
        if file.exists():
            return Report(**json.loads(file.read_text()))
        report = run_seed(seed, ORDERS)
        whole = file.with_suffix(f".{os.getpid()}")
        whole.write_text(json.dumps(asdict(report)))
        whole.rename(file)
        return report

    return run


def holds(report: Report) -> None:
    if report.rule is not None:
        tell(report, ORDERS, print)
        pytest.fail(f"seed {report.seed} broke {report.rule}: {report.what}")
    assert sum(report.ended.values()) == report.orders > 0


@pytest.mark.parametrize("seed", FIXED)
def test_the_rules_hold(seed, fixed, clean_environment):
    holds(fixed(seed))


@pytest.mark.parametrize("number", range(5))
def test_the_rules_hold_for_a_fresh_seed(number, clean_environment):
    seed = secrets.randbelow(2**32)
    print(f"seed {seed}")
    holds(run_seed(seed, ORDERS))


@pytest.mark.timeout(1800)  # it runs the seeds whose own tests did not come yet
def test_every_kind_of_trouble_occurs_in_the_fixed_seeds(fixed, clean_environment):
    tally = added(fixed(seed).tally for seed in FIXED)
    assert missing(tally) == []


def test_a_seed_is_the_same_again_whatever_the_hashes_are():
    program = "from tests.simulation.run import run_seed; print(run_seed(7, 60).digest)"
    digests = {run_seed(7, 60).digest}
    for hashes in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": hashes},
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        digests.add(done.stdout.split()[-1])
    assert len(digests) == 1


def breaks_in_the_middle(world: World) -> None:
    """A rule that no herd can keep."""
    committed = world.rules.committed

    def judge() -> None:
        committed()
        if world.shadow.commits == 40:
            raise Broken("patience", "it took 40 commits")

    world.rules.committed = judge


def test_a_seed_that_fails_tells_its_history_and_fails_again_in_the_same_place(clean_environment):
    first, second = (run_seed(3, 30, prepare=breaks_in_the_middle) for _ in range(2))
    assert (first.rule, first.what) == ("patience", "it took 40 commits")
    assert (first.digest, first.events, first.history) == (
        second.digest,
        second.events,
        second.history,
    )
    assert "BROKEN patience: it took 40 commits" in first.history[-1]
    said: list[str] = []
    tell(first, 30, said.append, most=10)
    assert said[0] == f"... {len(first.history) - 10} lines before"
    assert said[1:-2] == first.history[-10:]
    assert said[-1] == "again: python -m tests.simulation 3 --orders 30 --history"


# The command


def test_the_status_says_whether_a_rule_broke(clean_environment, monkeypatch, capsys):
    assert main(["3", "--orders", "5", "--verbose"]) == 0
    out = capsys.readouterr().out
    assert "1 of 1 seeds, 0 failed" in out
    assert all(f"{group}:" in out for group in KINDS)

    def broken(seed: int, orders: int, *, history: bool) -> Report:
        return run_seed(seed, orders, prepare=breaks_in_the_middle, history=history)

    monkeypatch.setattr(command, "run_seed", broken)
    assert main(["3", "--orders", "30"]) == 1
    out = capsys.readouterr().out
    assert "seed 3 broke patience" in out
    assert "again: python -m tests.simulation 3 --orders 30 --history" in out


@pytest.mark.parametrize("asked", [["9..1"], ["x"], [], ["1", "--orders", "0"], ["1", "--fast"]])
def test_a_wrong_command_line_is_refused_with_2(asked, capsys):
    with pytest.raises(SystemExit) as refused:
        main(asked)
    assert refused.value.code == 2
    assert "usage: python -m tests.simulation" in capsys.readouterr().err


def test_the_help_has_an_example(capsys):
    with pytest.raises(SystemExit) as done:
        main(["--help"])
    assert done.value.code == 0
    out = capsys.readouterr().out
    assert "python -m tests.simulation 1..300" in out
    assert "exit status: 0" in out


def test_seeds_are_a_range_or_one():
    assert parse_seeds("3..5") == range(3, 6)
    assert parse_seeds("7") == range(7, 8)
    for text in ("", "5..3", "a..b", "1.."):
        with pytest.raises(ArgumentTypeError):
            parse_seeds(text)
    assert parse_orders("20") == 20
    for text in ("", "0", "-1", "1.5", "9" * 9):
        with pytest.raises(ArgumentTypeError):
            parse_orders(text)
