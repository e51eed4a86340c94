"""One order whose end is refused stops nobody else: it is set aside, and an operator goes on."""

from __future__ import annotations

import json

import pytest
from sqlalchemy import select, update

import ledger
from herder.db.tables import order_text, outbox
from herder.db.tables import orders as orders_table
from herder.db.tables import set_aside as aside_table
from herder.duties import runner
from herder.errors import HerdUnavailable, InvalidRequest, OrderNotFound, RefundRefused
from herder.orders import closer, closing
from herder.store import deliveries as delivery_sql

NOBODY = "00000000-0000-4000-8000-000000000000"


def break_hold(house, order, hold=NOBODY):
    """From now on the ledger refuses the end of this order."""
    with house.database.write() as connection:
        connection.execute(
            update(orders_table).where(orders_table.c.id == order.id).values(hold_id=hold)
        )


def mend_hold(house, order):
    break_hold(house, order, order.hold_id)


def states(house, orders):
    return [house.order(order.id).state for order in orders]


def aside_of(house, order):
    (one,) = [one for one in house.aside.list() if one.order == order.id]
    return one


def test_one_order_that_cannot_end_keeps_no_other_from_lapsing(make_house):
    house = make_house(max_attempts=1)
    house.fund(1000)
    orders = [house.submit() for _ in range(20)]
    worker = house.worker(slots=20)
    for job in house.dispatch():
        worker.claim(job)
    break_hold(house, orders[7])
    settled = house.lapse(house.settings.lease_s + 1)
    assert set(settled.ended) == {one.id for one in orders if one is not orders[7]}
    assert states(house, orders) == ["failed"] * 7 + ["set_aside"] + ["failed"] * 12
    assert (house.held(), house.order(orders[7].id).held) == (13, 13)
    assert "set_aside" in house.events(orders[7].id)

    # It takes part in nothing any more.
    assert house.settlement.lapse().models == set()
    house.herd.sweep()
    other = house.worker(slots=5)
    assert house.dispatch() == []
    house.pass_s(house.settings.lease_s * 3, other)
    assert house.settlement.lapse().ended == house.cancellation.sweep().ended == []
    assert house.cancellation.cancel(orders[7].id).state == "set_aside"

    one = aside_of(house, orders[7])
    assert (one.held, one.was, one.ends_as, one.charge) == (13, "running", "failed", 0)
    assert "There is no transfer" in one.reason
    with pytest.raises(RefundRefused, match="stays set aside"):
        house.aside.retry(orders[7].id)
    assert house.order(orders[7].id).state == "set_aside"
    mend_hold(house, orders[7])
    assert house.aside.retry(orders[7].id).state == "failed"
    assert (house.held(), house.aside.count()) == (0, 0)


def test_one_order_that_cannot_end_keeps_no_other_from_expiring(house):
    orders = [house.submit(start_by_us=house.now_us + 10**6) for _ in range(5)]
    break_hold(house, orders[2])
    house.now_us += 2 * 10**6
    settled = house.cancellation.sweep()
    assert len(settled.ended) == 4
    assert states(house, orders) == ["expired", "expired", "set_aside", "expired", "expired"]
    assert house.cancellation.sweep().ended == []
    mend_hold(house, orders[2])
    assert house.aside.retry(orders[2].id).returned == 13


def test_what_is_refused_only_once_sets_nothing_aside(house, monkeypatch):
    """Something else that happened at the same moment may have been in the way."""
    worker = house.worker(slots=1)
    order = house.submit(fee=26)
    (job,) = house.dispatch()
    queue_ends, refusals = closing.webhooks.queue_ends, [ValueError("planted")]

    def refuses_once(*given):
        if refusals:
            raise refusals.pop()
        queue_ends(*given)

    monkeypatch.setattr(closing.webhooks, "queue_ends", refuses_once)
    assert worker.finish(job, generated=5, text="mine").ended == [order.id]
    assert (states(house, [order]), house.aside.count()) == (["completed"], 0)
    assert house.order(order.id).charged == 16


