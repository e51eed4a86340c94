"""Order intake: an order, its hold and its event are born together or not at all."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from fractions import Fraction
from uuid import uuid4

import pytest
from sqlalchemy import select

from herder import errors
from herder.db.tables import order_text
from herder.domain.order import Prompt
from herder.domain.pricing import RANK_SCALE
from herder.market.policy import set_rates
from herder.orders.dispatch import job_of
from herder.store import models as model_sql
from herder.store import orders as order_sql
from tests.support.house import MODEL
from workers.agent.conversion import work_of
from workers.wire import ChatMessage, Sampling


def test_an_order_is_taken_with_its_hold_and_its_event(house):
    order = house.submit("What is the meaning of life?", 20, fee=54, reference="mine")

    assert (order.state, order.fee, order.needed, order.words) == ("queued", 54, 27, 6)
    assert order.multiplier == 2
    assert order.rank == 2 * RANK_SCALE
    assert order.reference == "mine"
    assert (house.available(), house.held()) == (100_000 - 54, 54)
    assert house.events(order.id) == ["submitted"]
    assert house.order(order.id) == order
    assert house.traces() == (1, 1, 1, 0, 1)


def test_what_is_asked_is_stored_as_it_was_given(house):
    turns = (ChatMessage(role="user", content="水 🦙"), ChatMessage(role="assistant", content=""))
    sampling = Sampling(temperature=0, seed=7, logit_bias={5: -1.5}, grammar='root ::= "a"')
    call = house.call(stop=("END", "\n"), sampling=sampling)
    spoken = type(call)(**{**_fields(call), "prompt": Prompt(None, turns)})

    order = house.intake.submit(spoken)

    with house.database.read() as connection:
        stored = select(order_sql.REQUEST).where(order_text.c.order_id == order.id)
        request = order_sql.StoredRequest.from_text(connection.execute(stored).scalar_one())
    assert request == order_sql.StoredRequest(Prompt(None, turns), ("END", "\n"), sampling)


@pytest.mark.parametrize(
    "prompt",
    [
        Prompt("<|fim_prefix|>a", raw=True, special=True),
        Prompt(None, (ChatMessage(role="assistant", content="Once"),), continues=True),
        Prompt("Why?", template_args={"enable_thinking": False, "reasoning_effort": "low"}),
        Prompt("plain"),
    ],
)
def test_what_a_prompt_is_on_request_reaches_the_worker(house, prompt):
    order = house.intake.submit(replace(house.call(), prompt=prompt))
    with house.database.read() as connection:
        stored = select(order_sql.REQUEST).where(order_text.c.order_id == order.id)
        text = connection.execute(stored).scalar_one()
    request = order_sql.StoredRequest.from_text(text)
    assert request.prompt == prompt
    assert ("special" in text, "continues" in text) == (prompt.special, prompt.continues)
    job = job_of(replace(order, nonce="n-1", attempt=1), request)
    work = work_of(job)
    assert (work.special, work.continues) == (prompt.special, prompt.continues)
    assert (work.prompt, work.messages, work.raw) == (prompt.text, prompt.messages, prompt.raw)
    assert work.template_args == prompt.template_args
    assert ("template_args" in text) == bool(prompt.template_args)


def _fields(call):
    return {name: getattr(call, name) for name in call.__slots__}


@pytest.mark.parametrize("step", ["insert_order", "add_events"])
def test_a_crash_half_way_leaves_nothing(house, monkeypatch, step):
    def crash(*_args):
        raise RuntimeError("the power went")

    monkeypatch.setattr(order_sql, step, crash)
    with pytest.raises(RuntimeError):
        house.submit(idempotency_key="k")
    assert house.traces() == (0, 0, 0, 0, 0)
    assert (house.available(), house.held()) == (100_000, 0)

    monkeypatch.undo()
    assert house.submit(idempotency_key="k").state == "queued"


# Idempotency


def test_the_same_call_twice_is_one_order_and_one_hold(house):
    first = house.submit(idempotency_key="k", fee=50)
    again = house.submit(idempotency_key="k", fee=50)
    assert again.id == first.id
    assert house.held() == 50
    assert house.traces() == (1, 1, 1, 0, 1)


def test_a_call_repeated_after_the_end_is_answered_with_that_order(house):
    worker = house.worker()
    first = house.submit(idempotency_key="k")
    worker.finish(house.dispatched())
    again = house.submit(idempotency_key="k")
    assert (again.id, again.state) == (first.id, "completed")
    assert house.held() == 0


def test_a_key_buys_again_after_a_cancellation_that_cost_nothing(house):
    """A client that gives up, has its order cancelled by that and asks again has bought nothing."""
    first = house.submit(idempotency_key="k", fee=50)
    house.cancellation.cancel(first.id)
    second = house.submit(idempotency_key="k", fee=50)
    assert second.id != first.id
    assert (second.state, house.held()) == ("queued", 50)
    assert house.submit(idempotency_key="k", fee=50).id == second.id
    assert house.order(first.id).state == "cancelled"
    assert house.events(first.id) == ["submitted", "cancelled", "key_released"]
    house.cancellation.cancel(second.id)
    third = house.submit(idempotency_key="k", fee=50)
    assert third.id not in {first.id, second.id}
    house.check()


def test_a_key_stays_with_an_order_that_is_being_cancelled_or_was_paid_for(house):
    worker = house.worker()
    first = house.submit(idempotency_key="k")
    job = house.dispatched()
    worker.claim(job)
    house.readers.read(job, 4, 5)
    house.cancellation.cancel(first.id)
    assert house.submit(idempotency_key="k").id == first.id, "nobody knows yet what it costs"
    worker.finish(job, finish_reason="cancelled", generated=5, text="half")
    again = house.submit(idempotency_key="k")
    assert (again.id, again.charged) == (first.id, house.order(first.id).charged)
    assert again.charged > 0


def test_a_cancelled_orders_key_stands_for_its_call_all_the_same(house):
    house.cancellation.cancel(house.submit(idempotency_key="k", fee=50).id)
    with pytest.raises(errors.IdempotencyKeyReused):
        house.submit(idempotency_key="k", fee=51)
    assert house.submit(idempotency_key="k", fee=50).state == "queued"


def test_of_several_who_repeat_a_cancelled_call_at_once_one_buys(house):
    first = house.submit(idempotency_key="k", fee=50)
    house.cancellation.cancel(first.id)
    with ThreadPoolExecutor(4) as pool:
        found = {
            one.id
            for one in pool.map(lambda _: house.submit(idempotency_key="k", fee=50), range(12))
        }
    assert len(found) == 1
    assert first.id not in found
    assert house.held() == 50


@pytest.mark.parametrize(
    ("field", "other"),
    [
        ("prompt", {"prompt": "three more words"}),
        ("tokens", {"tokens": 11}),
        ("fee", {"fee": 51}),
        ("fee", {"fee": None}),
        ("fee", {"fee": "base"}),
        ("multiplier", {"bid_factor": Fraction(3, 2)}),
        ("max_fee", {"max_fee": 1000}),
        ("model", {"model": MODEL}),
        ("stop", {"stop": ("END",)}),
        ("sampling", {"sampling": Sampling(seed=1)}),
        ("reference", {"reference": "other"}),
        ("run_limit_s", {"run_limit_s": 5}),
    ],
)
def test_the_same_key_with_other_arguments_names_what_differs(house, field, other):
    house.submit(idempotency_key="k", fee=50)
    with pytest.raises(errors.IdempotencyKeyReused) as caught:
        house.submit(**{"idempotency_key": "k", "fee": 50, **other})
    assert caught.value.data == {"key": "k", "field": field}
    assert house.held() == 50


def test_the_automatic_fee_is_no_part_of_the_call(house):
    first = house.submit(idempotency_key="k", tokens=1000)
    assert house.submit(tokens=1000).fee > first.fee, "something waits now"
    again = house.submit(idempotency_key="k", tokens=1000)
    assert (again.id, again.fee) == (first.id, first.fee)


def test_what_is_needed_is_no_part_of_a_call_at_base(house):
    first = house.submit(idempotency_key="k", fee="base")
    set_rates(house.database, "stub", prompt_fee=100)
    again = house.submit(idempotency_key="k", fee="base")
    assert (again.id, again.fee) == (first.id, 13)
    with pytest.raises(errors.IdempotencyKeyReused) as caught:
        house.submit(idempotency_key="k", fee=13)
    assert caught.value.data == {"key": "k", "field": "fee"}


def test_keys_of_different_accounts_do_not_meet(house):
    house.fund(1000, "other")
    first = house.submit(idempotency_key="k")
    second = house.submit(idempotency_key="k", account="other", tokens=5)
    assert first.id != second.id


def test_two_calls_with_one_key_at_the_same_time_are_one_order(house):
    start = threading.Barrier(8)
    ids: list[str] = []

    def call():
        start.wait()
        ids.append(house.submit(idempotency_key="k").id)

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ids) == 8
    assert len(set(ids)) == 1
    assert house.traces() == (1, 1, 1, 0, 1)


def test_an_account_cannot_be_spent_twice_at_the_same_time(make_house):
    house = make_house()
    house.fund(13 * 3)
    start = threading.Barrier(8)
    taken, refused = [], []

    def call():
        start.wait()
        try:
            taken.append(house.submit(fee=13))
        except errors.InsufficientBalance as error:
            refused.append(error)

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(taken), len(refused)) == (3, 5)
    assert (house.available(), house.held()) == (0, 39)


# Fees


def test_the_automatic_fee_is_raised_while_anything_waits(house):
    assert house.submit(tokens=997).fee == 1000
    assert house.submit(tokens=997).fee == 1005
    assert house.submit(tokens=997, bid_factor=Fraction(2)).fee == 2010


def test_the_automatic_fee_follows_the_order_dispatched_last_and_fades(house):
    worker = house.worker()
    house.submit(tokens=997, fee=3000)
    worker.finish(house.dispatched())
    assert house.model().last_multiplier == 3

    assert house.intake.submit(house.call(tokens=997)).fee == 3000
    house.dispatched()
    house.now_us += 600_000_000
    assert house.submit(tokens=997).fee == 2000, "half of the way to 1"


def test_a_reckless_bid_does_not_run_away_with_everyones_fee(house):
    house.worker()
    house.submit(tokens=97, fee=50_000)
    house.dispatched()
    assert house.model().last_multiplier == 500
    assert house.submit(tokens=97).fee == 1000


def test_a_fee_and_a_multiplier_together_are_multiplied(house):
    order = house.submit(fee=100, bid_factor=Fraction(2))
    assert (order.fee, order.automatic) == (200, False)
    with pytest.raises(errors.FeeTooLow) as caught:
        house.submit(fee=20, bid_factor=Fraction(1, 2))
    assert caught.value.data == {"fee": 10, "needed": 13}


def test_the_base_fee_is_what_is_needed_whatever_others_paid(house):
    worker = house.worker()
    house.submit(tokens=997, fee=3000)
    worker.finish(house.dispatched())
    house.submit()
    assert house.submit(tokens=997).fee > 3000, "something waits, and others paid three times that"
    order = house.submit(tokens=997, fee="base")
    assert (order.fee, order.needed, order.multiplier) == (1000, 1000, 1)
    assert not order.automatic
    assert house.held() > 1000
    doubled = house.submit(tokens=997, fee="base", bid_factor=Fraction(2))
    assert doubled.fee == 2000
    with pytest.raises(errors.FeeTooLow) as low:
        house.submit(tokens=997, fee="base", bid_factor=Fraction(1, 2))
    assert low.value.data == {"fee": 500, "needed": 1000}
    with pytest.raises(errors.FeeAboveMax):
        house.submit(tokens=997, fee="base", max_fee=999)
    set_rates(house.database, "stub", fee_per_token=2)
    assert house.submit(tokens=997, fee="base").fee == 1999


def test_max_fee_lets_through_what_it_allows(house):
    assert house.submit(max_fee=13).fee == 13
    with pytest.raises(errors.FeeAboveMax):
        house.submit(tokens=997, max_fee=1004)
    assert house.held() == 13


def test_an_order_keeps_the_rates_that_it_was_submitted_under(house):
    from herder.domain.pricing import Rates

    worker = house.worker()
    order = house.submit(tokens=10, fee=26)
    with house.database.write() as connection:
        model_sql.put_model(connection, MODEL, Rates(5, 7))
    assert house.submit(tokens=10, fee=90).needed == 5 + 7 * 12

    worker.finish(next(job for job in _drain(house, worker) if job.order == order.id), generated=5)
    assert house.order(order.id).charged == 16  # ceil(26 * (1 + 2 + 5) / 13)


def _drain(house, worker):
    first = house.dispatched()
    yield first
    if house.order(first.order).state != "completed":
        worker.finish(first)
        yield house.dispatched()


# Refunds


def test_an_operator_gives_back_what_was_charged_and_no_more(house):
    worker = house.worker()
    order = house.submit(fee=26)
    worker.finish(house.dispatched(), generated=5)
    assert house.available() == 100_000 - 16

    assert house.intake.refund(order.id, 6, "it was slow") == 6
    assert house.intake.refund(order.id, None, "it was wrong") == 10
    assert house.available() == 100_000
    assert house.order(order.id).refunded == 16
    with pytest.raises(errors.RefundRefused):
        house.intake.refund(order.id, 1, "again")
    assert house.events(order.id)[-2:] == ["refunded", "refunded"]


def test_a_refund_asked_for_twice_is_given_once(house):
    worker = house.worker()
    order = house.submit(fee=26)
    worker.finish(house.dispatched())
    refund_id = str(uuid4())
    for _ in range(2):
        assert house.intake.refund(order.id, 5, "sorry", refund_id=refund_id) == 5
    assert house.order(order.id).refunded == 5
    assert house.events(order.id).count("refunded") == 1


def test_what_was_not_charged_is_not_refunded(house):
    order = house.submit()
    with pytest.raises(errors.RefundRefused):
        house.intake.refund(order.id, 1, "why not")
    with pytest.raises(errors.OrderNotFound):
        house.intake.refund("no-such-order", 1, "why not")
