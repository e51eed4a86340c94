"""What an account may have open, and order in a minute."""

from __future__ import annotations

import pytest

from herder.errors import AccountNotFound, InvalidRequest, RateLimited
from herder.store import accounts as account_sql


def standing(house):
    with house.database.read() as connection:
        return account_sql.standing(connection, "default")


@pytest.fixture
def house(make_house):
    house = make_house()
    house.fund(100_000)
    yield house
    house.check()


def test_so_many_orders_may_be_open_and_an_end_makes_room(house):
    house.accounts.set_limits("default", max_open_orders=2, tokens_per_minute=None)
    worker = house.worker()
    first, second = house.submit(fee=26), house.submit(fee=13)
    with pytest.raises(RateLimited, match="2 open orders") as refused:
        house.submit()
    assert refused.value.retry_after_s >= 1
    assert house.held() == 39
    assert standing(house).open_orders == 2
    worker.finish(house.dispatched())
    assert house.order(first.id).state == "completed"
    house.submit()
    house.cancellation.cancel(second.id)
    assert standing(house).open_orders == 1
    house.submit()


def test_the_same_call_again_counts_once(house):
    house.accounts.set_limits("default", max_open_orders=1, tokens_per_minute=None)
    order = house.submit(idempotency_key="k")
    assert house.submit(idempotency_key="k").id == order.id
    assert standing(house).open_orders == 1


def test_a_refused_call_is_not_counted(house):
    with pytest.raises(InvalidRequest):
        house.submit(fee=1)
    assert standing(house).open_orders == 0


def test_tokens_of_a_minute_come_back_as_time_goes_by(house):
    house.accounts.set_limits("default", max_open_orders=None, tokens_per_minute=60)
    for _ in range(5):
        house.submit("two words", 10)
    with pytest.raises(RateLimited, match="try again in 12 s") as refused:
        house.submit("two words", 10)
    assert refused.value.retry_after_s == 12
    house.now_us += 11_999_999
    with pytest.raises(RateLimited, match="try again in 1 s"):
        house.submit("two words", 10)
    house.now_us += 1
    house.submit("two words", 10)
    with pytest.raises(InvalidRequest, match="ask for fewer"):
        house.submit("two words", 59)


def test_the_herds_limits_hold_where_an_account_has_none_of_its_own(make_house):
    house = make_house(policy={"max_open_orders": 1})
    house.fund(1000)
    house.submit()
    with pytest.raises(RateLimited):
        house.submit()
    house.accounts.set_limits("default", max_open_orders=0, tokens_per_minute=None)
    house.submit()
    house.check()


def test_limits_are_for_accounts_that_there_are(house):
    with pytest.raises(AccountNotFound):
        house.accounts.set_limits("nobody", max_open_orders=1, tokens_per_minute=None)
    with pytest.raises(InvalidRequest):
        house.accounts.set_limits("default", max_open_orders=-1, tokens_per_minute=None)
    with pytest.raises(AccountNotFound):
        house.submit(account="nobody")


# Aging


def test_waiting_weighs_as_much_as_was_set(make_house):
    house = make_house(policy={"aging_s": 100})
    house.fund(10_000)
    old = house.submit(fee=13)
    house.now_us += 69_000_000
    dear = house.submit(fee=26)  # twice the multiplier: ahead of what came up to 69.3 s before
    house.now_us += 1_000_000
    late = house.submit(fee=26)
    worker = house.worker(slots=3)
    assert [job.order for job in house.dispatch()] == [dear.id, old.id, late.id]
    assert worker.slots == 3
