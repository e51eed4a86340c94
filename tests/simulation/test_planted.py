"""The simulator finds things: faults are planted, and each is found by its rule."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import text

from herder.herd.heartbeats import HeartbeatProcessor
from herder.market import order_price as order_price_module
from herder.orders import intake as intake_module
from herder.orders import settlement as settlement_module
from herder.orders.dispatch import Dispatcher
from herder.orders.intake import OrderIntake
from herder.orders.settlement import Settlement
from herder.service.loop import Service
from herder.store import book as book_sql
from herder.store import herd as herd_sql
from herder.store import outbox as outbox_sql
from ledger import Ledger
from tests.simulation import planting
from tests.simulation.clockwork import Clockwork
from tests.simulation.herder import Parts
from tests.simulation.planting import found, often, reached
from tests.simulation.truth import Truth
from tests.simulation.world import World
from workers.wire import Confirm


@pytest.fixture(autouse=True)
def _clean(clean_environment):
    """No settings of whoever runs the tests."""


def test_a_settlement_without_the_binding(monkeypatch):
    judge_attempt = settlement_module.judge_attempt

    def trusting(order, held, instance):
        if order is not None and order.attempt_open:
            if order.instance not in (None, instance):
                reached()
            order = replace(order, instance=instance)
        return judge_attempt(order, held, instance)

    monkeypatch.setattr(settlement_module, "judge_attempt", trusting)
    # The wrong worker's word ends the attempt, or fails the order, which the right one did not; if
    # the right one has spoken too, only the answer that the wrong one is given shows it.
    assert found(prepare=often(repeat=0.5)) in {"binding", "charge", "confirm"}


class _LaterHold(Ledger):
    """Remembers a hold instead of placing it."""

    def __init__(self, books: Ledger) -> None:
        super().__init__(books._clock, books.outside)
        self.waiting: list[tuple[Any, ...]] = []

    def hold(self, conn: Any, *asked: Any, **more: Any) -> Any:  # noqa: ARG002
        reached()
        self.waiting.append((asked, more))


class HoldsLater(OrderIntake):
    def submit(self, call):
        books = self._ledger
        self._ledger = later = _LaterHold(books)
        order = super().submit(call)
        self._ledger = books
        for asked, more in later.waiting:
            with self._database.write() as connection:
                books.hold(connection, *asked, **more)
        return order


def test_a_hold_outside_of_the_transaction():
    assert found(Parts(intake=HoldsLater)) == "hold"


class PublishesFirst(Dispatcher):
    def _take(self, model):
        of = outbox_sql.of_orders

        def hasty(connection, ids):
            messages = of(connection, ids)
            reached()
            self._publish(messages)
            return messages

        outbox_sql.of_orders = hasty
        try:
            return super()._take(model)
        finally:
            outbox_sql.of_orders = of


def test_a_publish_before_the_commit():
    assert found(Parts(dispatcher=PublishesFirst)) == "published"


def test_a_dispatch_that_does_not_raise_the_attempt(monkeypatch):
    dispatch = book_sql.dispatch

    def same_again(connection, steps):
        dispatch(connection, steps)
        for step in steps:
            reached()
            connection.execute(
                text("UPDATE orders SET attempt = attempt - 1 WHERE seq = :seq AND attempt > 1"),
                {"seq": step.seq},
            )

    monkeypatch.setattr(book_sql, "dispatch", same_again)
    assert found() == "attempt"


class CountsTwice(Dispatcher):
    def _room(self, workers, unclaimed):
        if unclaimed:
            reached()
        return super()._room(workers, 0)


def test_a_slot_that_is_counted_twice():
    assert found(Parts(dispatcher=CountsTwice)) == "capacity"


class _KeepsHolds(Ledger):
    def __init__(self, books: Ledger) -> None:
        super().__init__(books._clock, books.outside)

    def void_many(self, conn: Any, hold_ids: Any) -> Any:  # noqa: ARG002 (the fault)
        reached()


class KeepsOldHold(OrderIntake):
    def rebid(self, *asked, **more):
        books = self._ledger
        self._ledger = _KeepsHolds(books)
        try:
            return super().rebid(*asked, **more)
        finally:
            self._ledger = books


def test_a_rebid_that_keeps_the_old_hold():
    assert found(Parts(intake=KeepsOldHold)) == "rebid"


class ConfirmsFirst(Service):
    def _settle(self, answers):
        reached()
        self._announcer.control(
            [(one.instance, Confirm(held=(one.outcome.held,))) for one in answers],
        )
        return super()._settle(answers)


def test_a_confirm_before_the_commit():
    assert found(Parts(service=ConfirmsFirst)) == "confirm"


class CountsWithoutListening(HeartbeatProcessor):
    """A second is added when it has passed, and not when its marker was read among the beats."""

    time: Clockwork

    def mark(self):
        number = super().mark()
        if number is not None:
            reached()
            with self._database.write() as connection:
                herd_sql.hear_mark(connection, number, self.time.now_us)
        return number


def test_a_lease_that_runs_while_no_herder_listens():
    def prepare(world: World) -> None:
        CountsWithoutListening.time = world.time

    assert found(Parts(herd=CountsWithoutListening), prepare) == "lease"


class ChargesTheStream(Settlement):
    truth: Truth

    def settle(self, answers):
        return super().settle([self._streamed(answer) for answer in answers])

    def _streamed(self, answer):
        outcome = answer.outcome
        count = self.truth.streamed.get((outcome.order, outcome.attempt), outcome.generated)
        if count != outcome.generated:
            reached()
        return replace(answer, outcome=outcome.model_copy(update={"generated": count}))


def test_a_charge_from_the_streams_count():
    def prepare(world: World) -> None:
        ChargesTheStream.truth = world.truth

    assert found(Parts(settlement=ChargesTheStream), prepare) == "charge"


def test_a_better_order_that_is_skipped(monkeypatch):
    best = book_sql.best

    def second_best(connection, model, limit, now_us):
        behind = best(connection, model, limit + 1, now_us)[1:]
        if behind:
            reached()
        return behind or best(connection, model, limit, now_us)

    monkeypatch.setattr(book_sql, "best", second_best)
    assert found() == "order"


# Quotes


def test_a_quote_whose_rates_are_forgotten(monkeypatch):
    price = order_price_module.price

    def forgetful(connection, call, now_us):
        if call.quote is not None:
            reached()
        return price(connection, replace(call, quote=None), now_us)

    monkeypatch.setattr(intake_module, "price", forgetful)
    assert found() == "quote"


def test_a_quote_that_holds_for_ever(monkeypatch):
    require = order_price_module.require_quoted

    def patient(terms, *, now_us, **order):
        if now_us:
            reached()
        require(terms, now_us=0, **order)

    monkeypatch.setattr(order_price_module, "require_quoted", patient)
    assert found() in ("price", "quote")


# The planting itself


def test_a_fault_that_is_planted_where_nobody_comes_by_is_told(monkeypatch):
    monkeypatch.setattr(planting, "SEEDS", range(1, 2))
    monkeypatch.setattr(planting, "ORDERS", 5)
    with pytest.raises(AssertionError, match="never reached"):
        found()
    broken = SimpleNamespace(rule="charge", what="a word", events=1)
    monkeypatch.setattr(planting, "run_seed", lambda *_, **__: broken)
    with pytest.raises(AssertionError, match="without the planted fault"):
        found()
