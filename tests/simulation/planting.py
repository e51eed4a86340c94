"""Plants faults: runs seeds with them, and tells which rule finds them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tests.simulation.herder import Parts
from tests.simulation.run import run_seed
from tests.simulation.world import World

SEEDS = range(1, 41)
ORDERS = 80


class Reached:
    """Counts how often a planted fault did something else than what is right.

    A fault whose code has moved is planted where nobody comes by, and proves nothing.
    """

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> None:
        """Note it; each planted fault does, where it goes wrong."""
        self.times += 1


reached = Reached()


def found(
    parts: Parts | None = None, prepare: Callable[[World], None] | None = None, first: int = 1
) -> str:
    """The first rule that breaks. The planted fault has to have been reached before.

    Args:
        parts: the herder's classes, with the fault perhaps.
        prepare: is given each world before anything happens in it.
        first: the seed to begin with, which found it once; all others follow.
    """
    reached.times = 0
    for seed in dict.fromkeys((first, *SEEDS)):
        report = run_seed(seed, ORDERS, parts=parts, prepare=prepare)
        if report.rule is not None:
            told = f"seed {seed}, after {report.events} events: {report.rule}: {report.what}"
            print(f"{told} (the fault was reached {reached.times} times)")
            assert reached.times > 0, f"it breaks without the planted fault: {told}"
            return report.rule
    assert reached.times > 0, "the planted fault was never reached"
    return "none"


def often(**troubles: float) -> Callable[[World], None]:
    """More of the troubles that a fault needs to show, so that few seeds have to be run."""

    def prepare(world: World) -> None:
        world.weather = replace(world.weather, **troubles)

    return prepare
