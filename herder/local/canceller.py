"""Cancels an order, and tells whoever has to know."""

from __future__ import annotations

from herder.domain.order import Order, State
from herder.local.announcements import Announcements
from herder.orders.cancellation import Cancellation
from herder.orders.closing import ClosingResult
from herder.service.nudge import Nudger
from workers.wire import CancelAttempt, PrivateKey, control_stream, seal


class Canceller:
    """Cancels orders, each with one call of the database. Safe among threads."""

    def __init__(
        self,
        cancellation: Cancellation,
        announced: Announcements,
        nudger: Nudger,
        key: PrivateKey,
    ) -> None:
        self._cancellation = cancellation
        self._announced = announced
        self._nudger = nudger
        self._key = key

    def cancel(self, order_id: str, *, account: str | None = None) -> Order:
        """End an order as `herder.orders.cancellation.Cancellation.cancel`, and tell its worker.

        Raises:
            OrderNotFound: there is no such order, or it is another account's.
            HerdUnavailable: the database is away, and it is not cancelled.
        """
        order = self._cancellation.cancel(order_id, account=account)
        self._tell(order)
        return order

    def _tell(self, order: Order) -> None:
        """Tell those who wait of an order that ended, or its worker that it is to stop."""
        if order.state.ended:
            self._announced.ended([order.id])
            if order.message is not None:
                self._announced.inboxes([order.account])
        elif order.instance is not None and (held := order.current) is not None:
            # Should this be lost, it is told again with its next beat.
            stop = CancelAttempt(held=held, reason="cancelled")
            audience = control_stream(order.instance)
            token = seal(stop, self._key, sender="herder", audience=audience)
            self._announced.controls([(order.instance, token)])
        if order.state is State.CANCELLED and order.dispatches:
            self._nudger.nudge(order.model)

    def tell_resolved(self, order: Order, settled: ClosingResult) -> None:
        """Tell whoever waits what an operator did about an order that was set aside."""
        if settled.ended:
            self._announced.ended(settled.ended)
        if settled.inboxes:
            self._announced.inboxes(sorted(settled.inboxes))
        if order.state is State.QUEUED:
            self._nudger.nudge(order.model)
