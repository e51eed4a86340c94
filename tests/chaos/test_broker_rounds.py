"""Twenty rounds of a RabbitMQ that closes connections, loses its queues and is killed.

`CHAOS_BROKER_ROUNDS` says how many; `make chaos` does. The figures are printed. In `make test`
`tests/flow/test_broker_rounds.py` does a few, with more patience.
"""

from __future__ import annotations

import os
from statistics import median

import pytest

from tests.support.broker_rounds import TROUBLES, suffer
from tests.support.running import RunningHerd

ROUNDS = int(os.environ.get("CHAOS_BROKER_ROUNDS", "0"))

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.skipif(ROUNDS == 0, reason="`make chaos` runs it: it takes many minutes"),
    pytest.mark.timeout(3600),
]

WORKERS = 2
SLOTS = 4
IDLE_S = 5
"""How long orders may wait with no start or end of any once the broker is back."""


@pytest.fixture
def herd(tmp_path, own_redis, own_rabbit, clean_environment):
    made = RunningHerd(
        tmp_path / "herd",
        own_redis,
        HERD_BROKER_URL=own_rabbit.url(),
        HERD_CLAIM_S="2",
        HERD_LEASE_S="30",
    )
    yield made
    made.close()
    made.check()
    print(made.logs[-20_000:])


def test_orders_go_on_within_five_seconds_of_each_return(herd, own_rabbit, capsys):
    herd.start_herder()
    for _ in range(WORKERS):
        herd.start_worker(HERD_SLOTS=str(SLOTS), HERD_STUB_STEP_MS="50")
    slots = WORKERS * SLOTS
    idle: dict[str, list[float]] = {trouble: [] for trouble in TROUBLES}
    for _ in range(ROUNDS):
        for trouble in TROUBLES:
            idle_s, orders = suffer(
                herd, own_rabbit, trouble, slots=slots, count=5 * slots, tokens=30
            )
            idle[trouble].append(idle_s)
            assert {order.status() for order in orders} == {"completed"}
    with capsys.disabled():
        for trouble, each in idle.items():
            print(
                f"\nafter {trouble}, {len(each)} times: orders waited without a step of any for "
                f"{median(each):.2f} s in the median, {max(each):.2f} s at most",
                end="",
            )
    assert max(max(each) for each in idle.values()) < IDLE_S
    assert "Couldn't ack" not in herd.logs
