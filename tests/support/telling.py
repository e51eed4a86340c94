"""Celery in a process that writes each line of its log, however often it was written before."""

from __future__ import annotations

import sys

from workers.transport import repeats

ALL = "TESTS_TELL_ALL"
"""The environment's name for it."""

PROGRAM = ("-c", "from tests.support.telling import main; main()")
"""For Python, before Celery's own arguments."""


def main() -> None:
    """Leave no line out, and do what `celery` does."""
    repeats.REPEAT_S = 0.0
    sys.argv[0] = "celery"
    from celery.__main__ import main as celery

    celery()
