"""The herd under a simulated clock, broker and workers: no seed breaks a rule."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from argparse import ArgumentTypeError
from pathlib import Path

import pytest

from tests.simulation.__main__ import parse_seeds
from tests.simulation.run import ORDERS, run_seed, tell

ROOT = Path(__file__).parents[2]


def holds(seed: int) -> None:
    report = run_seed(seed, ORDERS)
    if report.rule is not None:
        tell(report, ORDERS, print)
        pytest.fail(f"seed {seed} broke {report.rule}: {report.what}")
    assert sum(report.ended.values()) == report.orders > 0


@pytest.mark.parametrize("seed", range(1, 31))
def test_the_rules_hold(seed, clean_environment):
    holds(seed)


@pytest.mark.parametrize("number", range(10))
def test_the_rules_hold_for_a_fresh_seed(number, clean_environment):
    seed = secrets.randbelow(2**32)
    print(f"seed {seed}")
    holds(seed)


def test_a_seed_is_the_same_again_whatever_the_hashes_are():
    command = "from tests.simulation.run import run_seed; print(run_seed(7, 60).digest)"
    digests = {run_seed(7, 60).digest}
    for hashes in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", command],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": hashes},
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        digests.add(done.stdout.split()[-1])
    assert len(digests) == 1


def test_seeds_are_a_range_or_one():
    assert parse_seeds("3..5") == range(3, 6)
    assert parse_seeds("7") == range(7, 8)
    for text in ("", "5..3", "a..b", "1.."):
        with pytest.raises(ArgumentTypeError):
            parse_seeds(text)
