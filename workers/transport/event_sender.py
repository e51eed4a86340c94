"""Tells those who watch, Flower, how tasks ended whose workers could tell nobody.

Best effort, and beside all else: who hands something in waits for nothing, a thread of its own
sends it over a connection of its own, and what cannot be sent for long is dropped.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from celery import Celery
from celery.events.event import Event, get_exchange
from celery.utils.time import utcoffset
from kombu.exceptions import OperationalError

from workers.transport.event_log import EventLog
from workers.transport.loops import Loop
from workers.transport.monitoring import node_name
from workers.transport.tasks import LostTask

_log = EventLog("workers.transport.event_sender")

MAX_WAITING = 2000
"""Events that may wait for the broker; the oldest are dropped."""

KEEP_S = 600.0
"""Seconds after which nobody is told any more."""

MAX_AT_ONCE = 100
CONNECT_S = 5
LOOK_S = 60.0
STOP_S = 2.0


class EventSender:
    """Sends Celery's events of tasks on behalf of workers. Safe among threads.

    Args:
        app: whose broker is told.
        enabled: False to send nothing (`HERD_EVENTS`).
        clock_s: the time, in seconds since the epoch.
    """

    def __init__(
        self, app: Celery, *, enabled: bool, clock_s: Callable[[], float] = time.time
    ) -> None:
        self._app = app
        self._enabled = enabled
        self._clock_s = clock_s
        self._waiting: deque[tuple[float, LostTask]] = deque(maxlen=MAX_WAITING)
        connection = app.connection_for_write()
        self._errors: tuple[type[Exception], ...] = (
            *connection.connection_errors,
            *connection.channel_errors,
            *connection.recoverable_connection_errors,
            OperationalError,
        )
        self._loop = Loop("events", self.send, every_s=LOOK_S, outages=self._errors, log=_log)

    def start(self) -> None:
        """Begin to send what is handed in."""
        if self._enabled:
            self._loop.start()

    def stop(self) -> None:
        """End after what is being sent; the rest is dropped."""
        self._loop.stop(STOP_S)

    def put(self, lost: Sequence[LostTask]) -> None:
        """Have it told that tasks failed. Waits for nothing and raises nothing."""
        if self._enabled and lost:
            now_s = self._clock_s()
            self._waiting.extend((now_s, one) for one in lost)
            self._loop.wake()

    def send(self) -> None:
        """Send all that waits.

        Raises:
            Exception: whatever the broker's client raises; what was not sent is tried again.
        """
        while batch := self._next():
            try:
                self._publish(batch)
            except BaseException:
                self._waiting.extendleft(reversed(batch))
                raise

    def _next(self) -> list[tuple[float, LostTask]]:
        batch: list[tuple[float, LostTask]] = []
        until_s = self._clock_s() - KEEP_S
        while self._waiting and len(batch) < MAX_AT_ONCE:
            one = self._waiting.popleft()
            if one[0] >= until_s:
                batch.append(one)
        return batch

    def _publish(self, batch: Sequence[tuple[float, LostTask]]) -> None:
        # A connection for each batch: a kept one would be closed for its silence, as nobody sends
        # RabbitMQ's heartbeats on it, and lapses are rare.
        with self._app.connection_for_write() as connection:
            connection.ensure_connection(
                max_retries=1, interval_start=0, timeout=CONNECT_S, reraise_as_library_errors=False
            )
            exchange = get_exchange(connection, name=self._app.conf.event_exchange)
            producer = self._app.amqp.Producer(connection, auto_declare=False)
            producer.publish(
                [self._event(at_s, one) for at_s, one in batch],
                routing_key="task.multi",
                exchange=exchange.name,
                declare=[exchange],
                serializer="json",
                delivery_mode=1,
                retry=False,
            )

    def _event(self, at_s: float, lost: LostTask) -> dict[str, Any]:
        event: dict[str, Any] = Event(
            "task-failed",
            hostname=node_name(lost.worker),
            timestamp=at_s,
            utcoffset=utcoffset(),
            pid=0,
            clock=self._app.clock.forward(),
            uuid=lost.task_id,
            # In case that nobody saw it begin.
            name=lost.task,
            args="",
            kwargs=lost.label,
            exception=lost.code,
        )
        return event
