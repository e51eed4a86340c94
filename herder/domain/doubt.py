"""Spaces out hellos, and second chances for workers that claim nothing. Pure."""

from __future__ import annotations

MAX_WAIT_S = 60
"""The longest pause between two hellos to a worker that answers none."""

MAX_DOUBT_S = 300
"""The longest pause before a worker that answers hellos and claims nothing gets one more try."""


def next_hello_s(sent: int) -> int:
    """Return the seconds before the next hello to a worker that was sent so many in vain."""
    return min(MAX_WAIT_S, 1 << min(sent, 10))


def doubt_s(unclaimed: int) -> int:
    """Return the seconds before the hello to a worker that left one more attempt unclaimed.

    At once the first time: its broker may have been away. Later ever longer: it answers hellos and
    claims nothing.

    Args:
        unclaimed: attempts in a row that it had left unclaimed before.
    """
    return 0 if unclaimed == 0 else min(MAX_DOUBT_S, 5 << min(unclaimed - 1, 10))
