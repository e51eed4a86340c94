"""Cancels orders for a program: at once, or once the database is back.

A cancellation that the database was away for is remembered and made as soon as it can be, for as
long as the program runs; whoever asked is told so, and what to type if the program ends before.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress

from redis import RedisError

from herder.db.outages import ride_out
from herder.domain.order import Order, State
from herder.errors import HerdError, HerdUnavailable, OrderNotFound, SetupError
from herder.orders.cancellation import Withdrawal
from herder.orders.closing import Settled
from herder.service.nudge import Nudger
from workers.transport.event_log import EventLog
from workers.transport.loops import Loop
from workers.transport.streams import Streams
from workers.wire import PrivateKey, StopAttempt, control_stream, seal

_log = EventLog("herder.local.cancellations", lowered=True)

PATIENCE_S = 5.0
"""The time that a caller waits for the database before the cancellation is remembered."""
MAX_REMEMBERED = 10_000
APPEARS_S = 60.0
"""How long an order may take to appear whose commit was lost on its way."""
LOOK_S = 1.0

_AWAY = (HerdUnavailable, SetupError)
"""What says nothing of an order: a database that is away, or cannot be used as it is."""


class Cancellations:
    """Cancels orders, and tells whoever has to know. Safe among threads."""

    def __init__(
        self, withdrawal: Withdrawal, streams: Streams, nudger: Nudger, key: PrivateKey
    ) -> None:
        self._withdrawal = withdrawal
        self._streams = streams
        self._nudger = nudger
        self._key = key
        self._lock = threading.Lock()
        # (order, whose it has to be), and until when there may yet be such an order.
        self._remembered: dict[tuple[str, str | None], float] = {}
        self._loop = Loop(
            "herd-cancel",
            self._step,
            every_s=LOOK_S,
            outages=_AWAY,
            retry_s=(0.1, LOOK_S),
            log=_log,
        )

    def cancel(self, order_id: str, *, account: str | None = None) -> Order:
        """End an order; as `herder.orders.cancellation.Withdrawal.cancel`, and told to its worker.

        Raises:
            OrderNotFound: there is no such order, or it is another account's.
            HerdUnavailable: the database was away for `PATIENCE_S`; the cancellation is remembered.
        """
        try:
            order = ride_out(
                lambda: self._withdrawal.cancel(order_id, account=account),
                until_s=time.monotonic() + PATIENCE_S,
            )
        except HerdUnavailable as error:
            later = "it is as soon as the database is back, if this program still runs then"
            if not self.remember(order_id, account=account):
                later = "it will not be"
            raise HerdUnavailable(
                f"Order {order_id} is not cancelled yet; {later}, and `herd order cancel "
                f"{order_id}` does it too. {error.message}",
                order=order_id,
            ) from error
        self._tell(order)
        return order

    def remember(self, order_id: str, *, account: str | None = None, is_taken: bool = True) -> bool:
        """Cancel an order as soon as the database is there; returns at once.

        Args:
            order_id: the order; if there is none, nothing happens.
            account: whose it has to be; None: anybody's.
            is_taken: whether there is such an order; else it may still become one.

        Returns:
            False where `MAX_REMEMBERED` are remembered already.
        """
        asked = (order_id, account)
        until_s = 0.0 if is_taken else time.monotonic() + APPEARS_S
        with self._lock:
            if len(self._remembered) >= MAX_REMEMBERED and asked not in self._remembered:
                _log.error("order_not_cancelled", order=order_id, reason="too many wait")
                return False
            self._remembered[asked] = until_s
            self._loop.start()
        return True

    def _step(self) -> None:
        with self._lock:
            if not self._remembered:
                self._loop.leave()
                return
        self._make()

    def _make(self) -> None:
        """Make those that are remembered.

        Raises:
            HerdUnavailable, SetupError: the database is still away, or an order's row is locked;
                that one stays remembered, behind the others.
        """
        with self._lock:
            asked = list(self._remembered.items())
        for one, until_s in asked:
            order_id, account = one
            try:
                self._tell(self._withdrawal.cancel(order_id, account=account))
            except _AWAY:
                with self._lock:
                    self._remembered[one] = self._remembered.pop(one, until_s)
                raise
            except HerdError as error:
                if isinstance(error, OrderNotFound) and time.monotonic() < until_s:
                    continue  # its commit may be on its way
                _log.warning("order_not_cancelled", order=order_id, reason=error.code)
            except Exception:  # noqa: BLE001
                # One that cannot be cancelled keeps no other from it.
                _log.exception("order_not_cancelled", order=order_id)
            else:
                _log.warning("order_cancelled_late", order=order_id)
            with self._lock:
                self._remembered.pop(one, None)

    def _tell(self, order: Order) -> None:
        """Tell those who wait of an order that ended, or its worker that it is to stop."""
        try:
            if order.state.ended:
                self._streams.announce_ended([order.id])
                if order.message is not None:
                    self._streams.announce_inboxes([order.account])
            elif order.instance is not None and (held := order.current) is not None:
                stop = StopAttempt(held=held, reason="cancelled")
                audience = control_stream(order.instance)
                token = seal(stop, self._key, sender="herder", audience=audience)
                self._streams.add_controls([(order.instance, token)])
        except RedisError as error:
            # Its worker is told with its next beat, and whoever waits looks again.
            _log.warning("cancellation_not_told", order=order.id, reason=type(error).__name__)
        if order.state is State.CANCELLED and order.dispatches:
            self._nudger.nudge(order.model)

    def close(self) -> None:
        """Make those that can be made at once, and say which were not."""
        self._loop.stop(2.0)
        with suppress(*_AWAY):
            self._make()
        for order_id in sorted({order_id for order_id, _ in self._remembered}):
            do = f"herd order cancel {order_id}"
            _log.error("order_not_cancelled", order=order_id, reason="it was away", do=do)

    def tell_resolved(self, order: Order, settled: Settled) -> None:
        """Tell whoever waits what an operator did about an order that was set aside."""
        try:
            if settled.ended:
                self._streams.announce_ended(settled.ended)
            if settled.inboxes:
                self._streams.announce_inboxes(sorted(settled.inboxes))
        except RedisError as error:
            _log.warning("end_not_told", order=order.id, reason=type(error).__name__)
        if order.state is State.QUEUED:
            self._nudger.nudge(order.model)
