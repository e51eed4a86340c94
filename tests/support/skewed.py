"""Celery in a process whose clock is wrong: everything in it that asks for the time is told so.

What only rises, such as `time.monotonic`, is as it is: a wrong clock is not a fast one.
"""

from __future__ import annotations

import os
import sys
import time

AHEAD = "TESTS_CLOCK_AHEAD_S"
"""The environment's name for the seconds by which the clock is ahead."""

PROGRAM = ("-c", "from tests.support.skewed import main; main()")
"""For Python, before Celery's own arguments."""


def main() -> None:
    """Set the clock wrong, and do what `celery` does."""
    ahead_s = float(os.environ[AHEAD])
    right, right_ns = time.time, time.time_ns
    time.time = lambda: right() + ahead_s
    time.time_ns = lambda: right_ns() + int(ahead_s * 1e9)
    sys.argv[0] = "celery"
    from celery.__main__ import main as celery

    celery()
