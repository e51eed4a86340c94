"""Orders that end early: cancelled by their client, too late to start, overdue, or too long.

Until a worker has an order, cancelling it charges nothing and takes effect at once. Once it runs,
or somebody was given some of its text, its worker is told to stop between two tokens, and its
outcome is charged as far as readers of its text were given it (`herder.domain.charging`), which are
given no more from then on; a worker that does not answer within a lease is not waited for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from redis import RedisError
from sqlalchemy import Connection

from herder.db.database import Database
from herder.domain.binding import is_too_late
from herder.domain.charging import CALLED_OFF
from herder.domain.order import Order, State
from herder.duties.turns import Turns
from herder.errors import OrderNotFound
from herder.orders.closer import PIECE, Closer, is_about_an_order
from herder.orders.closing import ClosingBatch, ClosingResult
from herder.orders.unfit import UnfitOrders, known_contexts, unfit
from herder.settings import Settings
from herder.store import book as book_sql
from herder.store import herd as herd_sql
from herder.store import orders as order_sql
from herder.store import unfit as unfit_sql
from herder.store.steps import Subject
from ledger import Ledger
from workers.transport.delivery import Deliveries
from workers.transport.event_log import EventLog

_log = EventLog("herder.orders.cancellation")


class Cancellation:
    """Cancels orders, and ends those whose time is up."""

    def __init__(
        self,
        database: Database,
        books: Ledger,
        settings: Settings,
        deliveries: Deliveries,
        *,
        clock_us: Callable[[], int],
    ) -> None:
        self._database = database
        self._deliveries = deliveries
        self._ledger = books
        self._closer = Closer(database, books, clock_us=clock_us)
        self._settings = settings
        self._clock_us = clock_us
        self._late: Turns[Order, tuple[int, int]] = Turns((-1, 0), _late_cursor, clock_us)
        self._overdue: Turns[Order, int] = Turns(0, lambda order: order.seq, clock_us)
        self._unfit = UnfitOrders()

    def cancel(self, order_id: str, *, account: str | None = None) -> Order:
        """End an order on its client's word. One that has ended stays as it is.

        Args:
            order_id: the order.
            account: whose it has to be; None: anybody's.

        Returns:
            The order: ended, if it waited; else still out, with `call_off` set. Then the caller
            tells its worker to stop; whoever hears of that worker tells it again. Or set aside, as
            its end was refused: its fee stays held until an operator has decided.

        Raises:
            OrderNotFound: there is no such order, or it is another account's.
        """
        order = self._settle(order_id, lambda plan, on: self._call_off(plan, on, order_id, account))
        # It may be that its worker has it and that somebody was given some of its text, though the
        # claim has not been read yet: else what was read so early would be had for nothing. From
        # the commit above on, readers are given no more.
        if order.state is State.DISPATCHED and not self._was_read(order):
            order = self._settle(order_id, lambda plan, on: self._end_unread(plan, on, order))
        return order

    def _settle(self, order_id: str, step: Callable[[ClosingBatch, Connection], Order]) -> Order:
        """Take a step of an order; set the order aside where its end is refused."""
        plan = ClosingBatch()

        def anew(connection: Connection) -> Order:
            nonlocal plan
            plan = ClosingBatch()
            return step(plan, connection)

        try:
            return self._database.settle(anew)
        except OrderNotFound:
            raise
        except Exception as error:
            if not is_about_an_order(error):
                raise
            self._closer.set_aside(order_id, plan, error)
        with self._database.read() as connection:
            found = order_sql.get_order(connection, order_id)
        assert found is not None, "orders are never deleted"
        return found

    def _call_off(
        self, plan: ClosingBatch, connection: Connection, order_id: str, account: str | None
    ) -> Order:
        order = order_sql.get_orders(connection, [order_id], lock=True).get(order_id)
        if order is None or (account is not None and order.account != account):
            raise OrderNotFound(order_id)
        if order.state.ended or order.state is State.SET_ASIDE or order.call_off is not None:
            return order
        now_us = self._clock_us()
        if order.state is State.QUEUED:
            return self._end(plan, connection, order, now_us)
        until_s = herd_sql.heard_s(connection) + self._settings.lease_s
        until_s = min(until_s, order.overdue_heard_s or until_s)
        book_sql.call_off(connection, order, "cancelled", until_s)
        subject = Subject(order.id, order.attempt, order.instance, None)
        order_sql.add_events(connection, "cancel_asked", now_us, [subject])
        found = order_sql.get_order(connection, order_id)
        assert found is not None, "it is locked"
        return found

    def _end_unread(self, plan: ClosingBatch, connection: Connection, called_off: Order) -> Order:
        """End an order that is out with nobody, unless its attempt was claimed meanwhile."""
        order = order_sql.get_orders(connection, [called_off.id], lock=True)[called_off.id]
        if order.state is not State.DISPATCHED:
            return order
        return self._end(plan, connection, order, self._clock_us())

    def _end(self, plan: ClosingBatch, connection: Connection, order: Order, now_us: int) -> Order:
        ended = plan.end(order, State.CANCELLED, now_us, None)
        plan.write(connection, self._ledger, now_us)
        return ended

    def _was_read(self, order: Order) -> bool:
        """Return whether somebody was given some of the text of an order's current attempt."""
        try:
            (reach,) = self._deliveries.delivered([(order.id, order.attempt)])
        except RedisError as error:
            _log.warning("deliveries_not_read", orders=1, reason=type(error).__name__)
            return False
        return reach.characters > 0

    def sweep(self, limit: int = PIECE) -> ClosingResult:
        """End what did not begin in time, what runs beyond its limit, and what can never run.

        Args:
            limit: orders of each kind at most; `more` of the answer says whether there may be more.
        """
        with self._database.read() as connection:
            late = book_sql.late(connection, self._clock_us(), self._late.after, limit)
            heard_s = herd_sql.heard_s(connection)
            overdue = book_sql.overdue(connection, heard_s, self._overdue.after, limit)
            too_long = self._unfit.find(connection, limit)
        late_now, overdue_now = self._late.due(late), self._overdue.due(overdue)
        ids = sorted({order.id for order in (*late_now, *overdue_now, *too_long)})
        done = self._closer.close(ids, str, self._sweep)
        self._late.failed([one for one in late_now if one.id in done.stuck])
        self._overdue.failed([one for one in overdue_now if one.id in done.stuck])
        done.more |= self._late.turn(late, limit)
        done.more |= self._overdue.turn(overdue, limit)
        done.more |= self._unfit.go_on(too_long, limit)
        return done

    def _sweep(
        self,
        connection: Connection,
        ids: Sequence[str],
        plan: ClosingBatch,
        done: ClosingResult,
        now_us: int,
    ) -> None:
        heard_s, contexts = herd_sql.heard_s(connection), known_contexts(connection)
        orders = order_sql.get_orders(connection, ids, lock=True).values()
        fitted = unfit_sql.fitted_by_workers(
            connection, [order.id for order in orders if unfit(order, contexts) is not None]
        )
        for order in orders:
            if order.waits and is_too_late(order, now_us):
                plan.end(order, State.EXPIRED, now_us, None)
            elif _is_overdue(order, heard_s):
                _log.warning("overdue", order=order.id, instance=order.instance)
                why = order.call_off or "deadline"
                if order.instance is not None and order.current is not None:
                    done.stops.append((order.instance, order.current, "void"))
                plan.end(order, CALLED_OFF[why], now_us, None)
            elif order.id not in fitted and (failure := unfit(order, contexts)) is not None:
                _log.info("unfit", order=order.id, tokens=order.tokens)
                plan.end(order, State.FAILED, now_us, None, failure)
            else:
                continue  # something else ended it, or began it, a moment ago
            done.models.add(order.model)


def _late_cursor(order: Order) -> tuple[int, int]:
    return (order.start_by_us or 0, order.seq)


def _is_overdue(order: Order, heard_s: int) -> bool:
    return (
        order.state is State.RUNNING
        and order.overdue_heard_s is not None
        and order.overdue_heard_s < heard_s
    )
