"""Orders of calls that leave the number of tokens to the herd, on both databases."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from herder import errors
from herder.domain.fitting import ORDINARY_TOKENS, TokenWish
from herder.domain.pricing import RANK_SCALE
from herder.domain.signed_tokens import read_quote
from herder.market.quotes import Quotes

WORDS = 2
OVERHEAD = 1 + WORDS
CONTEXT = 4096


def submit(house, named=None, default=None, most=CONTEXT - 10, **fields):
    """Take an order whose prompt leaves `most` tokens of the context."""
    wish = TokenWish(named, default)
    return house.submit(tokens=min(most, wish.most), wish=wish, **fields)


@pytest.fixture
def house(make_house):
    """A herd in which waiting raises no fee, so that sums are plain."""
    made = make_house(policy={"fee_bump": 1})
    made.fund(100_000)
    return made


@pytest.fixture
def poor(house):
    """An account of which this test says what it has."""
    house.worker(context=CONTEXT)

    def make(amount):
        house.fund(amount, "poor")
        return {"account": "poor"}

    return make


def test_money_is_held_for_what_fits_and_the_rest_comes_back(house):
    worker = house.worker(context=CONTEXT)
    order = submit(house)
    assert (order.tokens, order.fee) == (CONTEXT - 10, CONTEXT - 10 + OVERHEAD)
    assert order.automatic
    assert house.held() == order.fee
    job = house.dispatched()
    assert job.tokens == order.tokens
    worker.finish(job, generated=20, finish_reason="stop")
    ended = house.order(order.id)
    assert (ended.charged, house.held()) == (20 + OVERHEAD, 0)


def test_it_ranks_as_any_other_whose_fee_is_the_herds_to_say(house):
    house.worker(context=CONTEXT)
    plain = house.submit(tokens=5)
    assert submit(house).rank == plain.rank == RANK_SCALE
    hurried = submit(house, bid_factor=2)
    assert hurried.rank == 2 * RANK_SCALE
    assert hurried.fee == 2 * hurried.needed


def test_a_number_above_the_context_is_cut_and_another_is_kept(house):
    house.worker(context=CONTEXT)
    assert submit(house, named=128_000).tokens == CONTEXT - 10
    assert submit(house, named=128_000, most=10**6).tokens == CONTEXT - 1
    assert submit(house, named=17).tokens == 17
    with pytest.raises(errors.TooManyTokens):
        house.submit(tokens=128_000)


def test_a_number_above_what_the_account_can_pay_is_cut_to_that(poor, house):
    order = submit(house, named=500, **poor(100))
    assert (order.tokens, order.fee) == (100 - OVERHEAD, 100)
    assert house.available("poor") == 0


@pytest.mark.parametrize("named", [None, 500])
def test_who_cannot_pay_for_one_token_is_refused(poor, house, named):
    with pytest.raises(errors.InsufficientBalance) as refused:
        submit(house, named, **poor(OVERHEAD))
    assert refused.value.data["required"] == OVERHEAD + 1
    assert house.held("poor") == 0
    house.fund(1, "poor")
    assert submit(house, named, account="poor").tokens == 1


def test_calls_at_once_share_what_there_is_and_none_holds_all(poor, house):
    payer = poor(1200)
    start = threading.Barrier(6)

    def one(_):
        start.wait(60)
        return submit(house, **payer)

    with ThreadPoolExecutor(6) as pool:
        orders = list(pool.map(one, range(6)))
    assert sum(order.fee for order in orders) == house.held("poor")
    assert house.available("poor") >= 0
    assert max(order.tokens for order in orders) == (1200 - OVERHEAD) // 4
    assert all(order.tokens >= 1 for order in orders)


def test_calls_at_once_that_name_too_much_get_what_the_one_before_left(poor, house):
    payer = poor(1000)
    start = threading.Barrier(3)

    def one(_):
        start.wait(60)
        return submit(house, named=600, **payer)

    with ThreadPoolExecutor(3) as pool:
        taken = [pool.submit(one, number) for number in range(3)]
        found = [one.exception(timeout=60) or one.result() for one in taken]
    orders = sorted((one for one in found if not isinstance(one, Exception)), key=lambda o: o.fee)
    assert [order.tokens for order in orders] == [1000 - 603 - OVERHEAD, 600]
    (refused,) = (one for one in found if isinstance(one, Exception))
    assert isinstance(refused, errors.InsufficientBalance)


def test_what_the_key_may_spend_bounds_it(house):
    house.worker(context=CONTEXT)
    spending, _ = house.api_keys.create("default", spending_limit=100 + OVERHEAD)
    first = submit(house, api_key=spending.id)
    assert first.tokens == 50
    assert submit(house, named=4000, api_key=spending.id).fee == 50
    with pytest.raises(errors.ApiKeyLimitReached):
        submit(house, api_key=spending.id)
    careful, _ = house.api_keys.create("default", max_fee=70)
    assert submit(house, api_key=careful.id).fee == 70


def test_what_the_account_may_order_in_a_minute_bounds_it(house):
    house.worker(context=CONTEXT)
    house.accounts.set_limits("default", max_open_orders=None, tokens_per_minute=1002)
    for _ in range(3):
        assert submit(house).tokens == ORDINARY_TOKENS
    for call in ({}, {"named": 32_000}):
        with pytest.raises(errors.RateLimited) as refused:
            submit(house, **call)
        assert refused.value.data["retry_after_s"] == 2, "30 tokens too many, of 1002 a minute"
    house.now_us += 2_000_000
    assert submit(house).tokens == ORDINARY_TOKENS
    house.now_us += 30_000_000
    cut = submit(house, named=32_000)
    assert ORDINARY_TOKENS < cut.tokens < 1002 // 2 + WORDS
    house.now_us += 60_000_000
    assert submit(house, named=32_000).tokens == 1000
    with pytest.raises(errors.RateLimited):
        submit(house, named=1000)


def test_a_fee_that_is_named_is_paid_as_it_is(house):
    house.worker(context=CONTEXT)
    order = submit(house, fee=60)
    assert (order.fee, order.needed, order.automatic) == (60, 60, False)
    assert submit(house, fee=50_000).rank > RANK_SCALE
    with pytest.raises(errors.FeeTooLow):
        submit(house, fee=OVERHEAD)
    with pytest.raises(errors.FeeTooLow):
        submit(house, named=100, fee=60)
    with pytest.raises(errors.InsufficientBalance):
        submit(house, fee=200_000)


def test_the_least_fee_is_for_what_fits(poor, house):
    dear = house.submit(fee=10 * (10 + OVERHEAD), tokens=10)
    assert dear.multiplier == 10
    house.dispatched()
    order = submit(house, fee="base", **poor(1000))
    assert (order.fee, order.multiplier, order.automatic) == (order.needed, 1, False)
    assert order.tokens == ORDINARY_TOKENS
    automatic = submit(house, account="poor")
    assert automatic.multiplier > 9
    assert automatic.fee <= 1000 - order.fee


def test_a_highest_fee_bounds_what_nobody_named(house):
    house.worker(context=CONTEXT)
    assert submit(house, max_fee=60).fee == 60
    with pytest.raises(errors.FeeAboveMax):
        submit(house, max_fee=OVERHEAD)
    with pytest.raises(errors.FeeAboveMax):
        submit(house, named=100, max_fee=60)


def test_where_all_that_is_held_is_charged_an_ordinary_answer_is_paid(make_house):
    house = make_house(policy={"charge_unused": True})
    house.fund(100_000)
    worker = house.worker(context=CONTEXT)
    order = submit(house)
    assert order.tokens == ORDINARY_TOKENS
    worker.finish(house.dispatched(), generated=3, finish_reason="stop")
    assert house.order(order.id).charged == ORDINARY_TOKENS + OVERHEAD
    assert submit(house, default=1000).tokens == 1000
    house.fund(700, "poor")
    cut = submit(house, named=32_000, account="poor")
    assert cut.tokens == ORDINARY_TOKENS
    worker.finish(house.dispatched(), generated=3, finish_reason="stop")
    with pytest.raises(errors.InsufficientBalance):
        submit(house, named=900, account="poor")


def test_the_worker_cuts_what_the_herd_chose_and_nothing_else(house, make_house):
    worker = house.worker(context=CONTEXT, slots=8)
    calls = ({}, {"named": 32_000}, {"named": 20}, {"default": 20})
    orders = [submit(house, **call) for call in calls]
    house.submit(tokens=20)
    jobs = {job.order: job for job in house.dispatch()}
    assert all(jobs[order.id].fit_tokens for order in orders)
    assert sum(job.fit_tokens for job in jobs.values()) == len(orders)
    cut = jobs[orders[1].id]
    worker.finish(cut, generated=7, finish_reason="length")
    assert house.order(cut.order).charged == 7 + OVERHEAD, "what was generated"


def test_where_all_that_is_held_is_charged_the_worker_cuts_no_number_that_stands(make_house):
    house = make_house(policy={"charge_unused": True})
    house.fund(100_000)
    fresh = submit(house, named=5000, most=5000)
    house.worker(context=CONTEXT, slots=8)
    orders = [submit(house), submit(house, named=20), submit(house, named=32_000)]
    assert house.cancellation.sweep().ended == [fresh.id], "and everything comes back"
    assert house.order(fresh.id).charged == 0
    jobs = {job.order: job for job in house.dispatch()}
    assert [jobs[order.id].fit_tokens for order in orders] == [True, False, True]


def test_what_fits_waits_on_where_the_context_shrinks_or_comes_to_be_known(house):
    fresh = submit(house, named=5000, most=5000)
    large = house.worker(context=CONTEXT)
    orders = [submit(house), submit(house, named=3000)]
    said = '"fit_tokens": true'
    asked = [house.submit(prompt=said, tokens=3000), house.submit(tokens=65)]
    large.leave()
    house.worker(context=64, slots=8)
    ended = []
    for _ in range(10):
        swept = house.cancellation.sweep(2)
        ended += swept.ended
        if not swept.more:
            break
    assert set(ended) == {one.id for one in asked}
    jobs = {job.order: job for job in house.dispatch()}
    assert set(jobs) == {one.id for one in (fresh, *orders)}
    assert all(job.fit_tokens for job in jobs.values())


def test_before_any_worker_came_an_ordinary_answer_is_ordered(house):
    assert submit(house, most=10**6).tokens == ORDINARY_TOKENS


def test_the_same_call_is_the_same_order_whatever_fits_by_then(poor, house):
    payer = poor(1000)
    first = submit(house, idempotency_key="k", **payer)
    named = submit(house, named=5000, idempotency_key="n", **payer)
    for amount in (5, 50_000):
        house.fund(amount, "poor")
        again = submit(house, most=100 + amount, idempotency_key="k", **payer)
        assert (again.id, again.tokens) == (first.id, first.tokens)
        assert submit(house, named=5000, idempotency_key="n", **payer).id == named.id
    for other in (first.tokens, 5000):
        with pytest.raises(errors.IdempotencyKeyReused) as refused:
            submit(house, named=other, idempotency_key="k", **payer)
        assert refused.value.data["field"] == "tokens"
    with pytest.raises(errors.IdempotencyKeyReused):
        submit(house, idempotency_key="n", **payer)


def test_a_quote_is_for_the_tokens_that_were_quoted(house):
    house.worker(context=CONTEXT)
    call = house.call(tokens=30)
    quotes = Quotes(house.database, house.key, clock_us=house.clock)
    quoted = quotes.quote(call)
    terms = read_quote(quoted.quote, {house.key.kid: house.key.public})
    order = house.intake.submit(replace(call, quote=terms, wish=TokenWish()))
    assert (order.tokens, order.fee) == (30, quoted.fee)
    with pytest.raises(errors.QuoteMismatch):
        house.intake.submit(replace(call, tokens=29, quote=terms, wish=TokenWish(29)))


def test_an_account_that_is_not_there_is_refused_by_its_name(house):
    with pytest.raises(errors.AccountNotFound):
        submit(house, account="nobody")
