"""A gateway's answers to its callers while the database is away.

An order that was taken is answered for: waits ride an outage out, its id is told with whatever
fails after, and it is called off where nobody is left to read what it costs. A call that fails
before took nothing, or what it took is called off.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from anyio.to_thread import run_sync

from herder.db.outages import CommitUnknown, pause_s
from herder.domain.order import Order
from herder.errors import HerdError, HerdUnavailable
from herder.local.cancellations import Cancellations

T = TypeVar("T")


async def ride_out(ask: Callable[[], Awaitable[T]], *, within_s: float | None = None) -> T:
    """Ask again for as long as the database is away; other callers are served meanwhile.

    Args:
        ask: what may be asked any number of times.
        within_s: how long, in seconds; None: until it is answered. Whoever waits for a caller who
            may go away has the task cancelled then.

    Raises:
        HerdUnavailable: it was still away after that time.
    """
    until_s = None if within_s is None else time.monotonic() + within_s
    tried = 0
    while True:
        try:
            return await ask()
        except HerdUnavailable:
            tried += 1
            wait_s = pause_s(tried)
            if until_s is not None and time.monotonic() + wait_s > until_s:
                raise
        await asyncio.sleep(wait_s)


async def accept(
    cancellations: Cancellations[Order],
    take: Callable[[], Order],
    *,
    has_key: bool,
    continues: bool = False,
) -> Order:
    """Take an order for a caller who is then told of it.

    Args:
        cancellations: cancel what its caller is never told of.
        take: takes it, on a thread; as `herder.local.local_herd.LocalHerd.take`, it has cancelled
            what it may have taken without a key, unheard.
        has_key: whether the call has an idempotency key: called again, it finds its order.
        continues: whether the caller wants the order done whatever becomes of the line.

    Raises:
        CommitUnknown: the database went away meanwhile and stayed away. `order` of its data is the
            order's id, if it was taken; without a key it is called off.
        HerdError: it was not taken.
    """
    taking = _Taking(cancellations, take)
    try:
        return await run_sync(taking.run)
    except asyncio.CancelledError:  # this gateway is ended
        if not has_key and not continues:
            taking.abandon()
        raise
    except CommitUnknown as error:
        raise _unsettled(str(error.data["order"]), has_key=has_key) from error


class _Taking:
    """An order that is being taken on a thread, which goes on when nobody waits for it any more."""

    def __init__(self, cancellations: Cancellations[Order], take: Callable[[], Order]) -> None:
        self._cancellations = cancellations
        self._take = take
        self._lock = threading.Lock()
        self._order: Order | None = None
        self._is_abandoned = False

    def run(self) -> Order:
        """Take it."""
        order = self._take()
        with self._lock:
            self._order = order
            is_abandoned = self._is_abandoned
        if is_abandoned:
            self._cancellations.remember(order.id)
        return order

    def abandon(self) -> None:
        """Have it called off, whether it was taken already or is yet."""
        with self._lock:
            self._is_abandoned = True
            order = self._order
        if order is not None:
            self._cancellations.remember(order.id)


def _unsettled(order_id: str, *, has_key: bool) -> CommitUnknown:
    what = (
        "the same call with the same Idempotency-Key finds it, and is charged once"
        if has_key
        else "it is called off as soon as the database is back"
    )
    return CommitUnknown(
        f"The database went away while it took order {order_id}, and does not answer; if there is "
        f"such an order, {what}.",
        order=order_id,
    )


@contextmanager
def accepted(order_id: str) -> Iterator[None]:
    """Have whatever fails after an order was taken tell which one."""
    try:
        yield
    except HerdError as error:
        error.data["order"] = order_id
        raise
