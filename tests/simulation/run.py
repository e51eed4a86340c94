"""Runs seeds: one, or many in two processes."""

from __future__ import annotations

import hashlib
import multiprocessing
import time as real_time
import traceback
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field

from tests.simulation.clockwork import Broken
from tests.simulation.herder import Parts
from tests.simulation.world import World, quiet

ORDERS = 200
PROCESSES = 2


@dataclass(frozen=True)
class Report:
    """What came of a seed.

    Attributes:
        orders: that were accepted; ended: how many ended in each state.
        events: steps that were taken.
        commits: transactions that changed something, each judged.
        simulated_s: how long it took in there.
        took_s: how long it took out here.
        digest: of the history: the same seed has the same.
        tally: how often each kind of `tally.KINDS` occurred.
        rule: that was broken, or None.
        what: broke it.
        history: only where a rule was broken, or it was asked for.
    """

    seed: int
    orders: int
    ended: dict[str, int]
    events: int
    commits: int
    simulated_s: float
    took_s: float
    digest: str
    tally: dict[str, int]
    rule: str | None = None
    what: str = ""
    history: list[str] = field(default_factory=list)


def run_seed(
    seed: int,
    orders: int = ORDERS,
    *,
    parts: Parts | None = None,
    prepare: Callable[[World], None] | None = None,
    history: bool = False,
) -> Report:
    """Run a seed to its end, or to the first rule that breaks.

    Args:
        seed: decides everything.
        orders: how many clients ask for.
        parts: the herder's classes, with a planted fault perhaps.
        prepare: is given the world before anything happens in it.
        history: whether to give it back even if all went well.
    """
    began_s = real_time.perf_counter()
    world = World(seed, orders, parts or Parts())
    if prepare is not None:
        prepare(world)
    time = world.time
    broken: Broken | None = None
    with quiet(time):
        try:
            world.run()
        except Broken as error:
            broken = error
        except Exception as error:  # noqa: BLE001 (told with the seed that it needs)
            where = traceback.format_exc(limit=-4)
            broken = Broken("unexpected", f"{error!r}\n{where}")
        finally:
            world.database.close()
    if broken is not None:
        time.note(f"BROKEN {broken}")
    lines = time.lines()
    ended: dict[str, int] = {}
    for row in world.shadow.by_seq.values():
        ended[row.state] = ended.get(row.state, 0) + 1
    return Report(
        seed=seed,
        orders=len(world.shadow.by_seq),
        ended=dict(sorted(ended.items())),
        events=time.steps,
        commits=world.shadow.commits,
        simulated_s=time.clock_s(),
        took_s=real_time.perf_counter() - began_s,
        digest=hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16],
        tally=dict(time.tally),
        rule=broken.rule if broken else None,
        what=broken.what if broken else "",
        history=lines if history or broken else [],
    )


def run_many(
    seeds: Iterable[int], orders: int = ORDERS, *, history: bool = False
) -> Iterator[Report]:
    """Run seeds in two processes; reports come as they are done."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(PROCESSES, mp_context=context) as pool:
        waiting: set[Future[Report]] = {
            pool.submit(run_seed, seed, orders, history=history) for seed in seeds
        }
        try:
            for done in as_completed(waiting):
                yield done.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def again(report: Report, orders: int) -> str:
    """The command that runs a seed again."""
    return f"python -m tests.simulation {report.seed} --orders {orders} --history"


def tell(report: Report, orders: int, say: Callable[[str], None], most: int = 400) -> None:
    """A seed that failed: its history, what broke, and how to run it again."""
    left_out = len(report.history) - most
    if left_out > 0:
        say(f"... {left_out} lines before")
    for line in report.history[-most:]:
        say(line)
    say(f"seed {report.seed} broke {report.rule}: {report.what}")
    say(f"again: {again(report, orders)}")
