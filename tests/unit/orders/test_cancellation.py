"""Orders that end before their time: cancelled, not begun by then, or overdue."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from herder.domain.parsing import parse_submission
from herder.errors import InvalidStartBy, OrderNotFound
from herder.orders.cancellation import Cancellation
from tests.support.house import stops
from workers.wire import Announcement, Beat, CancelAttempt, Claim


def ended(house, order):
    now = house.order(order.id)
    return now.state, now.charged, now.returned


@pytest.fixture
def house(make_house):
    house = make_house()
    house.fund(100_000)
    yield house
    house.check()


@pytest.fixture
def worker(house):
    return house.worker()


# Cancelled


def test_cancelling_what_is_queued_returns_everything_at_once(house):
    order = house.submit(fee=26)
    now = house.cancellation.cancel(order.id)
    assert (now.state, now.returned, now.call_off) == ("cancelled", 26, None)
    assert house.available() == 100_000
    assert house.events(order.id) == ["submitted", "cancelled"]
    house.worker()
    assert house.dispatch() == []


def test_cancelling_what_is_out_with_nobody_stops_whoever_shows_up(house, worker):
    order = house.submit(fee=26)
    job = house.dispatched()
    assert house.cancellation.cancel(order.id).state == "cancelled"
    assert stops(worker.claim(job), worker) == [job.held]
    assert worker.finish(job).void == [(worker.instance, job.held)]
    assert ended(house, order) == ("cancelled", 0, 26)


def test_cancelling_what_was_read_before_its_claim_charges_that(house, worker):
    order = house.submit(fee=26)
    job = house.dispatched()
    house.readers.read(job, 4, 5)
    now = house.cancellation.cancel(order.id)
    assert (now.state, now.call_off, now.instance) == ("dispatched", "cancelled", worker.instance)
    assert stops(worker.claim(job), worker) == [job.held]
    worker.finish(job, finish_reason="cancelled", generated=7, text="half of it")
    assert ended(house, order) == ("cancelled", 16, 10)
    assert house.answer(order.id) == "half"


def test_what_is_read_until_the_very_commit_of_a_cancellation_counts(house, worker, monkeypatch):
    order = house.submit(fee=26)
    job = house.dispatched()
    call_off = Cancellation._call_off

    def meanwhile(*asked):
        house.readers.read(job, 4, 5)
        return call_off(*asked)

    monkeypatch.setattr(Cancellation, "_call_off", meanwhile)
    assert house.cancellation.cancel(order.id).state == "dispatched"


def test_what_was_read_does_not_expire_before_its_claim_is_heard(house, worker):
    order = house.submit(fee=26, start_by_us=house.now_us + 1_000_000)
    job = house.dispatched()
    house.readers.read(job, 4, 5)
    house.cancellation.cancel(order.id)
    house.pass_s(2, worker)
    assert house.cancellation.sweep().ended == []
    assert stops(worker.claim(job), worker) == [job.held]
    worker.finish(job, finish_reason="cancelled", generated=7, text="half of it")
    assert ended(house, order) == ("cancelled", 16, 10)


def test_what_was_read_and_is_never_claimed_is_cancelled_in_the_end(house, worker):
    order = house.submit(fee=26)
    house.readers.read(house.dispatched(), 4, 5)
    house.cancellation.cancel(order.id)
    house.lapse(house.settings.claim_s + 1, worker)
    assert ended(house, order) == ("cancelled", 0, 26)


def test_what_was_read_and_runs_on_is_not_waited_for_longer_than_a_lease(house, worker):
    order = house.submit(fee=26)
    job = house.dispatched()
    house.readers.read(job, 4, 5)
    house.cancellation.cancel(order.id)
    worker.claim(job)
    house.pass_s(house.settings.lease_s + 1, worker)
    house.cancellation.sweep()
    assert ended(house, order) == ("cancelled", 0, 26)


def test_without_redis_what_is_out_with_nobody_is_cancelled_at_once(house, worker):
    order = house.submit(fee=26)
    house.readers.read(house.dispatched(), 4, 5)
    house.readers.away = True
    assert house.cancellation.cancel(order.id).state == "cancelled"


def test_cancelling_what_runs_charges_what_readers_were_given(house, worker):
    order = house.submit(fee=26)
    job = house.dispatched()
    worker.claim(job)
    house.readers.read(job, 4, 5)
    now = house.cancellation.cancel(order.id)
    assert (now.state, now.call_off, now.instance) == ("running", "cancelled", worker.instance)
    worker.finish(job, finish_reason="cancelled", generated=7, text="half of it")
    assert ended(house, order) == ("cancelled", 16, 10)
    assert house.answer(order.id) == "half"
    assert house.order(order.id).generated == 5


def test_cancelling_what_nobody_read_costs_nothing_and_nothing_is_kept(house, worker):
    order = house.submit(fee=26)
    job = house.dispatched()
    worker.claim(job)
    house.cancellation.cancel(order.id)
    worker.finish(job, finish_reason="cancelled", generated=7, text="half of it")
    assert ended(house, order) == ("cancelled", 0, 26)
    assert (house.answer(order.id), house.order(order.id).generated) == ("", 0)


def test_what_was_read_of_a_lost_attempt_is_not_charged_with_the_next(house, worker):
    order = house.submit(fee=26)
    job = house.dispatched()
    worker.claim(job)
    house.readers.read(job, 4, 5)
    house.lapse(house.settings.lease_s + 1)
    other = house.worker()
    again = house.dispatched()
    other.claim(again)
    house.cancellation.cancel(order.id)
    other.finish(again, finish_reason="cancelled", generated=7, text="other text")
    assert ended(house, order) == ("cancelled", 0, 26)
    assert house.answer(order.id) == ""


@pytest.mark.parametrize("reason", ["cancelled", "stop"])
def test_a_cancelled_order_waits_for_what_its_readers_were_given(house, worker, reason):
    order = house.submit(fee=26)
    job = house.dispatched()
    worker.claim(job)
    house.readers.read(job, 4, 5)
    house.cancellation.cancel(order.id)
    house.readers.away = True
    told = worker.finish(job, finish_reason=reason, generated=7, text="half of it")
    assert (told.confirmed, told.ended) == ([], [])
    assert house.order(order.id).state == "running"
    house.readers.away = False
    told = worker.finish(job, finish_reason=reason, generated=7, text="half of it")
    assert told.confirmed == [(worker.instance, job.held)]
    assert ended(house, order) == ("cancelled", 16, 10)


def test_no_reader_is_asked_for_where_nobody_cancelled(house, worker):
    order = house.submit(fee=26)
    worker.finish(house.dispatched(), generated=10)
    assert ended(house, order) == ("completed", 26, 0)
    assert house.readers.asked == []


def test_a_worker_is_told_again_with_each_beat(house, worker):
    order = house.submit()
    job = house.dispatched()
    worker.claim(job)
    house.cancellation.cancel(order.id)
    for _ in range(2):
        told = [body for _, body in worker.beat().control if isinstance(body, CancelAttempt)]
        assert [(one.held, one.reason) for one in told] == [(job.held, "cancelled")]


def test_cancelling_twice_and_after_the_end_changes_nothing(house, worker):
    order = house.submit(fee=26)
    job = house.dispatched()
    worker.claim(job)
    house.cancellation.cancel(order.id)
    assert house.cancellation.cancel(order.id).state == "running"
    house.readers.read(job, 100, 10)
    worker.finish(job, generated=10)  # it was done before it heard of it, and all was read
    assert house.cancellation.cancel(order.id).state == "completed"
    assert ended(house, order) == ("completed", 26, 0)
    assert house.events(order.id).count("cancel_asked") == 1


@pytest.mark.parametrize("how", ["hand_back", "fail", "lost", "mute"])
def test_a_cancelled_order_never_waits_again_and_costs_nothing(make_house, how):
    house = make_house(lease_s=3)
    house.fund(1000)
    worker = house.worker()
    order = house.submit(fee=26)
    job = house.dispatched()
    worker.claim(job)
    house.cancellation.cancel(order.id)
    if how == "hand_back":
        worker.hand_back(job)
    elif how == "fail":
        worker.fail(job, permanent=False)
    elif how == "lost":
        house.lapse(5)
    else:  # it beats on, and does not answer
        house.pass_s(5, worker)
        done = house.cancellation.sweep()
        assert (done.ended, done.void) == ([order.id], [(worker.instance, job.held)])
        assert stops(worker.beat(), worker) == [job.held]
    assert ended(house, order) == ("cancelled", 0, 26)
    house.check()


def test_a_lapsed_order_that_waits_again_is_cancelled_at_once(house, worker):
    order = house.submit(fee=26)
    job = house.dispatched()
    worker.claim(job)
    house.lapse(house.settings.lease_s + 1)
    assert house.cancellation.cancel(order.id).state == "cancelled"
    assert stops(worker.beat(), worker) == [job.held]
    assert worker.finish(job).void == [(worker.instance, job.held)]
    assert ended(house, order) == ("cancelled", 0, 26)


def test_another_accounts_order_is_not_found(house):
    order = house.submit()
    for wrong in (order.id, "no-such-order"):
        with pytest.raises(OrderNotFound):
            house.cancellation.cancel(wrong, account="thief")
    assert house.order(order.id).state == "queued"


def test_what_a_worker_stopped_unasked_is_tried_again(house, worker):
    order = house.submit(fee=26)
    worker.finish(house.dispatched(), finish_reason="cancelled", generated=5)
    assert house.order(order.id).state == "queued"
    worker.finish(house.dispatched(), generated=10)
    assert ended(house, order) == ("completed", 26, 0)


# Not begun by then


def test_what_is_not_begun_in_time_expires_and_costs_nothing(house):
    order = house.submit(fee=26, start_by_us=house.now_us + 5_000_000)
    later = house.submit(fee=26, start_by_us=house.now_us + 50_000_000)
    house.now_us += 5_000_001
    assert house.cancellation.sweep().ended == [order.id]
    assert ended(house, order) == ("expired", 0, 26)
    assert house.order(later.id).state == "queued"


def test_what_may_not_begin_any_more_is_not_sent_out(house, worker):
    order = house.submit(fee=50, start_by_us=house.now_us + 5_000_000)
    other = house.submit(fee=26)
    house.now_us += 5_000_001
    assert house.dispatched().order == other.id
    house.cancellation.sweep()
    assert house.order(order.id).state == "expired"


def test_a_worker_that_shows_up_too_late_is_told_to_stop(house, worker):
    order = house.submit(fee=26, start_by_us=house.now_us + 5_000_000)
    job = house.dispatched()
    house.now_us += 5_000_001
    assert stops(worker.claim(job), worker) == [job.held]
    house.cancellation.sweep()
    assert ended(house, order) == ("expired", 0, 26)


def test_once_begun_is_begun(house, worker):
    order = house.submit(fee=26, start_by_us=house.now_us + 5_000_000)
    worker.claim(house.dispatched())
    house.now_us += 60_000_000
    assert house.cancellation.sweep().ended == []
    house.lapse(house.settings.lease_s + 1)
    assert house.order(order.id).state == "queued"
    assert house.cancellation.sweep().ended == []
    house.herd.sweep()
    again = house.worker()
    again.finish(house.dispatched(), generated=10)
    assert ended(house, order) == ("completed", 26, 0)


def test_a_time_that_has_passed_is_refused_and_nothing_is_held(house):
    with pytest.raises(InvalidStartBy, match="passed"):
        house.submit(start_by_us=house.now_us)
    assert house.held() == 0


@pytest.mark.parametrize("wrong", ["soon", "2030-01-31T18:00:00", datetime(2030, 1, 1), 5, True])  # noqa: DTZ001
def test_a_time_needs_its_zone(wrong):
    with pytest.raises(InvalidStartBy, match="zone"):
        parse_submission("a", 1, account="a", max_prompt_bytes=10, start_by=wrong)


def test_a_time_is_read_to_the_microsecond():
    at = datetime(2030, 1, 31, 18, 0, 0, 7, tzinfo=UTC)
    for given in (at, at.isoformat(), at + timedelta(0)):
        call = parse_submission("a", 1, account="a", max_prompt_bytes=10, start_by=given)
        assert call.start_by_us == 1_896_112_800_000_007


# Overdue


def test_a_worker_that_keeps_an_order_beyond_its_limit_is_not_waited_for(make_house):
    house = make_house(lease_s=3)
    house.fund(1000)
    worker = house.worker()
    order = house.submit(fee=26, run_limit_s=5)
    job = house.dispatched()
    worker.claim(job)
    house.pass_s(8, worker)
    assert house.cancellation.sweep().ended == []
    house.pass_s(1, worker)
    done = house.cancellation.sweep()
    assert (done.ended, done.void) == ([order.id], [(worker.instance, job.held)])
    assert ended(house, order) == ("expired", 0, 26)
    assert worker.finish(job).void == [(worker.instance, job.held)]
    house.check()


def test_a_new_attempt_has_its_limit_anew(make_house):
    house = make_house(lease_s=3)
    house.fund(1000)
    worker = house.worker()
    order = house.submit(run_limit_s=5)
    worker.claim(house.dispatched())
    house.lapse(5)
    house.herd.sweep()
    other = house.worker()
    other.claim(house.dispatched())
    house.pass_s(7, other)
    assert house.cancellation.sweep().ended == []
    assert house.order(order.id).state == "running"


def test_a_beat_after_its_time_does_not_end_what_was_claimed_before(house, worker):
    order = house.submit(start_by_us=house.now_us + 5_000_000)
    job = house.dispatched()
    claim = replace(worker.envelope(Claim(held=(job.held,))), at_us=house.now_us)
    house.now_us += 6_000_000
    me = Announcement(name=worker.name, model=worker.model, slots=1, context=worker.context)
    beat = worker.envelope(Beat(number=worker.number + 1, worker=me, running=(job.held,)))
    told = house.herd.hear([claim, replace(beat, at_us=house.now_us)])
    assert stops(told, worker) == []
    assert house.order(order.id).state == "running"


# What can never run


def test_what_waits_for_more_tokens_than_the_model_holds_ends_when_that_is_known(house):
    """Piece by piece, once for each context; and who is told is told why."""
    orders = [house.submit(tokens=tokens) for tokens in (100, 10, 200, 300, 64, 65)]
    assert house.cancellation.sweep().ended == [], "no context is known"
    worker = house.worker(context=64, slots=1)
    ended = []
    for _ in range(10):
        settled = house.cancellation.sweep(2)
        ended += settled.ended
        if not settled.more:
            break
    assert set(ended) == {orders[place].id for place in (0, 2, 3, 5)}
    states = [str(house.order(one.id).state) for one in orders]
    assert states == ["failed", "queued", "failed", "failed", "queued", "failed"]
    failed = house.order(orders[0].id)
    assert (failed.charged, failed.returned) == (0, failed.fee)
    assert failed.failure["code"] == "too_many_tokens"
    assert "asks for 100 tokens, but the context of stub holds 64" in failed.failure["message"]
    assert house.held() == sum(house.order(orders[place].id).fee for place in (1, 4))
    assert worker.slots == 1


def test_what_has_begun_may_still_be_answered_though_the_context_shrank(house):
    large = house.worker(context=1000)
    order = house.submit(tokens=100)
    job = house.dispatched()
    large.claim(job)
    house.lapse(house.settings.lease_s + 1)
    assert str(house.order(order.id).state) == "queued"
    house.herd.sweep()
    house.worker(context=64, slots=1)
    assert house.model().context == 64
    assert house.cancellation.sweep().ended == []
    large.finish(job, text="late")
    assert house.answer(order.id) == "late"


def test_a_herder_looks_through_a_book_once_for_each_context(house, monkeypatch):
    from herder.orders import unfit as unfit_module

    looks = []
    longer_than = unfit_module.unfit_sql.longer_than

    def look(connection, *asked):
        looks.append(asked[:2])
        return longer_than(connection, *asked)

    monkeypatch.setattr(unfit_module.unfit_sql, "longer_than", look)
    worker = house.worker(context=1000)
    for _ in range(3):
        house.cancellation.sweep()
    assert looks == [("stub", 1000)]
    worker.leave()
    house.worker(context=64)
    for _ in range(3):
        house.cancellation.sweep()
    assert looks == [("stub", 1000), ("stub", 64)]
