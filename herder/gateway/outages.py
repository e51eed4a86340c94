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
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

import structlog
from anyio.to_thread import run_sync

from herder.db.outages import CommitUnknown, pause_s
from herder.domain.order import Order
from herder.errors import HerdError, HerdUnavailable, OrderNotFound, SetupError
from workers.transport.loops import TaskLoop

LOOK_S = 1.0
"""The pause before a failed cancellation is tried again."""
MAX_REMEMBERED = 10_000
APPEARS_S = 60.0
"""The time within which an order whose commit was lost may still appear."""
LAST_S = 5.0
"""The time for which a gateway that is told to stop goes on cancelling."""

_AWAY = (HerdUnavailable, SetupError)
"""What says nothing of an order: a database that is away, or cannot be used as it is."""

_log = structlog.get_logger("herder.gateway")

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


class Cancel(Protocol):
    """Cancels an order; `herder.local.local_herd.LocalHerd.cancel`."""

    def __call__(self, order_id: str, *, account: str | None) -> object:
        """Cancel it, if it is this account's; None: anybody's."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """An order that somebody asked to have cancelled, and whose it has to be."""

    order_id: str
    account: str | None


class CallOffs:
    """Cancels orders whose callers have gone: at once, or as soon as the database is back.

    What is asked is remembered before it is tried, so that a gateway which is told to stop in the
    midst of it still tries once more. Its methods are called on the event loop, but for `later`.

    Args:
        cancel: is called on threads, and more than once for an order.
        dropped: is told of each order that is not cancelled, for want of room or time.
    """

    def __init__(
        self,
        cancel: Cancel,
        dropped: Callable[[], object] = lambda: None,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cancel = cancel
        self._dropped = dropped
        self._clock_s = clock_s
        self._asked: dict[_Asked, float] = {}
        self._loop = TaskLoop(
            "gateway-call-offs",
            self._step,
            every_s=LOOK_S,
            outages=_AWAY,
            retry_s=(LOOK_S, LOOK_S),
        )

    @property
    def waiting(self) -> int:
        """Orders that are still to be cancelled."""
        return len(self._asked)

    def start(self) -> None:
        """Begin to look after what could not be done at once."""
        self._loop.start()

    def later(self, order_id: str, *, account: str | None = None, is_taken: bool = True) -> None:
        """Have an order cancelled within moments. Safe on any thread.

        Args:
            order_id: the order.
            account: whose it has to be; None: anybody's.
            is_taken: whether there is such an order; else it may still become one.
        """
        asked = _Asked(order_id, account)
        if len(self._asked) >= MAX_REMEMBERED and asked not in self._asked:
            self._drop(asked)
            return
        self._asked[asked] = 0.0 if is_taken else self._clock_s() + APPEARS_S

    async def cancel(self, order_id: str) -> None:
        """Cancel an order; where the database is away, once it is back."""
        self.later(order_id)
        with suppress(*_AWAY):
            await self._make(_Asked(order_id, None))

    async def _step(self) -> None:
        for asked in list(self._asked):
            await self._make(asked)

    async def _make(self, asked: _Asked) -> None:
        """Cancel one.

        Raises:
            HerdUnavailable, SetupError: the database is away, busy, or cannot be used as it is; it
                stays remembered, behind the others.
        """
        until_s = self._asked.get(asked, 0.0)
        try:
            await run_sync(partial(self._cancel, asked.order_id, account=asked.account))
        except _AWAY:
            self._asked.pop(asked, None)
            self._asked[asked] = until_s
            raise
        except OrderNotFound:
            if self._clock_s() < until_s:
                return
        except HerdError as error:
            _log.warning("order_not_cancelled", order=asked.order_id, code=error.code)
        except Exception as error:  # noqa: BLE001 (one that cannot be cancelled keeps no other)
            _log.error("order_not_cancelled", order=asked.order_id, exc_info=error)
        self._asked.pop(asked, None)

    async def close(self) -> None:
        """Cancel what can be cancelled within `LAST_S`; what is left is logged, order by order."""
        await self._loop.stop()
        with suppress(*_AWAY, TimeoutError):
            await asyncio.wait_for(self._step(), LAST_S)
        for asked in list(self._asked):
            self._drop(asked)
        self._asked.clear()

    def _drop(self, asked: _Asked) -> None:
        self._dropped()
        do = f"herd order cancel {asked.order_id}"
        _log.error("order_not_cancelled", order=asked.order_id, do=do)


async def accept(
    call_offs: CallOffs, take: Callable[[], Order], *, has_key: bool, continues: bool = False
) -> Order:
    """Take an order for a caller who is then told of it.

    Args:
        call_offs: cancel what its caller is never told of.
        take: takes it, on a thread.
        has_key: whether the call has an idempotency key: called again, it finds its order.
        continues: whether the caller wants the order done whatever becomes of the line.

    Raises:
        CommitUnknown: the database went away meanwhile and stayed away. `order` of its data is the
            order's id, if it was taken; without a key it is called off.
        HerdError: it was not taken.
    """
    taking = _Taking(call_offs, take)
    try:
        return await run_sync(taking.run)
    except asyncio.CancelledError:  # this gateway is ended
        if not has_key and not continues:
            taking.abandon()
        raise
    except CommitUnknown as error:
        order_id = str(error.data["order"])
        if not has_key:
            call_offs.later(order_id, is_taken=False)
        raise _unsettled(order_id, has_key=has_key) from error


class _Taking:
    """An order that is being taken on a thread, which goes on when nobody waits for it any more."""

    def __init__(self, call_offs: CallOffs, take: Callable[[], Order]) -> None:
        self._call_offs = call_offs
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
            self._call_offs.later(order.id)
        return order

    def abandon(self) -> None:
        """Have it called off, whether it was taken already or is yet."""
        with self._lock:
            self._is_abandoned = True
            order = self._order
        if order is not None:
            self._call_offs.later(order.id)


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
