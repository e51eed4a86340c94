"""Plants faults: runs seeds with them, and tells which rule finds them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tests.simulation.herder import Parts
from tests.simulation.run import run_seed
from tests.simulation.world import World

SEEDS = range(1, 41)
ORDERS = 80


def found(parts: Parts | None = None, prepare: Callable[[World], None] | None = None) -> str:
    """The first rule that breaks."""
    for seed in SEEDS:
        report = run_seed(seed, ORDERS, parts=parts, prepare=prepare)
        if report.rule is not None:
            print(f"seed {seed}, after {report.events} events: {report.rule}: {report.what}")
            return report.rule
    return "none"


def often(**troubles: float) -> Callable[[World], None]:
    """More of the troubles that a fault needs to show, so that few seeds have to be run."""

    def prepare(world: World) -> None:
        world.weather = replace(world.weather, **troubles)

    return prepare
