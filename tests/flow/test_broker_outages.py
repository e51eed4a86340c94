"""A broker that dies, forgets, stalls or loses its queues: orders are late, and none is lost.

Redis as broker takes text, beats and control down with it; a RabbitMQ beside it does not.
"""

from __future__ import annotations

import time

import pytest

from herder.store import orders as order_sql
from tests.support.rabbit_server import RabbitServer, require_rabbit
from tests.support.redis_server import RedisServer
from tests.support.wait import wait_for
from workers.wire import HERDER_QUEUE, INFERENCE_QUEUE

SLOW = {"HERD_SLOTS": "1", "HERD_STUB_STEP_MS": "50"}
CLAIM_S = 2
LIMITS = {"HERD_CLAIM_S": str(CLAIM_S), "HERD_MAX_DISPATCHES": "3", "HERD_MAX_ATTEMPTS": "1"}
"""Limits that an outage would use up within seconds, if it counted."""


@pytest.fixture(scope="module")
def own_rabbit(tmp_path_factory):
    """A RabbitMQ that tests may kill; one that looks at each channel's oldest message each second.

    A run may take 4 s there before RabbitMQ takes its message back; the default is 30 minutes.
    """
    require_rabbit()
    server = RabbitServer(
        tmp_path_factory.mktemp("rabbit"),
        erlang="-rabbit channel_tick_interval 1000",
        consumer_timeout=4000,
    )
    yield server
    server.close()


@pytest.fixture
def own_herd(make_herd, own_rabbit):
    """A herd on that RabbitMQ, with a herder."""
    own_rabbit.clear()
    herd = make_herd(HERD_BROKER_URL=own_rabbit.url(), **LIMITS)
    herd.start_herder()
    return herd


@pytest.fixture(params=["redis", "rabbitmq"])
def dying(request, make_herd, tmp_path):
    """A herd with a herder, and its broker, which the test may kill."""
    if request.param == "rabbitmq":
        yield request.getfixturevalue("own_herd"), request.getfixturevalue("own_rabbit")
        return
    server = RedisServer(tmp_path / "redis")
    herd = make_herd(server, **LIMITS)
    herd.start_herder()
    yield herd, server
    herd.close()
    server.kill()


def all_complete(herd, orders):
    """Each once, at its price, by the first worker that began it."""
    results = [order.result(timeout=120) for order in orders]
    assert {result.receipt.state for result in results} == {"completed"}
    with herd.database.read() as connection:
        found = order_sql.get_orders(connection, [order.id for order in orders]).values()
    assert {order.tries for order in found} == {1}
    balance = herd.client.accounts.balance("default")
    charged = sum(receipt.charged for receipt in herd.client.orders(limit=1000))
    assert balance.available == 1_000_000 - charged
    assert balance.held == 0


def forget(server):
    """What stood in it is gone."""
    server.kill()
    if isinstance(server, RabbitServer):
        server.wipe()
    server.start()


def test_a_broker_that_forgets_everything_delays_orders_and_counts_against_none(dying):
    herd, server = dying
    for _ in range(2):
        herd.start_worker(**SLOW)
    orders = [herd.submit(f"Number {number}", 10) for number in range(6)]
    herd.working(orders)
    server.kill()
    # Submission goes on, and does not wait.
    began = time.monotonic()
    orders += [herd.submit(f"Late number {number}", 5) for number in range(4)]
    assert time.monotonic() - began < 30
    time.sleep(4 * CLAIM_S)  # long enough for each limit, if an outage counted
    forget(server)
    orders += [herd.submit(f"After number {number}", 5) for number in range(2)]
    all_complete(herd, orders)
    assert all(child.alive for child in herd.children)


def test_a_rabbitmq_that_is_killed_and_started_again_is_used_as_before(own_herd, own_rabbit):
    own_herd.start_worker(**SLOW)
    orders = [own_herd.submit(f"Number {number}", 10) for number in range(3)]
    own_herd.working(orders)
    own_rabbit.kill()
    own_rabbit.start()
    all_complete(own_herd, orders)
    own_rabbit.kill()  # while nothing goes on
    own_rabbit.start()
    all_complete(own_herd, [own_herd.submit("And again", 5)])


def test_queues_that_somebody_deleted_are_made_anew(own_herd, own_rabbit):
    own_herd.start_worker(**SLOW)
    all_complete(own_herd, [own_herd.submit("Before", 3)])
    for queue in (INFERENCE_QUEUE, HERDER_QUEUE):
        with own_rabbit.channel() as channel:
            channel.queue_delete(queue)
        all_complete(own_herd, [own_herd.submit(f"Without {queue}", 3)])
    own_rabbit.clear()  # both, and their exchanges
    all_complete(own_herd, [own_herd.submit("Without any", 3)])


def outcome_held_up(herd, rabbit):
    """An order that was done after RabbitMQ had ceased to take messages, which it still does.

    `rabbitmqctl` takes as long as it takes: what ended before it had its way is followed by more.
    """
    early = []
    for tokens in (200, 800, 3200):
        order = herd.submit(f"{tokens} tokens", tokens)
        herd.running(order)
        rabbit.ctl("set_vm_memory_high_watermark", "0")
        wait_for(
            lambda order=order: "outcomes_not_sent" in herd.logs or order.status() == "completed",
            "the worker is done",
            300,
        )
        if order.status() == "running":
            return [*early, order]
        early.append(order)
        rabbit.ctl("set_vm_memory_high_watermark", "0.4")
    pytest.fail("rabbitmqctl took longer than each of these orders")


@pytest.mark.timeout(1200)
def test_a_rabbitmq_that_takes_nothing_stops_nobody_and_loses_nothing(make_herd, rabbit_server):
    """Short of memory it reads no messages, and whoever sends must not wait for it."""
    rabbit_server.clear()
    herd = make_herd(HERD_BROKER_URL=rabbit_server.url(), **LIMITS)
    herd.start_herder()
    herd.start_worker(**SLOW)
    try:
        # Its outcome cannot be sent, and its worker goes on to say so.
        orders = outcome_held_up(herd, rabbit_server)
        began = time.monotonic()
        orders += [herd.submit(f"Number {number}", 5) for number in range(5)]
        assert time.monotonic() - began < 30
        assert orders[-6].status() == "running"
    finally:
        rabbit_server.ctl("set_vm_memory_high_watermark", "0.4")
    all_complete(herd, orders)


def test_a_run_that_outlasts_consumer_timeout_completes_once(own_herd, own_rabbit):
    """RabbitMQ closes the channel and gives the message to somebody else: to no effect."""
    first = own_herd.start_worker(**SLOW)
    long = own_herd.submit("A long story", 200)
    own_herd.running(long, first)
    own_herd.start_worker(**SLOW)
    wait_for(lambda: "Connection to broker lost" in first.log, "RabbitMQ closes the channel")
    short = own_herd.submit("A short one", 5)
    all_complete(own_herd, [long, short])
    assert long.receipt().worker == first.name
    assert own_rabbit.waiting(INFERENCE_QUEUE) == 0
