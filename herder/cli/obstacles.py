"""Tells whoever waits for an order what keeps it from being run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from herder.cli.show import complain
from herder.errors import HerdError
from workers.transport.event_log import EventLog
from workers.transport.loops import Loop

if TYPE_CHECKING:
    from herder.interface import BuyerHerd
    from herder.types import Receipt

_log = EventLog("herder.cli.obstacles", lowered=True)

PATIENCE_S = 3.0
"""Seconds without a word of an order before it is looked what it waits for, and between looks."""

WAITING = ("queued", "dispatched")


@contextmanager
def saying_what_is_wrong(herd: BuyerHerd, receipt: Receipt) -> Iterator[Callable[[], None]]:
    """Tell on standard error what keeps an order waiting, while the block lasts.

    Each thing once, until another one is found or it has gone. Provides what is to be called once
    the order runs.
    """
    told: str | None = None

    def look() -> None:
        nonlocal told
        try:
            state = herd.receipt(receipt.order).state
            found = herd.obstacle() if state in WAITING else None
        except HerdError:
            return  # that the herd does not answer is told by who waits for it
        if state not in WAITING:
            loop.leave()
        elif found is not None and found != told:
            complain(f"Order {receipt.order} waits, with its fee held: {found}")
        elif found is None and told is not None:
            complain(f"Order {receipt.order} still waits; what kept it has passed.")
        told = found

    loop = Loop("herd-obstacles", look, every_s=PATIENCE_S, first_s=PATIENCE_S, log=_log)
    if receipt.held:
        loop.start()
    try:
        yield loop.leave
    finally:
        loop.stop(0)
