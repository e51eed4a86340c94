"""The simulator finds things: faults are planted, and each is found by its rule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import text

from herder.domain.order import State
from herder.herd.heartbeats import HeartbeatProcessor
from herder.market import order_price as order_price_module
from herder.orders import cancellation as cancellation_module
from herder.orders import closing as closing_module
from herder.orders import intake as intake_module
from herder.orders import settlement as settlement_module
from herder.orders.cancellation import Cancellation
from herder.orders.closing import ClosingBatch
from herder.orders.dispatch import Dispatcher
from herder.orders.intake import OrderIntake
from herder.orders.settlement import Settlement
from herder.service.loop import Service
from herder.store import book as book_sql
from herder.store import herd as herd_sql
from herder.store import orders as order_sql
from herder.store import outbox as outbox_sql
from herder.webhooks import events
from ledger import Ledger
from tests.simulation.clockwork import Clockwork
from tests.simulation.herder import Parts
from tests.simulation.run import run_seed
from tests.simulation.truth import Truth
from tests.simulation.world import World
from workers.wire import Confirm, Outcome

SEEDS = range(1, 41)
ORDERS = 80


@pytest.fixture(autouse=True)
def _clean(clean_environment):
    """No settings of whoever runs the tests."""


def found(parts: Parts | None = None, prepare: Callable[[World], None] | None = None) -> str:
    """The first rule that breaks."""
    for seed in SEEDS:
        report = run_seed(seed, ORDERS, parts=parts, prepare=prepare)
        if report.rule is not None:
            print(f"seed {seed}, after {report.events} events: {report.rule}: {report.what}")
            return report.rule
    return "none"


def often(**troubles: float) -> Callable[[World], None]:
    """More of the troubles that a fault needs to show, so that few seeds have to be run."""

    def prepare(world: World) -> None:
        world.weather = replace(world.weather, **troubles)

    return prepare


def test_a_settlement_without_the_binding(monkeypatch):
    judge = settlement_module.judge

    def trusting(order, outcome, instance):
        if order is not None and order.attempt_open:
            order = replace(order, instance=instance)
        return judge(order, outcome, instance)

    monkeypatch.setattr(settlement_module, "judge", trusting)
    # The wrong worker's word ends the attempt, or fails the order, which the right one did not; if
    # the right one has spoken too, only the answer that the wrong one is given shows it.
    assert found(prepare=often(repeat=0.5)) in {"binding", "charge", "confirm"}


class _LaterHold(Ledger):
    """Remembers a hold instead of placing it."""

    def __init__(self, books: Ledger) -> None:
        super().__init__(books._clock, books.outside)
        self.waiting: list[tuple[Any, ...]] = []

    def hold(self, conn: Any, *asked: Any, **more: Any) -> Any:  # noqa: ARG002
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
            connection.execute(
                text("UPDATE orders SET attempt = attempt - 1 WHERE seq = :seq AND attempt > 1"),
                {"seq": step.seq},
            )

    monkeypatch.setattr(book_sql, "dispatch", same_again)
    assert found() == "attempt"


class CountsTwice(Dispatcher):
    def _room(self, workers, unclaimed):  # noqa: ARG002 (the fault)
        return super()._room(workers, 0)


def test_a_slot_that_is_counted_twice():
    assert found(Parts(dispatcher=CountsTwice)) == "capacity"


class _KeepsHolds(Ledger):
    def __init__(self, books: Ledger) -> None:
        super().__init__(books._clock, books.outside)

    def void_many(self, conn: Any, hold_ids: Any) -> Any:  # noqa: ARG002 (the fault)
        return None


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
        return replace(answer, outcome=outcome.model_copy(update={"generated": count}))


def test_a_charge_from_the_streams_count():
    def prepare(world: World) -> None:
        ChargesTheStream.truth = world.truth

    assert found(Parts(settlement=ChargesTheStream), prepare) == "charge"


def test_a_better_order_that_is_skipped(monkeypatch):
    best = book_sql.best

    def second_best(connection, model, limit, now_us):
        return best(connection, model, limit + 1, now_us)[1:] or best(
            connection, model, limit, now_us
        )

    monkeypatch.setattr(book_sql, "best", second_best)
    assert found() == "order"


# Cancellation


def charging(when: Callable[[Any], bool]) -> type[ClosingBatch]:
    """A plan that charges for a token that nobody delivered."""

    class Charges(ClosingBatch):
        def end(self, order, state, now_us, outcome, failure=None):
            if outcome is None and when(order):
                outcome = Outcome.model_construct(
                    order=order.id,
                    attempt=order.attempt,
                    nonce=order.nonce,
                    result="completed",
                    finish_reason="cancelled" if state is State.CANCELLED else "deadline",
                    text="",
                    generated=1,
                )
                ended = super().end(order, state, now_us, outcome, failure)
                self.ends[-1] = self.ends[-1]._replace(instance=None)  # as without an outcome
                return ended
            return super().end(order, state, now_us, outcome, failure)

    return Charges


def test_a_cancel_of_a_waiting_order_that_charges(monkeypatch):
    monkeypatch.setattr(cancellation_module, "ClosingBatch", charging(lambda order: order.waits))
    assert found() == "charge"


def test_an_overdue_end_that_charges(monkeypatch):
    monkeypatch.setattr(
        cancellation_module, "ClosingBatch", charging(lambda order: not order.waits)
    )
    assert found(prepare=often(hangs=0.9)) == "charge"


def test_an_expiry_that_ends_an_order_that_was_begun(monkeypatch):
    def late(order, now_us):
        return order.start_by_us is not None and order.start_by_us < now_us and order.waits

    def all_late(connection, now_us, limit):
        rows = connection.execute(
            text("SELECT id FROM orders WHERE state = 'queued' AND start_by_us < :now"),
            {"now": now_us},
        )
        found = order_sql.get_orders(connection, [row.id for row in rows])
        return list(found.values())[:limit]

    monkeypatch.setattr(cancellation_module, "_is_late", late)
    monkeypatch.setattr(book_sql, "late", all_late)
    assert found() == "start_by"


def test_a_call_off_that_is_forgotten(monkeypatch):
    monkeypatch.setattr(book_sql, "call_off", lambda *_: None)
    assert found() == "cancel"


def test_a_call_off_that_a_lapse_forgets(monkeypatch):
    give_up = Settlement._give_up

    def forgetful(self, connection, plan, order, now_us):
        give_up(self, connection, plan, replace(order, call_off=None), now_us)

    monkeypatch.setattr(Settlement, "_give_up", forgetful)
    assert found(prepare=often(worker_dies=0.1)) == "cancel"


class EndsTooEarly(Cancellation):
    """Waits for no worker: a cancelled order that runs is over at once."""

    def cancel(self, order_id, *, account=None):
        order = super().cancel(order_id, account=account)
        if order.state is State.RUNNING:
            with self._database.write() as connection:
                plan = ClosingBatch()
                order = plan.end(order, State.CANCELLED, self._clock_us(), None)
                plan.write(connection, self._ledger, self._clock_us())
        return order


def test_a_cancelled_order_that_does_not_wait_for_its_worker():
    assert found(Parts(cancellation=EndsTooEarly)) == "lease"


class Anybodys(Cancellation):
    def cancel(self, order_id, *, account=None):  # noqa: ARG002 (the fault)
        return super().cancel(order_id)


def test_a_cancel_by_another_account():
    assert found(Parts(cancellation=Anybodys)) == "others"


# Late answers


def test_a_late_answer_that_counts_after_its_order_was_sent_out_again(monkeypatch):
    judge = settlement_module.judge

    def forgiving(order, outcome, instance):
        if order is not None and order.attempt_open and outcome.attempt < order.attempt:
            return "accept"
        return judge(order, outcome, instance)

    monkeypatch.setattr(settlement_module, "judge", forgiving)
    assert found(prepare=often(worker_cut_off=0.1, worker_stops=0.1)) == "binding"


def test_a_late_answer_that_is_lost(monkeypatch):
    """What lapsed and was not sent out again may still be answered."""
    judge = settlement_module.judge

    def impatient(order, outcome, instance):
        if order is not None and order.state is State.QUEUED:
            return "void"
        return judge(order, outcome, instance)

    monkeypatch.setattr(settlement_module, "judge", impatient)
    assert found() == "void"


def test_a_purge_of_what_still_runs(monkeypatch):
    ended = order_sql.ended_with_text

    def too_many(connection, **asked):
        rows = connection.execute(text("SELECT id FROM orders WHERE state = 'running'"))
        return [*ended(connection, **asked), *(row.id for row in rows)]

    monkeypatch.setattr(order_sql, "ended_with_text", too_many)
    assert found() == "purge"


# Quotes


def test_a_quote_whose_rates_are_forgotten(monkeypatch):
    price = order_price_module.price

    def forgetful(connection, call, now_us):
        return price(connection, replace(call, quote=None), now_us)

    monkeypatch.setattr(intake_module, "price", forgetful)
    assert found() == "quote"


def test_a_quote_that_holds_for_ever(monkeypatch):
    require = order_price_module.require_quoted

    def patient(terms, *, now_us, **order):
        require(terms, now_us=0, **order)

    monkeypatch.setattr(order_price_module, "require_quoted", patient)
    assert found() in ("price", "quote")


def test_a_plan_that_tells_nobody(monkeypatch):
    monkeypatch.setattr(events, "queue_ends", lambda *_: None)
    assert found() == "webhooks"


def test_a_plan_that_tells_of_failures_and_cancellations_alone(monkeypatch):
    queue_ends = events.queue_ends

    def most(connection, ended, now_us):
        queue_ends(connection, [one for one in ended if one.charged == 0], now_us)

    monkeypatch.setattr(events, "queue_ends", most)
    assert found() == "webhooks"


def test_an_answer_that_is_forgotten(monkeypatch):
    monkeypatch.setattr(closing_module, "deliver", lambda *_: None)
    assert found() == "answer"


def test_an_answer_in_a_transaction_of_its_own(monkeypatch):
    deliver, late = closing_module.deliver, []

    def later(connection, letters, now_us):
        deliver(connection, late, now_us)
        late[:] = letters

    monkeypatch.setattr(closing_module, "deliver", later)
    assert found() == "answer"
