"""Cancels orders for a program: at once, or once the database is back.

A cancellation that the database was away for is remembered and made as soon as it can be, for as
long as the program runs; whoever asked is told so, and what to type if the program ends before.
A gateway has the orders of callers who have gone cancelled here, too; and a program elsewhere, for
which the gateway is what may be away (`herder.client.http.remote_herd`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from threading import Thread
from typing import Generic, Protocol, TypeVar

from herder.db.outages import giving_up, ride_out
from herder.errors import HerdError, HerdUnavailable, OrderNotFound, SetupError
from workers.transport.event_log import EventLog
from workers.transport.loops import Loop

_log = EventLog("herder.local.cancellations", lowered=True)

PATIENCE_S = 5.0
"""The time that a caller waits for the database before the cancellation is remembered."""
MAX_SIDE_BY_SIDE = 4
"""Cancellations made side by side: fewer than a gateway has connections, so that it goes on."""
MAX_REMEMBERED = 10_000
LOOK_S = 1.0
"""The pause before a failed cancellation is tried again."""
APPEARS_S = 60.0
"""The time within which an order whose commit was lost may still appear."""
LAST_S = 5.0
"""The time for which a program that ends goes on cancelling."""

_AWAY = (HerdUnavailable, SetupError)
"""Errors that say nothing of an order: the database is away, or cannot be used as it is."""

Seen = TypeVar("Seen", covariant=True)
"""An order as whoever cancels it sees it."""


class Cancel(Protocol[Seen]):
    """Cancels an order; `herder.local.canceller.Canceller.cancel`, or a call of a gateway."""

    def __call__(self, order_id: str, *, account: str | None) -> Seen:
        """Cancel it, if it is this account's; None: anybody's."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """An order that somebody asked to have cancelled, and whose it has to be."""

    order_id: str
    account: str | None


class Cancellations(Generic[Seen]):
    """Cancels orders, and remembers those that cannot be cancelled yet. Safe among threads.

    Args:
        cancel: cancels one, and may be called more than once for it.
        behind: what may be away, as a sentence has it.
        clock_s: a clock that only rises, in seconds.

    Attributes:
        on_dropped: is called for each order that is not cancelled, for want of room or time.
    """

    def __init__(
        self,
        cancel: Cancel[Seen],
        clock_s: Callable[[], float] = time.monotonic,
        *,
        behind: str = "the database",
    ) -> None:
        self.on_dropped: Callable[[], object] = lambda: None
        self._cancel = cancel
        self._clock_s = clock_s
        self._behind = behind
        self._lock = threading.Lock()
        self._asked: dict[_Asked, float] = {}
        self._loop = Loop(
            "herd-cancel",
            self._step,
            every_s=LOOK_S,
            outages=_AWAY,
            retry_s=(0.1, LOOK_S),
            log=_log,
        )

    @property
    def waiting(self) -> int:
        """Orders that are still to be cancelled."""
        return len(self._asked)

    def cancel(self, order_id: str, *, account: str | None = None) -> Seen:
        """End an order.

        Raises:
            OrderNotFound: there is no such order, or it is another account's.
            HerdUnavailable: the database, or the gateway, was away for `PATIENCE_S`; where `order`
                is in its data, the cancellation is remembered.
        """
        try:
            return ride_out(
                lambda: self._cancel(order_id, account=account),
                until_s=time.monotonic() + PATIENCE_S,
            )
        except HerdUnavailable as error:
            if error.data.get("order") == order_id:
                raise  # a gateway that says so remembers it
            later = f"it is as soon as {self._behind} is back, if this program still runs then"
            data = {"order": order_id}
            if not self.remember(order_id, account=account):
                later, data = "it will not be", {}
            raise HerdUnavailable(
                f"Order {order_id} is not cancelled yet; {later}, and `herd order cancel "
                f"{order_id}` does it too. {error.message}",
                **data,
            ) from error

    def remember(self, order_id: str, *, account: str | None = None, is_taken: bool = True) -> bool:
        """Cancel an order as soon as the database is there; returns at once.

        Args:
            order_id: the order; if there is none, nothing happens.
            account: whose it has to be; None: anybody's.
            is_taken: whether there is such an order; else it may still become one.

        Returns:
            False where `MAX_REMEMBERED` are remembered already.
        """
        asked = _Asked(order_id, account)
        with self._lock:
            has_room = len(self._asked) < MAX_REMEMBERED or asked in self._asked
            if has_room:
                self._asked[asked] = 0.0 if is_taken else self._clock_s() + APPEARS_S
                self._loop.start()
        if not has_room:
            self._drop(asked)
            return False
        self._loop.wake()
        return True

    def _step(self) -> None:
        with self._lock:
            if not self._asked:
                self._loop.leave()
                return
        self._make_all(None)

    def _make_all(self, until_s: float | None) -> None:
        """Make those that are remembered.

        Args:
            until_s: by `time.monotonic`: when to stop. None: with each, `PATIENCE_S` from then.

        Raises:
            HerdUnavailable, SetupError: the database is still away; the rest stays remembered.
        """
        with self._lock:
            every = list(self._asked.items())
        for start in range(0, len(every), MAX_SIDE_BY_SIDE):
            if until_s is not None and time.monotonic() > until_s:
                return
            failed = self._make_some(every[start : start + MAX_SIDE_BY_SIDE], until_s)
            # One that is locked keeps no other; where none can be made, all of it is away.
            if len(failed) == len(every[start : start + MAX_SIDE_BY_SIDE]):
                raise failed[0]

    def _make_some(
        self, some: list[tuple[_Asked, float]], until_s: float | None
    ) -> list[HerdError]:
        """Make some side by side; the errors of those for which the database is away."""
        failed: list[HerdError] = []

        def make(asked: _Asked, appears_s: float) -> None:
            try:
                with giving_up(time.monotonic() + PATIENCE_S if until_s is None else until_s):
                    self._make(asked, appears_s)
            except _AWAY as error:
                failed.append(error)

        # Daemons, as the loop's thread is: a program ends though its database is silent.
        threads = [Thread(target=make, args=one, daemon=True) for one in some[1:]]
        for thread in threads:
            thread.start()
        make(*some[0])
        for thread in threads:
            thread.join()
        return failed

    def _make(self, asked: _Asked, appears_s: float) -> None:
        """Cancel one.

        Raises:
            HerdUnavailable, SetupError: the database is away, busy, or cannot be used as it is; it
                stays remembered, behind the others.
        """
        ids = {"order": asked.order_id}
        try:
            self._cancel(asked.order_id, account=asked.account)
        except _AWAY:
            with self._lock:
                self._asked.pop(asked, None)
                self._asked[asked] = appears_s
            raise
        except OrderNotFound:
            if self._clock_s() < appears_s:
                return
            _log.info("order_not_found", **ids)
        except HerdError as error:
            _log.error("order_not_cancelled", **ids, reason=error.code)
        except Exception:  # noqa: BLE001 (one that cannot be cancelled keeps no other)
            _log.exception("order_not_cancelled", **ids)
        else:
            _log.info("order_cancelled", **ids)
        with self._lock:
            self._asked.pop(asked, None)

    def close(self) -> None:
        """Make those that can be made within `LAST_S`; what is left is logged, order by order."""
        until_s = time.monotonic() + LAST_S
        self._loop.stop(LAST_S)
        with suppress(*_AWAY):
            self._make_all(until_s)
        with self._lock:
            left = list(self._asked)
            self._asked.clear()
        for asked in left:
            self._drop(asked)

    def _drop(self, asked: _Asked) -> None:
        self.on_dropped()
        do = f"herd order cancel {asked.order_id}"
        _log.error("order_not_cancelled", order=asked.order_id, do=do)
