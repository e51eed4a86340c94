"""Ctrl-C where it has to wait for a moment."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def one_interrupt_held() -> Iterator[Callable[[], bool]]:
    """Keep a Ctrl-C until the end: an order that is being taken would be lost sight of.

    A second one counts at once. What is given says whether there was one.
    """
    held: list[int] = []

    def hold(number: int, _: object) -> None:
        if held:
            raise KeyboardInterrupt
        held.append(number)

    before = signal.getsignal(signal.SIGINT)
    if before in (signal.SIG_IGN, None):
        yield lambda: False
        return
    signal.signal(signal.SIGINT, hold)
    try:
        yield lambda: bool(held)
    finally:
        signal.signal(signal.SIGINT, before)