def test_an_outcome_that_the_ledger_refuses_is_kept_whole(house):
    """Its worker may forget it: text, tokens and charge are here, and count once it is retried."""
    worker = house.worker(slots=3)
    orders = [house.submit(fee=26) for _ in range(3)]
    jobs = {job.order: job for job in house.dispatch()}
    break_hold(house, orders[1])
    said = {"generated": 5, "text": "hm mine", "reasoning": 3, "reasoning_tokens": 2}
    answers = [worker.answer(jobs[one.id], **said) for one in orders]
    settled = house.settlement.settle(answers)
    assert {held.order for _, held in settled.confirmed} == {one.id for one in orders}
    assert states(house, orders) == ["completed", "set_aside", "completed"]
    one = aside_of(house, orders[1])
    assert (one.ends_as, one.charge, one.held) == ("completed", 16, 26)
    stored = json.dumps([row.ending for row in rows_of(house, aside_table)])
    assert "mine" not in stored, "texts stand in order_text alone"
    again = worker.finish(jobs[orders[1].id], generated=10, text="more")
    assert [held.order for _, held in again.confirmed] == [orders[1].id], (
        "it comes again: confirmed"
    )

    mend_hold(house, orders[1])
    receipt = house.aside.retry(orders[1].id)
    assert (receipt.state, receipt.charged, receipt.returned) == ("completed", 16, 10)
    kept = house.kept(orders[1].id)
    assert (kept.answer, kept.reasoning, receipt.generated) == ("mine", "hm ", 5)


def rows_of(house, table):
    with house.database.read() as connection:
        return connection.execute(select(table)).all()


def test_what_a_webhook_refuses_is_set_aside_alone(house, monkeypatch):
    add = delivery_sql.add_deliveries
    house.webhooks.create("default", "https://ada.example/")
    orders = [house.submit(start_by_us=house.now_us + 10**6) for _ in range(4)]

    def refuse(connection, rows):
        if any(row.subject == orders[3].id for row in rows):
            raise KeyError("types")
        add(connection, rows)

    monkeypatch.setattr(delivery_sql, "add_deliveries", refuse)
    house.now_us += 2 * 10**6
    assert len(house.cancellation.sweep().ended) == 3
    assert aside_of(house, orders[3]).reason == "Its end cannot be worked out (KeyError)."
    monkeypatch.undo()
    assert house.aside.retry(orders[3].id).state == "expired"


def test_a_cancellation_that_is_refused_sets_the_order_aside(house):
    order = house.submit()
    break_hold(house, order)
    assert house.cancellation.cancel(order.id).state == "set_aside"
    assert aside_of(house, order).ends_as == "cancelled"
    mend_hold(house, order)
    assert house.aside.give_back(order.id).returned == 13


