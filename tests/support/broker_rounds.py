"""Troubles of a RabbitMQ while orders run, and how long slots stand idle after each."""

from __future__ import annotations

import time
from collections.abc import Callable

from sqlalchemy import select

from herder.client import Order
from herder.db.tables import event
from tests.support.rabbit_server import RabbitServer
from tests.support.running import RunningHerd
from tests.support.wait import wait_for
from workers.wire import HERDER_QUEUE, INFERENCE_QUEUE

ENDS = ("completed", "failed", "cancelled", "expired")


def close_connections(server: RabbitServer) -> None:
    """What an operator does with `rabbitmqctl close_all_connections`."""
    server.ctl("close_all_connections", "a test")


def delete_queues(server: RabbitServer) -> None:
    """The queues of workers and herders are deleted under them, with what waits there."""
    names = server.ctl("-q", "list_queues", "name", "--no-table-headers").split()
    with server.channel() as channel:
        for name in names:
            if name.startswith((INFERENCE_QUEUE, HERDER_QUEUE)):
                channel.queue_delete(name)


def kill_server(server: RabbitServer) -> None:
    """SIGKILL, and started again; messages of the transient kind are gone."""
    server.kill()
    server.start()


KILLED = "killed server"
TROUBLES: dict[str, Callable[[RabbitServer], None]] = {
    "closed connections": close_connections,
    "deleted queues": delete_queues,
    KILLED: kill_server,
}


def idle_s(herd: RunningHerd, orders: list[Order], since_us: int) -> float:
    """The longest time after `since_us` in which orders waited and none took a step.

    A step is a start or an end, as the herder wrote it down. Slots that are free and slots whose
    outcome nobody has heard are alike in it; the time that a run takes is in it too.
    """
    waiting = {order.id for order in orders}
    with herd.database.read() as connection:
        steps = connection.execute(
            select(event.c.at_us, event.c.kind, event.c.order_id)
            .where(event.c.order_id.in_(waiting))
            .order_by(event.c.seq)
        ).all()
    longest_us, before_us = 0, since_us
    for at_us, kind, order_id in steps:
        if at_us > since_us and waiting:
            longest_us = max(longest_us, at_us - before_us)
        if kind == "started":
            waiting.discard(order_id)
        elif kind in ("lapsed", "handed_back"):
            waiting.add(order_id)
        elif kind in ENDS:
            waiting.discard(order_id)
        before_us = max(before_us, at_us)
    return longest_us / 1e6


def suffer(
    herd: RunningHerd, server: RabbitServer, trouble: str, *, slots: int, count: int, tokens: int
) -> tuple[float, list[Order]]:
    """One round: orders for some turns of all slots, and the trouble in the midst of them.

    Returns:
        The seconds for which orders waited and none took a step, once the broker was back; and the
        orders, all of which have ended.
    """
    orders = [herd.submit(f"{trouble} {number}", tokens) for number in range(count)]
    wait_for(lambda: sum(order.status() == "running" for order in orders) >= slots, "all slots run")
    since_us = now_us()
    TROUBLES[trouble](server)
    if trouble == KILLED:
        since_us = now_us()  # connections that are closed may return at once
    for order in orders:
        order.result(timeout=180)
    return idle_s(herd, orders, since_us), orders


def now_us() -> int:
    return int(time.time() * 1e6)
