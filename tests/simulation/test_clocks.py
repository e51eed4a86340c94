"""Worlds whose clocks stay wrong: no job is too old by the herder's, and none is refused."""

from __future__ import annotations

from random import Random

import pytest

from tests.simulation.run import Report, run_seed
from tests.simulation.world import World

ORDERS = 30
SEEDS = range(1, 3)
REFUSED = "refuses a job: expired"
MIN_S, MAX_S = 120, 3600


def run(seed: int, *, herders_s: int) -> tuple[Report, int]:
    """A seed with clocks that stay wrong, and how many jobs its workers refused as too old.

    Args:
        seed: decides everything.
        herders_s: by how much the herders' clocks may be wrong.
    """
    rng = Random(f"clocks {seed}")

    def prepare(world: World) -> None:
        skews = {f"h{number}": rng.randint(-herders_s, herders_s) for number in (1, 2, 3)}
        for name in ("w1", "w2", "w3", "w4"):
            skews[name] = rng.choice((-1, 1)) * rng.randint(MIN_S, MAX_S)
        skews_us = {machine: skew_s * 1_000_000 for machine, skew_s in skews.items()}
        world.have_clocks_wrong(skews_us)

    report = run_seed(seed, ORDERS, prepare=prepare, history=True)
    return report, sum(REFUSED in line for line in report.history)


def holds(report: Report) -> None:
    if report.rule is not None:
        print("\n".join(report.history[-100:]))
        pytest.fail(f"seed {report.seed} broke {report.rule}: {report.what}")
    assert sum(report.ended.values()) == report.orders > 0


@pytest.mark.parametrize("seed", SEEDS)
def test_wrong_clocks_of_workers_keep_no_order_from_being_run(seed, clean_environment):
    report, refused = run(seed, herders_s=5)
    holds(report)
    assert "completed" in report.ended
    assert refused == 0


@pytest.mark.parametrize("seed", SEEDS)
def test_herders_whose_clocks_differ_by_minutes_have_their_orders_run(seed, clean_environment):
    report, _ = run(seed, herders_s=300)
    holds(report)
