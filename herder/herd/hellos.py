"""Hellos: a worker's slots count once a message has reached it by the broker.

What a worker says comes by Redis, and what it is to do comes by Celery's broker; neither shows that
the other works. So each worker is sent a hello by the broker, to its own queue, and answers on the
beats' stream. One that left an attempt unclaimed gets no other until a hello came back, and then
one at a time until it claims.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import structlog
from sqlalchemy import Connection

from herder.db.database import Database
from herder.domain.doubt import next_hello_s
from herder.duties.runner import Duty
from herder.store import hellos as hello_sql
from herder.store import herd as herd_sql
from herder.store.hellos import DueHello
from workers.transport.reasons import reason_of
from workers.transport.tasks import NewTask, Publisher
from workers.wire import HELLO_TASK, Hello, PrivateKey, hello_id, seal, worker_queue

_log = structlog.get_logger("herder.herd.hellos")

HELLO = "hello"
"""The name of the duty."""

MAX_HELLOS = 100
"""Hellos that are sent together at most."""

NAMED_AFTER = 2
"""Hellos in vain after which a worker is named; then each time that they have doubled."""


class Greeter:
    """Says hello to workers that have yet to answer."""

    def __init__(
        self,
        database: Database,
        key: PrivateKey,
        publisher: Publisher,
        *,
        clock_us: Callable[[], int],
    ) -> None:
        self._database = database
        self._key = key
        self._publisher = publisher
        self._clock_us = clock_us

    @property
    def duty(self) -> Duty:
        """The duty of a herder that sends the hellos that are due."""
        return Duty(HELLO, self.greet, batch=MAX_HELLOS)

    def greet(self, limit: int) -> bool:
        """Send the hellos that are due; whether there may be more.

        Args:
            limit: hellos at most.
        """
        with self._database.read() as connection:
            due = hello_sql.due_hellos(connection, herd_sql.heard_s(connection), limit)
        if not due:
            return False

        def take(connection: Connection) -> list[DueHello]:
            heard_s = herd_sql.heard_s(connection)
            return [
                one
                for one in due
                if hello_sql.take_hello(connection, one, heard_s + next_hello_s(one.sent + 1))
            ]

        taken = self._database.transact(take)
        if taken and self._send(taken):
            for one in taken:
                if one.sent >= NAMED_AFTER and one.sent & (one.sent - 1) == 0:
                    _log.warning(
                        "worker_unreached", worker=one.name, instance=one.instance, hellos=one.sent
                    )
        return len(due) == limit

    def _send(self, hellos: Sequence[DueHello]) -> bool:
        """Send hellos; False where the broker is away."""
        try:
            self._publisher.publish_many([self._task(one) for one in hellos])
        except OSError as error:
            _log.warning("hellos_not_sent", count=len(hellos), reason=reason_of(error))

            def undo(connection: Connection) -> None:
                # No worker is to blame for a broker that is away.
                heard_s = herd_sql.heard_s(connection)
                for one in hellos:
                    sent = one._replace(sent=one.sent + 1)
                    hello_sql.take_hello(connection, sent, heard_s + 1, now_sent=one.sent)

            self._database.transact(undo)
            return False
        return True

    def _task(self, one: DueHello) -> NewTask:
        queue = worker_queue(one.instance)
        token = seal(
            Hello(number=one.number),
            self._key,
            sender="herder",
            audience=queue,
            now_s=self._clock_us() // 1_000_000,
        )
        task_id = hello_id(one.instance, one.number)
        return NewTask(queue, HELLO_TASK, token, task_id, "hello")
