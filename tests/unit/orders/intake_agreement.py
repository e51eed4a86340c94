"""What the machine of `desk_machine` compares after each step, and how it picks what to act on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

from hypothesis.stateful import RuleBasedStateMachine, invariant
from sqlalchemy import select

from herder.accounts.accounts import client_account
from herder.db.tables import orders
from herder.errors import HerdError
from herder.store import accounts as account_sql
from herder.store import book as book_sql
from herder.store import models as model_sql
from herder.store import orders as order_sql
from tests.support.house import MODEL, FakeWorker, House, check_money
from tests.unit.orders.intake_house import FUNDS, HALF_LIFE_S, SETTINGS
from tests.unit.orders.intake_model import OPEN, Asked, Model
from workers.wire import InferenceJob


class DeskAgreement(RuleBasedStateMachine):
    """A real herd and a model of it, which have to agree."""

    house: House

    def __init__(self) -> None:
        super().__init__()
        self.house.database.begin()
        self.house = self.house.on(self.house.database)
        self.model = Model(
            now_us=self.house.now_us,
            half_life_s=HALF_LIFE_S,
            posted={**FUNDS, "default": 0},
            limits=dict.fromkeys(FUNDS, (0, 0)),
            paid_off_us=dict.fromkeys(FUNDS, 0),
            **SETTINGS,
        )
        self.workers: list[FakeWorker] = []
        self.jobs: list[InferenceJob] = []
        self.serial = 0

    def teardown(self) -> None:
        try:
            check_money(self.house.database, self.house.books)
        finally:
            self.house.database.undo()

    def expect(self, error: type[Exception] | None, call: Callable[[], Any]) -> Any:
        """It succeeds, or raises exactly this."""
        found: Any = None
        try:
            result = call()
        except HerdError as raised:
            result, found = None, type(raised)
        assert found is error, f"{found} where {error} was due"
        return result

    @invariant()
    def all_agree(self) -> None:
        house, model = self.house, self.model
        with house.database.read() as connection:
            for row in connection.execute(select(orders)):
                due = model.orders[row.id]
                now = order_sql.to_order(row)
                assert now.state == due.state, due
                assert (now.fee, now.needed, now.holds) == (due.fee, due.needed, due.holds), due
                money = (now.charged, now.returned, now.refunded, now.generated)
                assert money == (due.charged, due.returned, due.refunded, due.generated), due
                assert now.returned + now.charged == (0 if due.state in OPEN else due.fee)
                assert (now.attempt, now.attempt_open) == (due.attempt, due.open), due
                assert (now.instance, now.tries) == (due.to, due.tries), due
                assert (now.deadline_heard_s, now.overdue_heard_s) == (due.deadline, due.overdue)
                if due.state in OPEN:
                    assert (now.begun, now.call_off) == (due.begun, due.call_off), due
                    assert now.dispatches == due.dispatches, due
            for name in FUNDS:
                balance = house.books.get_balance(connection, client_account(name))
                assert (balance.posted, balance.pending) == (model.posted[name], model.held(name))
                standing = account_sql.standing(connection, name)
                assert standing is not None
                assert standing.open_orders == model.open_orders(name), name
            known = model_sql.get_model(connection, MODEL)
            assert known is not None
            assert known.last_multiplier == model.last
            line = book_sql.best(connection, MODEL, len(model.orders) + 1, model.now_us)
            assert [o.id for o in line] == [o.id for o in model.line()]
            report = house.books.audit(connection)
            assert report.clean, report.drifts
            assert report.open_holds == sum(o.state in OPEN for o in model.orders.values())

    # Picking

    def new_id(self) -> str:
        self.serial += 1
        return str(UUID(int=self.serial, version=4))

    def order(self, pick: int, states: tuple[str, ...]) -> Asked:
        """An order, in one of these states if there is one."""
        fitting = [o for o in self.model.orders.values() if o.state in states]
        return some(fitting or list(self.model.orders.values()), pick)

    def delivery(self, pick: int, who: int, which: str) -> tuple[InferenceJob, FakeWorker, Asked]:
        """A message and a worker.

        Of an `open` attempt, and the worker that it is with, or a `stranger` to it; of a `past`
        attempt of an order that was sent again, and the worker that the order is with now; or any.
        """
        wanted = {"open": self._is_current, "stranger": self._is_current, "past": self._is_past}
        found = [job for job in self.jobs if which == "any" or wanted[which](job)]
        job = some(found or self.jobs, pick)
        order = self.model.orders[job.order]
        with_it = [
            one
            for one in self.workers
            if which != "any" and (one.instance == order.to) != (which == "stranger")
        ]
        return job, some(with_it or self.workers, who), order

    def _is_current(self, job: InferenceJob) -> bool:
        order = self.model.orders[job.order]
        return order.open and order.attempt == job.attempt

    def _is_past(self, job: InferenceJob) -> bool:
        order = self.model.orders[job.order]
        return order.open and order.attempt > job.attempt


def some(items: list[Any], pick: int) -> Any:
    return items[pick % len(items)]
