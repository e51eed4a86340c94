"""A RabbitMQ that closes connections, loses queues or is killed while orders run.

The long version, with its figures, is `tests/chaos/test_broker_rounds.py`.
"""

from __future__ import annotations

import pytest

from tests.support.broker_rounds import TROUBLES, suffer
from tests.support.rabbit_server import RabbitServer, require_rabbit

ROUNDS = 2
WORKERS = 2
SLOTS = 4

IDLE_S = 20
"""The long version wants 5 s; a worker that waited for an answer which never came took 90 s."""


@pytest.fixture
def own_rabbit(tmp_path):
    require_rabbit()
    server = RabbitServer(tmp_path / "rabbit")
    yield server
    server.close()


def test_orders_go_on_after_each_trouble_of_the_broker(make_herd, own_rabbit):
    herd = make_herd(HERD_BROKER_URL=own_rabbit.url(), HERD_CLAIM_S="2", HERD_LEASE_S="30")
    herd.start_herder()
    for _ in range(WORKERS):
        herd.start_worker(HERD_SLOTS=str(SLOTS), HERD_STUB_STEP_MS="50")
    for _ in range(ROUNDS):
        for trouble in TROUBLES:
            slots = WORKERS * SLOTS
            idle_s, orders = suffer(
                herd, own_rabbit, trouble, slots=slots, count=5 * slots, tokens=30
            )
            assert idle_s < IDLE_S, trouble
            assert {order.status() for order in orders} == {"completed"}
    assert "Couldn't ack" not in herd.logs
    assert "Couldn't reject" not in herd.logs
