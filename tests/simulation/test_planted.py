"""The simulator finds things: faults are planted, and each is found by its rule."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import text

from herder.herd.heartbeats import HeartbeatProcessor
from herder.market import order_price as order_price_module
from herder.orders import dispatch as dispatch_module
from herder.orders import intake as intake_module
from herder.orders import settlement as settlement_module
from herder.orders.dispatch import Dispatcher
from herder.orders.intake import OrderIntake
from herder.orders.settlement import Settlement
from herder.service.loop import Service
from herder.store import book as book_sql
from herder.store import herd as herd_sql
from herder.store import outbox as outbox_sql
from herder.store.herd import Worker
from ledger import Ledger
from tests.simulation import planting
from tests.simulation import worker as worker_module
from tests.simulation.clockwork import Clockwork
from tests.simulation.herder import Parts
from tests.simulation.planting import found, reached
from tests.simulation.truth import Truth
from tests.simulation.world import World
from workers.wire import WORKER_QUEUES, Confirm, unseal

pytestmark = pytest.mark.timeout(1800)  # many seeds, which took 600 s at a load of 17


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
    # Attempts are addressed: only workers that take what was sent to others come in between.
    monkeypatch.setattr(worker_module, "unseal", for_anybody)
    # The wrong worker's word ends the attempt, or fails the order, which the right one did not; if
    # the right one has spoken too, only the answer that the wrong one is given shows it.
    assert found(prepare=misdeliver) in {"binding", "charge", "confirm"}


def for_anybody(token, keys, **given):
    """Open a message, whomever it was meant for."""
    claims = json.loads(urlsafe_b64decode(token.split(".")[1] + "==="))
    return unseal(token, keys, **{**given, "audience": claims["aud"]})


def misdeliver(world):
    """Bring half of what is sent to a worker to another one too."""
    arrive, rng = world.broker._arrive, world.time.rng

    def also_elsewhere(task):
        arrive(task)
        queues = [one for one in world.broker.takers if one.startswith(WORKER_QUEUES)]
        others = [one for one in queues if one != task.queue]
        if task.queue in queues and others and rng.random() < 0.5:
            arrive(replace(task, queue=rng.choice(others)))

    world.broker._arrive = also_elsewhere


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


def test_a_slot_that_is_counted_twice(monkeypatch):
    def empty(worker):
        if worker.out:
            reached()
        return replace(worker, out=0)

    room, place = dispatch_module.room, dispatch_module.place
    monkeypatch.setattr(dispatch_module, "room", lambda one, ahead: room(empty(one), ahead))
    monkeypatch.setattr(
        dispatch_module, "place", lambda here, *more: place([empty(one) for one in here], *more)
    )
    assert found() == "capacity"


def test_a_worker_that_is_sent_orders_before_a_message_reached_it(monkeypatch):
    def trusted(worker):
        if worker.hello != worker.answered:
            reached()
        return True

    monkeypatch.setattr(Worker, "reached", property(trusted))
    assert found() == "capacity"


def test_an_attempt_that_anybody_may_claim(monkeypatch):
    dispatch = book_sql.dispatch

    def to_nobody(connection, steps):
        reached()
        dispatch(connection, [step._replace(instance=None) for step in steps])

    monkeypatch.setattr(book_sql, "dispatch", to_nobody)
    assert found() == "attempt"


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

    assert found(Parts(herd=CountsWithoutListening), prepare, first=18) == "lease"


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

    def forgetful(connection, call, now_us, means):
        if call.quote is not None:
            reached()
        return price(connection, replace(call, quote=None), now_us, means)

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
