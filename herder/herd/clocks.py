"""Tells of workers whose clocks differ from the herders': `workers.agent.clock` finds it out."""

from __future__ import annotations

import structlog

from herder.store.herd import Worker
from workers.wire import Announcement

_log = structlog.get_logger("herder.herd.clocks")


def tell_of_clock(known: Worker, announced: Announcement) -> None:
    """Log that a worker's clock began to differ, differs by another amount, or no longer does.

    Args:
        known: the worker as it was.
        announced: what it says now.
    """
    ahead_s = announced.clock_ahead_s
    if abs(ahead_s - known.clock_ahead_s) <= 1:
        return
    if ahead_s:
        _log.warning(
            "worker_clock_differs",
            worker=announced.name,
            instance=known.instance,
            ahead_s=ahead_s,
        )
    else:
        _log.info("worker_clock_agrees", worker=announced.name, instance=known.instance)
