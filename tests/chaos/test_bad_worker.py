"""A wrongly started worker beside a good one costs little: measured beside the good one alone."""

from __future__ import annotations

import statistics

import pytest

from tests.support.running import WORKER, RunningHerd
from tests.support.wait import wait_for

pytestmark = pytest.mark.chaos

ORDERS = 60
MEDIAN, TAIL = 2.0, 3.0
"""What a bad worker may cost: times the median and the 95th percentile of the good one alone."""

IDLE = ("-A", "tests.support.idle_worker", "worker", "-Q", "inference")
BAD = {
    "takes messages and does nothing": (IDLE, {}, "alive"),
    "is deaf": (IDLE, {"IDLE_DEAF": "1"}, "unreached"),
    "is on another broker": (WORKER, {"HERD_BROKER_URL": "elsewhere"}, "unreached"),
}


def waits_s(herd: RunningHerd) -> list[float]:
    """Seconds from submission to the end of orders that come all at once, sorted."""
    orders = [herd.submit(f"Number {number}", 8) for number in range(ORDERS)]
    receipts = [order.result(timeout=300).receipt for order in orders]
    assert {receipt.state for receipt in receipts} == {"completed"}
    return sorted((one.waited_ms + one.took_ms) / 1000 for one in receipts)


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_worker_costs_at_most_twice_the_median(
    bad, tmp_path, own_redis, clean_environment, record_property
):
    herd = RunningHerd(tmp_path / "herd", own_redis, HERD_STUB_STEP_MS="30", HERD_SLOTS="4")
    try:
        herd.start_herder()
        herd.start_worker()
        waits_s(herd)  # warm
        alone = waits_s(herd)
        command, env, state = BAD[bad]
        elsewhere = own_redis.url.rsplit("/", 1)[0] + "/7"
        env = {name: value.replace("elsewhere", elsewhere) for name, value in env.items()}
        worker = herd.begin_worker(command=command, **env)
        wait_for(lambda: herd.worker_state(worker) == state, f"it is {state}")
        beside = waits_s(herd)
        median = statistics.median(beside) / statistics.median(alone)
        tail = beside[ORDERS * 95 // 100] / alone[ORDERS * 95 // 100]
        told = f"{bad}: median {median:.2f} and 95th {tail:.2f} times those of the good one alone"
        record_property("cost", told)
        print(told)
        assert median <= MEDIAN
        assert tail <= TAIL
        named = "worker_doubted" if state == "alive" else "worker_unreached"
        wait_for(lambda: named in herd.logs, "the herder names it")
        herd.check()
    finally:
        herd.close()
