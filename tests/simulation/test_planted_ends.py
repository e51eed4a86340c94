"""The simulator finds what ends, or is told of, as it should not: faults are planted here too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import text

from herder.domain.order import State
from herder.orders import cancellation as cancellation_module
from herder.orders import closer as closer_module
from herder.orders import closing as closing_module
from herder.orders import settlement as settlement_module
from herder.orders.cancellation import Cancellation
from herder.orders.closing import ClosingBatch
from herder.orders.settlement import Settlement
from herder.store import book as book_sql
from herder.store import orders as order_sql
from herder.webhooks import events
from tests.simulation.herder import Parts
from tests.simulation.planting import found, often, reached
from workers.wire import Outcome

pytestmark = pytest.mark.timeout(1800)  # many seeds, which took 600 s at a load of 17


@pytest.fixture(autouse=True)
def _clean(clean_environment):
    """No settings of whoever runs the tests."""


def charging(when: Callable[[Any], bool]) -> type[ClosingBatch]:
    """A batch that charges for a token that nobody delivered."""

    class Charges(ClosingBatch):
        def end(self, order, state, now_us, outcome, failure=None):
            if outcome is None and state is not State.FAILED and when(order):
                reached()
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
    overdue = charging(lambda order: not order.waits and order.call_off is None)
    monkeypatch.setattr(closer_module, "ClosingBatch", overdue)
    assert found(prepare=often(hangs=0.9)) == "charge"


def test_an_expiry_that_ends_an_order_that_was_begun(monkeypatch):
    def late(order, now_us):
        return order.start_by_us is not None and order.start_by_us < now_us and order.waits

    def all_late(connection, now_us, after, limit):
        rows = connection.execute(
            text("SELECT id FROM orders WHERE state = 'queued' AND start_by_us < :now"),
            {"now": now_us},
        )
        found = order_sql.get_orders(connection, [row.id for row in rows])
        if any(order.begun for order in found.values()):
            reached()
        return list(found.values())[:limit]

    monkeypatch.setattr(cancellation_module, "is_too_late", late)
    monkeypatch.setattr(book_sql, "late", all_late)
    assert found(first=5) == "start_by"


def test_a_call_off_that_is_forgotten(monkeypatch):
    monkeypatch.setattr(book_sql, "call_off", lambda *_: reached())
    assert found() == "cancel"


def test_a_call_off_that_a_lapse_forgets(monkeypatch):
    give_up = Settlement._give_up

    def forgetful(self, connection, plan, order, now_us):
        if order.call_off is not None:
            reached()
        give_up(self, connection, plan, replace(order, call_off=None), now_us)

    monkeypatch.setattr(Settlement, "_give_up", forgetful)
    assert found(prepare=often(worker_dies=0.1), first=8) == "cancel"


class EndsTooEarly(Cancellation):
    """Waits for no worker: a cancelled order that runs is over at once."""

    def cancel(self, order_id, *, account=None):
        order = super().cancel(order_id, account=account)
        if order.state is State.RUNNING:
            reached()
            with self._database.write() as connection:
                plan = ClosingBatch()
                order = plan.end(order, State.CANCELLED, self._clock_us(), None)
                plan.write(connection, self._ledger, self._clock_us())
        return order


def test_a_cancelled_order_that_does_not_wait_for_its_worker():
    assert found(Parts(cancellation=EndsTooEarly)) == "lease"


class Anybodys(Cancellation):
    def cancel(self, order_id, *, account=None):
        if account is not None:
            reached()
        return super().cancel(order_id)


def test_a_cancel_by_another_account():
    # The order ends although nobody whose it is asked for that, and then its stranger is told so.
    assert found(Parts(cancellation=Anybodys)) in {"cancel", "others"}


# Late answers


def test_a_late_answer_that_counts_after_its_order_was_sent_out_again(monkeypatch):
    judge_attempt = settlement_module.judge_attempt

    def forgiving(order, held, instance):
        if order is not None and order.attempt_open and held.attempt < order.attempt:
            reached()
            return "current"
        return judge_attempt(order, held, instance)

    monkeypatch.setattr(settlement_module, "judge_attempt", forgiving)
    assert found(prepare=often(worker_cut_off=0.1, worker_stops=0.1)) == "binding"


def test_a_late_answer_that_is_lost(monkeypatch):
    """What lapsed and was not sent out again may still be answered."""
    judge_attempt = settlement_module.judge_attempt

    def impatient(order, held, instance):
        if order is not None and order.state is State.QUEUED:
            reached()
            return "void"
        return judge_attempt(order, held, instance)

    monkeypatch.setattr(settlement_module, "judge_attempt", impatient)
    # Where any worker has room, what lapsed is sent out again at once.
    assert found(prepare=often(worker_cut_off=0.1, all_cut_off=0.1), first=4) == "void"


def test_a_purge_of_what_still_runs(monkeypatch):
    texts_after = order_sql.texts_after

    def too_many(connection, *asked, **more):
        rows = connection.execute(text("SELECT id FROM orders WHERE state = 'running'"))
        running = {row.id for row in rows}
        found = texts_after(connection, *asked, **more)
        if running & {one.id for one in found}:
            reached()
        return [one._replace(ended_us=0) if one.id in running else one for one in found]

    monkeypatch.setattr(order_sql, "texts_after", too_many)
    assert found(first=5) == "purge"


# Who is told of an end


def test_a_closing_batch_that_tells_nobody(monkeypatch):
    monkeypatch.setattr(events, "queue_ends", lambda _, ended, __: ended and reached())
    assert found() == "webhooks"


def test_a_closing_batch_that_tells_of_failures_and_cancellations_alone(monkeypatch):
    queue_ends = events.queue_ends

    def most(connection, ended, now_us):
        if any(one.charged for one in ended):
            reached()
        queue_ends(connection, [one for one in ended if one.charged == 0], now_us)

    monkeypatch.setattr(events, "queue_ends", most)
    assert found() == "webhooks"


def test_an_answer_that_is_forgotten(monkeypatch):
    monkeypatch.setattr(closing_module, "deliver", lambda _, letters, __: letters and reached())
    assert found() == "answer"


def test_an_answer_in_a_transaction_of_its_own(monkeypatch):
    deliver, late = closing_module.deliver, []

    def later(connection, letters, now_us):
        deliver(connection, late, now_us)
        if letters:
            reached()
        late[:] = letters

    monkeypatch.setattr(closing_module, "deliver", later)
    assert found() == "answer"
