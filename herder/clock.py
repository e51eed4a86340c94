"""The one place where the herder reads the time; everybody else is handed it."""

from __future__ import annotations

import time


def clock_us() -> int:
    """Return the time in microseconds since the epoch."""
    return time.time_ns() // 1000
