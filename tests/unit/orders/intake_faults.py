"""Faults, each in one place of the real herd, that the machine of `desk_machine` has to notice."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from sqlalchemy import select, update

from herder.db.tables import orders
from herder.domain import charging as charging_module
from herder.domain.order import Order, State
from herder.market import order_price as order_price_module
from herder.orders import cancellation as cancellation_module
from herder.orders import closing as closing_module
from herder.orders import dispatch as dispatch_module
from herder.orders import intake as intake_module
from herder.orders import settlement as settlement_module
from herder.store import book as book_sql
from herder.store import models as model_sql
from herder.store import orders as order_sql
from herder.store.herd import Worker
from ledger import Ledger


def charges_the_whole_fee(monkeypatch):
    charge = charging_module.charge

    def whole(fee, need, rates, words, generated, *, whole=False):
        return charge(fee, need, rates, words, generated, whole=True)

    monkeypatch.setattr(charging_module, "charge", whole)


def a_new_bid_keeps_the_old_hold(monkeypatch):
    void_many = Ledger.void_many
    rebid = intake_module.OrderIntake.rebid

    def keeping(*args, **given):
        monkeypatch.setattr(Ledger, "void_many", lambda *_: [])
        try:
            return rebid(*args, **given)
        finally:
            monkeypatch.setattr(Ledger, "void_many", void_many)

    monkeypatch.setattr(intake_module.OrderIntake, "rebid", keeping)


def a_new_bid_keeps_the_old_place(monkeypatch):
    rebid = book_sql.rebid
    monkeypatch.setattr(
        book_sql,
        "rebid",
        lambda connection, order, fee, _, hold: rebid(connection, order, fee, order.rank, hold),
    )


def a_cancellation_is_not_counted_out(monkeypatch):
    class Forgetful(closing_module.ClosingBatch):
        def write(self, connection, books, now_us):
            self.accounts = Counter()
            super().write(connection, books, now_us)

    monkeypatch.setattr(cancellation_module, "ClosingBatch", Forgetful)


def equals_go_last_come_first(monkeypatch):
    last_first = book_sql._BEST.order_by(None).order_by(orders.c.rank.desc(), orders.c.seq.desc())
    monkeypatch.setattr(book_sql, "_BEST", last_first)


def the_second_best_goes_first(monkeypatch):
    best = book_sql.best
    monkeypatch.setattr(
        book_sql,
        "best",
        lambda connection, model, limit, now_us: best(connection, model, limit + 1, now_us)[1:],
    )


def what_comes_back_loses_its_place(monkeypatch):
    requeue = book_sql.requeue

    def behind(connection, rows):
        requeue(connection, rows)
        last = connection.execute(select(orders.c.seq).order_by(orders.c.seq.desc())).first()
        for number, row in enumerate(rows, 1):
            seq = last[0] + number
            connection.execute(update(orders).where(orders.c.seq == row.seq).values(seq=seq))

    monkeypatch.setattr(book_sql, "requeue", behind)


def what_lapsed_cannot_answer(monkeypatch):
    requeue = closing_module.ClosingBatch.requeue

    def closed(self, order, why, detail=None, *, still_open=False):
        return requeue(self, order, why, detail, still_open=False)

    monkeypatch.setattr(closing_module.ClosingBatch, "requeue", closed)


def old_attempts_may_answer(monkeypatch):
    judge = settlement_module.judge_attempt

    def forgiving(order, held, instance):
        if order is not None and order.nonce is not None and order.attempt_open:
            held = held.model_copy(update={"attempt": order.attempt, "nonce": order.nonce})
        return judge(order, held, instance)

    monkeypatch.setattr(settlement_module, "judge_attempt", forgiving)


def what_was_handed_back_counts_as_tried(monkeypatch):
    requeue = closing_module.ClosingBatch.requeue

    def tried(self, order, why, detail=None, *, still_open=False):
        if why == "handed_back":
            order = replace(order, tries=order.tries + 1)
        return requeue(self, order, why, detail, still_open=still_open)

    monkeypatch.setattr(closing_module.ClosingBatch, "requeue", tried)


def what_had_begun_is_too_late(monkeypatch):
    is_late = cancellation_module.is_too_late
    monkeypatch.setattr(
        cancellation_module,
        "is_too_late",
        lambda order, now_us: is_late(replace(order, begun=False), now_us),
    )
    late = book_sql._LATE
    anything = [one for one in late.whereclause.clauses if "begun" not in str(one)]
    assert len(anything) == len(late.whereclause.clauses) - 1
    monkeypatch.setattr(book_sql, "_LATE", select(orders).where(*anything).limit(100))


def the_last_multiplier_is_the_first(monkeypatch):
    best, note = book_sql.best, model_sql.set_last_multiplier
    first: list[Order] = []

    def remember(*given):
        chosen = best(*given)
        first[:] = chosen[:1]
        return chosen

    def note_first(connection, model, _fee, _needed, at_us):
        note(connection, model, first[0].fee, first[0].needed, at_us)

    monkeypatch.setattr(book_sql, "best", remember)
    monkeypatch.setattr(model_sql, "set_last_multiplier", note_first)


def a_key_is_forgotten(monkeypatch):
    monkeypatch.setattr(order_sql, "find_by_key", lambda *_: None)


def a_slot_is_counted_twice(monkeypatch):
    monkeypatch.setattr(Worker, "free", property(lambda self: self.usable_slots))
    monkeypatch.setattr(dispatch_module, "room", lambda worker, _: worker.usable_slots)
    monkeypatch.setattr(
        dispatch_module,
        "place",
        lambda workers, count, _: [
            one.instance for one in workers for _ in range(one.usable_slots)
        ][:count],
    )


def a_claim_does_not_renew(monkeypatch):
    monkeypatch.setattr(book_sql, "renew", lambda *_: None)


def what_is_out_is_not_ranked_anew(monkeypatch):
    queued = tuple(one.where(orders.c.state == State.QUEUED.value) for one in book_sql._OPEN)
    monkeypatch.setattr(book_sql, "_OPEN", queued)


def waiting_weighs_nothing(monkeypatch):
    rank = intake_module.rank
    for module in (intake_module, order_price_module):
        monkeypatch.setattr(module, "rank", lambda fee, need, **_: rank(fee, need))


def a_refund_is_noted_twice(monkeypatch):
    add = order_sql.add_refund
    monkeypatch.setattr(
        order_sql, "add_refund", lambda connection, one, amount: add(connection, one, 2 * amount)
    )


FAULTS = [
    charges_the_whole_fee,
    a_new_bid_keeps_the_old_hold,
    a_new_bid_keeps_the_old_place,
    a_cancellation_is_not_counted_out,
    equals_go_last_come_first,
    the_second_best_goes_first,
    what_comes_back_loses_its_place,
    what_lapsed_cannot_answer,
    old_attempts_may_answer,
    what_was_handed_back_counts_as_tried,
    what_had_begun_is_too_late,
    the_last_multiplier_is_the_first,
    a_key_is_forgotten,
    a_slot_is_counted_twice,
    a_claim_does_not_renew,
    what_is_out_is_not_ranked_anew,
    waiting_weighs_nothing,
    a_refund_is_noted_twice,
]