def test_an_end_that_cannot_be_worked_out_waits_again_when_it_is_retried(house, monkeypatch):
    worker = house.worker()
    order = house.submit()
    job = house.dispatched()
    worker.claim(job)
    apply = house.settlement._apply
    monkeypatch.setattr(house.settlement, "_apply", lambda *_: 1 // 0)
    settled = worker.finish(job)
    assert [held for _, held in settled.void] == [job.held, job.held]
    assert aside_of(house, order).ends_as is None
    monkeypatch.setattr(house.settlement, "_apply", apply)
    assert house.aside.retry(order.id).state == "queued"
    worker.finish(house.dispatched())
    assert house.order(order.id).state == "completed"


def test_one_that_was_cancelled_never_waits_again(house, monkeypatch):
    worker = house.worker()
    order = house.submit()
    job = house.dispatched()
    worker.claim(job)
    house.cancellation.cancel(order.id)
    monkeypatch.setattr(house.settlement, "_apply", lambda *_: 1 // 0)
    worker.finish(job, finish_reason="cancelled")
    assert aside_of(house, order).ends_as is None
    receipt = house.aside.retry(order.id)
    assert (receipt.state, receipt.charged, receipt.returned) == ("cancelled", 0, 13)
    assert house.dispatch() == []


def test_what_was_charged_already_is_given_back_as_a_refund(house):
    order = house.submit(fee=26)
    with house.database.write() as connection:
        house.books.post(connection, order.hold_id, 20)
    assert house.cancellation.cancel(order.id).state == "set_aside"
    with pytest.raises(RefundRefused, match="already posted"):
        house.aside.retry(order.id)
    receipt = house.aside.give_back(order.id)
    assert (receipt.state, receipt.charged, receipt.returned) == ("failed", 20, 6)
    assert (receipt.refunded, house.available(), house.held()) == (20, 100_000, 0)
    assert receipt.failure["code"] == "given_back"
    with pytest.raises(InvalidRequest, match="is failed and not set aside"):
        house.aside.give_back(order.id)
    with pytest.raises(OrderNotFound):
        house.aside.retry(NOBODY)


def test_an_outage_sets_nothing_aside(house, monkeypatch):
    order = house.submit()

    def busy(*_):
        raise ledger.LedgerBusy("others hold the locks")

    monkeypatch.setattr(house.books, "void_many", busy)
    with pytest.raises(closer.HerdUnavailable):
        house.cancellation.cancel(order.id)
    assert house.order(order.id).state == "queued"


def test_those_set_aside_are_listed_a_page_at_a_time(house):
    orders = [house.submit() for _ in range(3)]
    for order in orders:
        break_hold(house, order)
        house.cancellation.cancel(order.id)
    ids = sorted(order.id for order in orders)
    assert house.aside.count() == 3
    assert [one.order for one in house.aside.list(limit=2)] == ids[:2]
    assert [one.order for one in house.aside.list(after=ids[1])] == ids[2:]
    for order in orders:
        mend_hold(house, order)
        house.aside.give_back(order.id)


# More at once than the ledger takes


def crowd(make_house, count):
    """So many orders that run, on a herd that tries each once."""
    house = make_house(policy={"max_open_orders": 0}, max_attempts=1)
    house.fund(100_000)
    orders = [house.submit() for _ in range(count)]
    workers = [house.worker(slots=220) for _ in range(-(-count // 220))]
    jobs = []
    while len(jobs) < len(orders):
        jobs += house.dispatch()
    with house.database.read() as connection:
        sent = dict(connection.execute(select(orders_table.c.id, orders_table.c.instance)).all())
    for worker in workers:
        worker.held = [job.held for job in jobs if sent[job.order] == worker.instance]
        worker.beat()
    return house, workers, jobs, orders


def test_a_fleet_that_is_lost_on_its_last_try_ends_in_pieces(make_house):
    house, _, _, orders = crowd(make_house, 11)
    house.pass_s(house.settings.lease_s + 1)
    pieces = [house.settlement.lapse(limit=4) for _ in range(3)]
    assert [len(one.ended) for one in pieces] == [4, 4, 3]
    assert [one.more for one in pieces] == [True, True, False]
    assert {order for one in pieces for order in one.ended} == {order.id for order in orders}
    assert house.held() == 0


def test_no_piece_is_larger_than_the_ledger_takes():
    assert max(closer.PIECE, runner.BATCH) <= ledger.MAX_BATCH


def test_a_mass_cancel_ends_in_pieces(make_house):
    house, _, _, orders = crowd(make_house, 11)
    for order in orders:
        house.cancellation.cancel(order.id)
    house.pass_s(house.settings.lease_s + 1)
    pieces = [house.cancellation.sweep(limit=4) for _ in range(3)]
    assert [len(one.ended) for one in pieces] == [4, 4, 3]
    assert [one.more for one in pieces] == [True, True, False]
    assert house.held() == 0


def test_outcomes_are_settled_in_pieces(make_house, monkeypatch):
    house, (worker,), jobs, _ = crowd(make_house, 11)
    monkeypatch.setattr(closer, "PIECE", 4)
    written = []
    write = closer.ClosingBatch.write
    monkeypatch.setattr(
        closer.ClosingBatch,
        "write",
        lambda plan, *more: written.append(len(plan.ended)) or write(plan, *more),
    )
    settled = house.settlement.settle([worker.answer(job, text="so") for job in jobs])
    assert written == [4, 4, 3]
    assert len(settled.ended) == len(settled.confirmed) == 11
    assert house.held() == 0


# What cannot be read


def store(house, order, change):
    """Store a request as another herder would have."""
    with house.database.write() as connection:
        where = order_text.c.order_id == order.id
        asked = connection.execute(select(order_text.c.request).where(where)).scalar_one()
        change(asked)
        connection.execute(update(order_text).where(where).values(request=asked))


def test_a_field_that_a_newer_herder_wrote_is_left_out(house):
    order = house.submit()
    store(house, order, lambda asked: asked["sampling"].update(xtc=0.5) or asked.update(new=[1]))
    house.worker()
    assert house.dispatched().order == order.id


BROKEN = {
    "a bias beyond a bound that was wider": lambda a: a["sampling"].update(
        logit_bias={str(2**31): 1.0}
    ),
    "a role that nobody has": lambda a: a.update(
        messages=[{"role": "judge", "content": "?"}], prompt=None
    ),
    "nothing": lambda a: a.clear(),
    "what stops it is a number": lambda a: a.update(stop=3),
    "longer than a message may be": lambda a: a.update(prompt="x" * (2**20 + 1)),
    "no text": lambda a: a.update(prompt="\ud800"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_what_cannot_be_sent_ends_at_once_and_the_others_go_out_in_order(house, how):
    orders = [house.submit(fee=fee) for fee in (90, 80, 70, 60, 50)]
    store(house, orders[1], BROKEN[how])
    house.worker(slots=3)
    jobs = house.dispatch()
    assert [job.order for job in jobs] == [orders[place].id for place in (0, 2, 3)]
    failed = house.order(orders[1].id)
    assert (failed.state, failed.charged, failed.returned) == ("failed", 0, 80)
    assert failed.failure["code"] in ("unreadable_request", "not_sendable")
    assert "Error" not in failed.failure["message"]
    assert house.held() == 90 + 70 + 60 + 50


def test_it_ends_at_once_on_an_idle_herd_too(house):
    order = house.submit()
    store(house, order, BROKEN["longer than a message may be"])
    house.worker()
    done = house.dispatcher.dispatch("stub")
    assert (done.free, done.settled.ended) == (True, [order.id])
    failure = house.order(order.id).failure
    assert failure["message"] == "Its prompt is beyond what can be sent to a worker."
    assert house.held() == 0


def test_what_ended_as_it_cannot_be_sent_is_told_though_the_database_goes_away(house, monkeypatch):
    order = house.submit()
    house.worker(slots=3)
    store(house, order, BROKEN["nothing"])
    take = house.dispatcher._take

    def take_once(model):
        if house.order(order.id).state.ended:
            raise HerdUnavailable("It is away.")
        return take(model)

    monkeypatch.setattr(house.dispatcher, "_take", take_once)
    service = house.new_service()
    monkeypatch.setattr(service, "_dispatcher", house.dispatcher)
    told = []
    monkeypatch.setattr(service._announcer, "tell", told.append)
    service.wake(["stub"])
    assert service.work(0)
    assert [one for settled in told for one in settled.ended] == [order.id]


@pytest.mark.parametrize("how", ["nothing", "gone"])
def test_what_was_sent_out_already_and_cannot_be_read_ends_alone(house, how):
    """The herder that dispatched them died before it published any."""
    orders = [house.submit() for _ in range(3)]
    house.worker(slots=3)
    house.publisher.away = OSError("no broker")
    assert house.dispatch() == []
    if how == "gone":
        with house.database.write() as connection:
            connection.execute(order_text.delete().where(order_text.c.order_id == orders[1].id))
    else:
        store(house, orders[1], BROKEN[how])
    house.publisher.away = None
    house.now_us += 6_000_000
    settled = house.dispatcher.sweep()
    assert settled.ended == [orders[1].id]
    assert {job.order for job in house.jobs(house.publisher.tokens)} == {
        orders[0].id,
        orders[2].id,
    }
    assert house.order(orders[1].id).returned == 13


def test_what_cannot_be_sent_nor_ended_is_set_aside(house):
    orders = [house.submit(fee=fee) for fee in (30, 20)]
    store(house, orders[0], BROKEN["nothing"])
    break_hold(house, orders[0])
    house.worker()
    assert [job.order for job in house.dispatch()] == [orders[1].id]
    assert house.order(orders[0].id).state == "set_aside"
    mend_hold(house, orders[0])
    assert house.aside.retry(orders[0].id).state == "failed"


def test_the_outbox_is_tidied_in_pieces(house, monkeypatch):
    from herder.orders import dispatch

    monkeypatch.setattr(dispatch, "MAX_FORGOTTEN", 2)
    order = house.submit()
    with house.database.write() as connection:
        rows = [{"order_id": order.id, "attempt": 9, "created_us": 1} for _ in range(3)]
        connection.execute(outbox.insert(), rows)
    assert house.dispatcher.sweep().more
    assert house.outbox_rows() == 1
    assert not house.dispatcher.sweep().more
    assert house.outbox_rows() == 0
