"""Outages of the database: what is not known after one, and how a wait rides one out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from herder.errors import HerdUnavailable

FIRST_PAUSE_S = 0.05
MAX_PAUSE_S = 1.0
"""Between two questions to a database that does not answer: it is noticed within a second."""

_T = TypeVar("_T")

_give_up_s: ContextVar[float | None] = ContextVar("give_up_s", default=None)


class CommitUnknown(HerdUnavailable):
    """The connection was lost in the middle of a commit: it happened, or it did not."""


def pause_s(tried: int) -> float:
    """Return the pause before asking again, in seconds: longer each time.

    Args:
        tried: how often it was asked, at least once.
    """
    return float(min(MAX_PAUSE_S, FIRST_PAUSE_S * 2 ** min(tried - 1, 30)))


@contextmanager
def giving_up(until_s: float | None) -> Iterator[None]:
    """Have this thread's transactions wait no longer for a database that hangs.

    A server that stands still, or a network that swallows what it is given, ends no connection, so
    nothing of theirs bounds the wait. What is given up raises `HerdUnavailable`.

    Args:
        until_s: by `time.monotonic`; of a block within another the earlier counts. None: as before.
    """
    before = _give_up_s.get()
    if until_s is None or (before is not None and before < until_s):
        until_s = before
    token = _give_up_s.set(until_s)
    try:
        yield
    finally:
        _give_up_s.reset(token)


def give_up_s() -> float | None:
    """Return the time at which this thread gives up, by `time.monotonic`; None: never."""
    return _give_up_s.get()


def ride_out(
    ask: Callable[[], _T],
    *,
    until_s: float | None = None,
    on_outage: Callable[[], object] | None = None,
) -> _T:
    """Ask again for as long as the database is away.

    Args:
        ask: what may be asked any number of times.
        until_s: by `time.monotonic`, when to give up, be it in the middle of a question to a
            database that hangs; None: never.
        on_outage: called once, after the first failure.

    Raises:
        HerdUnavailable: it was still away at that time.
    """
    tried = 0
    while True:
        try:
            with giving_up(until_s):
                return ask()
        except HerdUnavailable:
            tried += 1
            wait_s = pause_s(tried)
            if until_s is not None:
                left_s = until_s - time.monotonic()
                if left_s <= 0:
                    raise
                wait_s = min(wait_s, left_s)
            if on_outage is not None and tried == 1:
                on_outage()
        time.sleep(wait_s)
