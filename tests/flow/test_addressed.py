"""A wrongly started worker beside a good one: it is seen, named and left out."""

from __future__ import annotations

import pytest

from herder.store import herd as herd_sql
from tests.support.wait import wait_for
from workers.wire import worker_queue

pytestmark = pytest.mark.both_brokers

IDLE = ("-A", "tests.support.idle_worker", "worker", "-Q", "inference")


def known(herd, child):
    with herd.database.read() as connection:
        return next(one for one in herd_sql.all_workers(connection) if one.name == child.name)


def listed(herd):
    """What `herd worker list` says."""
    command = herd.start("list", ["worker", "list"], ("-c", "from herder.cli import main; main()"))
    assert command.ended() == 0
    return command.log


def test_a_worker_on_another_broker_is_named_and_gets_nothing(herd, redis_server):
    elsewhere = redis_server.url.rsplit("/", 1)[0] + "/7"
    lost = herd.begin_worker(HERD_BROKER_URL=elsewhere, HERD_SLOTS="16")
    wait_for(lambda: herd.worker_state(lost) == "unreached", "it beats, and no message reaches it")
    good = herd.start_worker()
    orders = [herd.submit(f"Number {number}", 5) for number in range(8)]
    assert {order.result(timeout=60).receipt.worker for order in orders} == {good.name}
    wait_for(lambda: "worker_unreached" in herd.logs, "the herder names it")
    assert f"No message has reached {lost.name}" in listed(herd)
    receipts = [order.receipt() for order in orders]
    assert {one.attempts for one in receipts} == {1}
    assert "lapsed" not in herd.logs


def test_a_worker_that_takes_messages_and_does_nothing_delays_one_order(herd):
    idle = herd.begin_worker(command=IDLE, HERD_SLOTS="16")
    wait_for(lambda: herd.worker_state(idle) == "alive", "it joins, and answers its hello")
    good = herd.start_worker()
    orders = [herd.submit(f"Number {number}", 5) for number in range(12)]
    assert {order.result(timeout=60).receipt.worker for order in orders} == {good.name}
    assert herd.logs.count("lapsed ") == 1, "it was trusted with one order"
    assert herd.logs.count("worker_doubted") == 1
    assert f"{idle.name} did not claim" in listed(herd) or known(herd, idle).reached


def test_a_worker_returns_after_its_queue_was_lost(herd, broker, redis_server):
    """RabbitMQ's queue is deleted under it; Redis forgets everything."""
    worker = herd.start_worker()
    assert herd.submit().result(timeout=60).receipt.worker == worker.name
    queue = worker_queue(known(herd, worker).instance)
    if broker is None:
        redis_server.client().flushall()
    else:
        with broker.channel("herd") as channel:
            channel.queue_delete(queue)
    orders = [herd.submit(f"Number {number}", 5) for number in range(6)]
    assert {order.result(timeout=60).receipt.worker for order in orders} == {worker.name}


def test_a_worker_that_is_gone_leaves_no_queue_that_stays(herd, broker, redis_server):
    worker = herd.start_worker()
    instance = known(herd, worker).instance
    worker.kill()
    orders = [herd.submit(f"Number {number}", 5) for number in range(3)]
    wait_for(lambda: known(herd, worker).state == "lost", "it is missed")
    other = herd.start_worker()
    assert {order.result(timeout=60).receipt.worker for order in orders} == {other.name}
    name = worker_queue(instance)
    if broker is None:
        left_s = redis_server.client().ttl(name)
        assert left_s == -2 or 0 < left_s <= 600
    else:
        policy = broker.ctl("list_queues", "name", "arguments")
        (line,) = [one for one in policy.splitlines() if one.startswith(name)]
        assert "x-expires" in line
        assert "600000" in line
