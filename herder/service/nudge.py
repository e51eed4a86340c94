"""Tells a herder that something was submitted, from a thread of its own.

A submission never waits for a broker, nor fails with it: the order is in the database, and the
herders look there each second anyway. Nudges are coalesced, in the process and among processes.
"""

from __future__ import annotations

import logging
import threading

from redis import RedisError

from herder.settings import Settings
from workers.transport.streams import Streams
from workers.transport.tasks import NewTask
from workers.wire import HERDER_QUEUE, NUDGE_ID, NUDGE_TASK, Nudge, PrivateKey, seal

_log = logging.getLogger("herder.service.nudge")

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
        self._busy = False
        self._closing = False
        self._thread: threading.Thread | None = None

    def nudge(self, model: str) -> None:
        """Something waits for this model; returns at once."""
        with self._changed:
            self._models.add(model)
            self._changed.notify_all()
            if self._thread is None and not self._closing:
                self._thread = threading.Thread(target=self._loop, name="herd-nudge", daemon=True)
                self._thread.start()

    def _loop(self) -> None:
        # Loading Celery takes a moment, and only those who submit need it.
        from herder.service.app import make_app
        from workers.transport.sender import CelerySender

        rest = threading.Event()
        sender = CelerySender(make_app(self._settings))
        while True:
            with self._changed:
                self._busy = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._models or self._closing)
                if not self._models:
                    break
                models, self._models = self._models, set()
                self._busy = True
            for model in models:
                try:
                    if self._streams.first_nudge(model):
                        token = seal(
                            Nudge(model=model), self._key, sender="herder", audience=HERDER_QUEUE
                        )
                        sender.publish_many(
                            [
                                NewTask(
                                    HERDER_QUEUE, NUDGE_TASK, token, NUDGE_ID, f"model={model}", 9
                                )
                            ]
                        )
                except (RedisError, OSError) as error:
                    _log.info("no nudge was sent, the herder's sweep will do: %s", error)
            rest.wait(REST_S)
        sender.close()

    def close(self, timeout_s: float = 2.0) -> None:
        """Send what waits, if the broker is there, and end."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join(timeout_s)
