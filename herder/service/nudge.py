"""Tells a herder that something was submitted, from a thread of its own.

A submission never waits for a broker, nor fails with it: the order is in the database, and the
herders look there each second anyway. Nudges are coalesced, in the process and among processes.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from redis import RedisError

from herder.settings import Settings
from workers.transport.event_log import EventLog
from workers.transport.loops import Loop
from workers.transport.reasons import reason_of
from workers.transport.streams import Streams
from workers.transport.tasks import NewTask
from workers.wire import HERDER_QUEUE, NUDGE_ID, NUDGE_TASK, Nudge, PrivateKey, seal

if TYPE_CHECKING:
    from workers.transport.sender import CelerySender

_log = EventLog("herder.service.nudge", lowered=True)

RETRY_S = (0.1, 1.0)
REST_S = 0.03
"""Seconds after a nudge in which no other is sent: one speaks for all that came meanwhile."""


class Nudger:
    """Sends one nudge for all that was submitted since the last."""

    def __init__(self, settings: Settings, streams: Streams, key: PrivateKey) -> None:
        self._settings = settings
        self._streams = streams
        self._key = key
        self._changed = threading.Condition()
        self._models: set[str] = set()
        self._closing = False
        self._sender: CelerySender | None = None
        self._loop = Loop(
            "herd-nudge",
            self._step,
            unblock=self._unblock,
            last=self._end,
            retry_s=RETRY_S,
        )

    def nudge(self, model: str) -> None:
        """Something waits for this model; returns at once."""
        with self._changed:
            if self._closing:
                return
            self._models.add(model)
            self._loop.start()
            self._changed.notify_all()

    def _step(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._models or self._loop.stopping)
        self._send()
        self._loop.pause(REST_S)

    def _send(self) -> None:
        """Nudge for all models that were submitted for since; what fails the sweep makes good."""
        with self._changed:
            models, self._models = self._models, set()
        for model in sorted(models):
            try:
                if self._streams.first_nudge(model):
                    self._publish(model)
            except (RedisError, OSError) as error:
                # No reason to trouble whoever submitted.
                _log.warning("nudge_not_sent", model=model, reason=reason_of(error))

    def _publish(self, model: str) -> None:
        token = seal(Nudge(model=model), self._key, sender="herder", audience=HERDER_QUEUE)
        task = NewTask(HERDER_QUEUE, NUDGE_TASK, token, NUDGE_ID, f"model={model}", 9)
        self._get_sender().publish_many([task])

    def _get_sender(self) -> CelerySender:
        # Loading Celery takes a moment, and only those who submit need it.
        from herder.service.app import make_app
        from workers.transport.sender import CelerySender

        if self._sender is None:
            self._sender = CelerySender(make_app(self._settings))
        return self._sender

    def _unblock(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _end(self) -> None:
        try:
            self._send()
        finally:
            if self._sender is not None:
                self._sender.close()

    def close(self, timeout_s: float = 2.0) -> None:
        """Send what waits, if the broker is there, and end."""
        with self._changed:
            self._closing = True
        self._loop.stop(timeout_s)
