"""Celery's events of tasks: what they show of an end, and that the event loop alone sends them."""

from __future__ import annotations

import threading
from typing import Any

from celery.events.dispatcher import EventDispatcher
from celery.worker.request import Request

SHOWN = f"{__name__}:ShownRequest"
"""Of tasks whose events show how they ended, as Celery's option `Request`."""

_ended = threading.local()
"""Of each thread, the id of the task that ended on it last, and how it did."""


def node_name(name: str) -> str:
    """Return a worker's name as Celery's events and Flower have it."""
    return name if "@" in name else f"{name}@herd"


def shown_as(task_id: str, end: dict[str, str | int]) -> dict[str, str | int]:
    """Have a task's last event show how it ended; to be called by the task, which returns `end`.

    Args:
        task_id: the Celery task's.
        end: its `status`, and the `code` of what failed. It may be shown to anybody.
    """
    _ended.last = (task_id, end)
    return end


def event_of_end(
    end: dict[str, str | int], fields: dict[str, Any]
) -> tuple[str, dict[str, Any]] | None:
    """Return the event of a task that returned; None where another one tells of it.

    Args:
        end: as the task gave it to `shown_as`.
        fields: of the event by which Celery would say that it succeeded.
    """
    status, runtime = end.get("status"), fields.get("runtime")
    if status == "repeated":
        # The id is that of an attempt which runs here, or has ended here, and shows its own end.
        return None
    if status == "failed":
        return "task-failed", {"exception": str(end.get("code", "failed")), "runtime": runtime}
    if status in ("cancelled", "deadline", "void", "handed_back"):
        why = {"terminated": False, "signum": None, "expired": status == "deadline"}
        return "task-revoked", {**why, **fields}
    return "task-succeeded", fields


class ShownRequest(Request):  # type: ignore[misc]
    """Celery's request, whose events show how an attempt ended, and never an exception's text."""

    def send_event(self, kind: str, **fields: Any) -> None:
        """Send an event; Celery calls this on the task's own thread once it has returned."""
        if kind == "task-succeeded":
            task_id, end = getattr(_ended, "last", (None, None))
            _ended.last = (None, None)
            event = event_of_end(end, fields) if task_id == self.id and end else (kind, fields)
            if event is None:
                return
            kind, fields = event
        elif kind == "task-failed":
            # It raised what nobody expected, and the words and the trace may quote anything.
            fields = {"exception": "worker_error"}
        super().send_event(kind, **fields)


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
