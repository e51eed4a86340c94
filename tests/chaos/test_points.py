"""Death at each commit and each publication, on both sides of each, while others go on."""

from __future__ import annotations

import signal
import time

import pytest

from tests.chaos.calling import Calls
from tests.chaos.points import REACH_S, both
from tests.chaos.servers import WAYS
from tests.support.wait import wait_for

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(3 * REACH_S)]

HERDERS = [
    *both("Dispatcher._take", "dispatch sends"),
    *both("Settlement.settle", "settle tells", "settle announces"),
    *both("HeartbeatProcessor.hear", "Settlement.lapse", "Cancellation.sweep"),
    "Dispatcher._take/after/TERM",
    "dispatch sends/after/TERM",
    *both("Settlement.settle", how="TERM"),
]
WORKERS = [
    *both("worker says Claim", "worker answers"),
    "worker says Claim/after/TERM",
    "worker answers/before/TERM",
]
CLIENTS = [
    *both("OrderIntake.submit", "submit nudges"),
    *both("OrderIntake.rebid", "Messages.send"),
    *both("Cancellation._settle", "cancel tells", "cancel announces", "cancel nudges"),
]

KILL_EACH_S = 4.0


@pytest.mark.parametrize("servers", WAYS, indirect=True)
def test_nothing_is_lost_wherever_a_process_dies(servers, make_world, judged):
    world = make_world(servers)
    herders, workers = world.points(*HERDERS), world.points(*WORKERS)
    for name in ("herder1", "herder2", "herder3"):
        world.herder(name, herders)
    world.worker("worker1", workers)
    victim = world.worker("worker2", workers)
    for _ in range(2):
        world.client()
    calls = Calls(world, world.points(*CLIENTS))
    calls.die_at_all()
    killed_s = 0.0

    def all_reached():
        nonlocal killed_s
        world.check()
        # Attempts only lapse when their worker is lost.
        lapses = any("lapse" in place for place in herders.left)
        if lapses and time.monotonic() > killed_s + KILL_EACH_S:
            killed_s = time.monotonic()
            victim.send(signal.SIGKILL)
        return not herders.left and not workers.left

    try:
        wait_for(all_reached, "each point is reached", REACH_S)
    finally:
        print(f"never reached: {herders.left + workers.left}")
    ends = judged(world)
    assert ends["completed"] > 20
    assert calls.deaths == len(CLIENTS)
