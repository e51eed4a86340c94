"""Orders that were set aside because their end was refused: what operators do about them.

Such an order takes part in nothing any more, and its fee stays held, until somebody lets it end as
it was to (`retry`, once the reason is gone) or gives its buyer everything back (`give_back`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any
from uuid import UUID, uuid5

from sqlalchemy import Connection

import ledger
from herder.db.database import Database
from herder.domain.charging import CALLED_OFF
from herder.domain.order import Order, State
from herder.domain.paging import require_limit
from herder.domain.receipts import receipt_of
from herder.errors import InvalidRequest, OrderNotFound, RefundRefused
from herder.orders.closer import is_about_an_order, why
from herder.orders.closing import ClosingBatch, ClosingResult
from herder.store import orders as order_sql
from herder.store import set_aside as set_aside_sql
from herder.store.set_aside import Aside
from herder.types import Receipt
from workers.wire import Failure

GIVEN_BACK = Failure(
    code="given_back",
    message="It could not be settled, and the herd's operator gave everything back.",
    permanent=True,
)


@dataclass(frozen=True, slots=True)
class AsideView:
    """An order that is set aside, as operators see it; amounts in winston.

    Attributes:
        order: its id.
        held: what stays held of its buyer's money.
        at_us: when it was set aside, in microseconds since the epoch.
        was: the state in which it stood before.
        reason: why its end was refused.
        ends_as: the state that it was to end in; None where that could not be worked out.
        charge: what it was to be charged.
    """

    order: str
    account: str
    model: str
    held: int
    at_us: int
    was: str
    reason: str
    ends_as: str | None
    charge: int | None

    def to_dict(self) -> dict[str, Any]:
        """Return the view as JSON would have it."""
        return asdict(self)


class SetAside:
    """Operators' decisions about orders that were set aside.

    Args:
        database: where they stand.
        books: the ledger.
        clock_us: the time in microseconds since the epoch.
        tell: is given an order that was resolved, and whom that concerns.
    """

    def __init__(
        self,
        database: Database,
        books: ledger.Ledger,
        *,
        clock_us: Callable[[], int],
        tell: Callable[[Order, ClosingResult], None] | None = None,
    ) -> None:
        self._database = database
        self._ledger = books
        self._clock_us = clock_us
        self._tell = tell

    def count(self) -> int:
        """Return the number of orders that are set aside."""
        with self._database.read() as connection:
            return set_aside_sql.count(connection)

    def list(self, *, after: str = "", limit: int = 100) -> list[AsideView]:
        """Orders that are set aside, by id, a page at a time.

        Args:
            after: only those with a higher id: the last one of the page before.
            limit: how many at most, 1 to `herder.domain.paging.MAX_PAGE`.

        Raises:
            InvalidRequest: the limit is out of its range.
        """
        require_limit(limit)
        with self._database.read() as connection:
            return [_view(one) for one in set_aside_sql.page(connection, after, limit)]

    def retry(self, order_id: str) -> Receipt:
        """End an order as it was to end; where that is not known, let it wait again.

        One that was called off does not wait again: it ends as that says, and costs nothing.

        Returns:
            Its receipt as it stands then.

        Raises:
            OrderNotFound: there is no such order.
            InvalidRequest: it is not set aside.
            RefundRefused: it is refused again, and stays as it is.
        """

        def plan_it(_: Connection, aside: Aside, plan: ClosingBatch, now_us: int) -> Order:
            order = aside.order
            if aside.ending is None and order.call_off is not None:
                return plan.end(order, CALLED_OFF[order.call_off], now_us, None)
            if aside.ending is None:
                return plan.requeue(replace(order, instance=None), "retried")
            ended = aside.ending._replace(ended_us=now_us).applied_to(order)
            return plan.close(order, ended, detail="retried")

        return self._resolve(order_id, plan_it)

    def give_back(self, order_id: str) -> Receipt:
        """End an order as failed, and give its buyer back whatever it holds or has taken.

        Where its hold was charged already, the charge is refunded.

        Returns:
            Its receipt as it stands then.

        Raises:
            OrderNotFound: there is no such order.
            InvalidRequest: it is not set aside.
            RefundRefused: the ledger refuses that too, and it stays as it is.
        """

        def plan_it(connection: Connection, aside: Aside, plan: ClosingBatch, now_us: int) -> Order:
            order = aside.order
            taken = self._taken(connection, order)
            ended = replace(
                order,
                state=State.FAILED,
                attempt_open=False,
                instance=None,
                ended_us=now_us,
                charged=taken,
                returned=order.fee - taken,
                failure=GIVEN_BACK.model_dump(),
            )
            return plan.close(order, ended, detail=GIVEN_BACK.code)

        return self._resolve(order_id, plan_it)

    def _taken(self, connection: Connection, order: Order) -> int:
        """Return the amount that the ledger has charged for an order already, in winston."""
        try:
            return self._ledger.get_transfer(connection, ledger.post_id(order.hold_id)).amount
        except ledger.TransferNotFound:
            return 0

    def _resolve(
        self,
        order_id: str,
        plan_it: Callable[[Connection, Aside, ClosingBatch, int], Order],
    ) -> Receipt:
        tried: ClosingResult | None = None

        def step(connection: Connection) -> tuple[Order, ClosingResult]:
            nonlocal tried
            order = order_sql.get_orders(connection, [order_id], lock=True).get(order_id)
            if order is None:
                raise OrderNotFound(order_id)
            aside = set_aside_sql.find(connection, order)
            if aside is None and tried is not None:
                return order, tried  # it was committed, and nobody heard of it
            if aside is None:
                refused = InvalidRequest(
                    f"Order {order_id} is {order.state} and not set aside.",
                    state=order.state.value,
                )
                refused.hint = "`herd order aside list` shows those that are."
                raise refused
            plan, done, now_us = ClosingBatch(), ClosingResult(), self._clock_us()
            resolved = plan_it(connection, aside, plan, now_us)
            set_aside_sql.remove(connection, order_id)
            plan.write(connection, self._ledger, now_us)
            if resolved.state is State.FAILED and resolved.charged:
                resolved = self._refund(connection, resolved)
            done.note(plan)
            done.models.add(order.model)
            tried = done
            return resolved, done

        try:
            order, done = self._database.settle(step)
        except (OrderNotFound, InvalidRequest):
            raise
        except Exception as error:
            if not is_about_an_order(error):
                raise
            raise RefundRefused(
                f"Order {order_id} stays set aside, and its fee held: {why(error).rstrip('.')}."
            ) from error
        if self._tell is not None:
            self._tell(order, done)
        return receipt_of(order)

    def _refund(self, connection: Connection, order: Order) -> Order:
        """Give back what an order that failed was charged all the same."""
        refund_id = str(uuid5(UUID(order.id), "given back"))
        tags = {"reason": GIVEN_BACK.message}
        charged_by = ledger.post_id(order.hold_id)
        try:
            given = self._ledger.refund(connection, refund_id, charged_by, None, tags)
        except ledger.ExceedsRefundable:
            return order  # an operator gave it back before
        order_sql.add_refund(connection, order.id, given.amount)
        return replace(order, refunded=order.refunded + given.amount)


def _view(aside: Aside) -> AsideView:
    ending = aside.ending
    return AsideView(
        order=aside.order.id,
        account=aside.order.account,
        model=aside.order.model,
        held=aside.order.held,
        at_us=aside.at_us,
        was=aside.was,
        reason=aside.reason,
        ends_as=None if ending is None else ending.state.value,
        charge=None if ending is None else ending.charged,
    )
