"""Waiting on conditions, generously: a test fails for what did not happen, not for when."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

LIMIT_S = 60.0


def wait_for(condition: Callable[[], Any], what: str, limit_s: float = LIMIT_S) -> Any:
    """The first true answer of a condition."""
    until = time.monotonic() + limit_s
    while True:
        answer = condition()
        if answer:
            return answer
        assert time.monotonic() < until, f"{what}: did not happen within {limit_s:g} s"
        time.sleep(0.02)
