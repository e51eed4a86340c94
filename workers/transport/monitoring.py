"""Celery's events of tasks, sent by the event loop alone."""

from __future__ import annotations

import threading
from typing import Any

from celery.events.dispatcher import EventDispatcher


class LoopDispatcher(EventDispatcher):  # type: ignore[misc]
    """Celery's dispatcher of events, whose connection only the thread that made it uses.

    Celery has the loop send what was gathered, but sends it on a task's own thread once 24 events
    wait. After the connection was lost, that thread also declares the exchange, and waits for an
    answer that the loop, which reads the same connection, may take away from it.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._made_by = threading.get_ident()
        super().__init__(*args, **kwargs)

    def flush(self, errors: bool = True, groups: bool = True) -> None:
        """Send what waits; on any other thread, have the loop do it."""
        if threading.get_ident() != self._made_by and self.on_send_buffered is not None:
            self.on_send_buffered()
        else:
            super().flush(errors=errors, groups=groups)
