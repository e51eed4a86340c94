"""Refusals about money that an operator or a buyer may meet: a sentence, and nothing has moved."""

from __future__ import annotations

import time
from uuid import uuid4

import pytest

from herder import errors
from herder.db import database as databases
from herder.db.outages import CommitUnknown
from herder.domain.pricing import MAX_WINSTON
from herder.orders import closing

NOBODY = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def books(house):
    """Accounts of which two have 100 winston each."""
    house.fund(100, "ada")
    house.fund(100, "bob")
    return house.accounts


def refused(books, kind, call):
    """What a call is refused with; no balance has changed."""
    before = books.balances()
    with pytest.raises(kind) as caught:
        call()
    assert books.balances() == before
    assert "client:" not in str(caught.value), "the ledger's own names are not told"
    return str(caught.value)


def test_more_than_there_is(books):
    said = refused(
        books, errors.InsufficientBalance, lambda: books.withdraw("ada", 101, str(uuid4()))
    )
    assert "'ada' has 100 winston available, and this takes 101" in said


def test_an_account_that_is_not_there(books):
    for call in (
        lambda: books.deposit("eve", 5, str(uuid4())),
        lambda: books.withdraw("eve", 5, str(uuid4())),
        lambda: books.balance("eve"),
        lambda: books.statement("eve"),
        lambda: books.set_limits("eve", max_open_orders=1, tokens_per_minute=None),
    ):
        assert "'eve'" in refused(books, errors.AccountNotFound, call)


def test_an_id_that_stands_for_another_movement(books):
    used = str(uuid4())
    books.deposit("ada", 5, used)
    assert books.deposit("ada", 5, used).available == 105, "the same again is the same"
    refused(books, errors.IdempotencyKeyReused, lambda: books.deposit("ada", 6, used))
    refused(books, errors.IdempotencyKeyReused, lambda: books.deposit("bob", 5, used))
    refused(books, errors.IdempotencyKeyReused, lambda: books.withdraw("ada", 5, used))


def test_more_than_an_account_can_hold(books):
    refused(books, errors.InvalidRequest, lambda: books.deposit("ada", 2**63, str(uuid4())))
    refused(books, errors.InvalidRequest, lambda: books.deposit("ada", 0, str(uuid4())))
    refused(books, errors.InvalidRequest, lambda: books.deposit("ada", 5, "no uuid"))


@pytest.mark.parametrize("wrong", [-1, 1.5, True, "5", 10**13])
def test_limits_that_are_none(books, wrong):
    said = refused(
        books,
        errors.InvalidRequest,
        lambda: books.set_limits("ada", max_open_orders=wrong, tokens_per_minute=None),
    )
    assert "max_open_orders must be a whole number" in said


# Orders


def charged(house, fee=26):
    """An order that was charged 16 winston."""
    order = house.submit(fee=fee)
    house.worker().finish(house.dispatched(), generated=5)
    assert house.order(order.id).charged == 16
    return order


def test_a_refund_goes_no_further_than_the_charge(house):
    order, used = charged(house), str(uuid4())
    refuse = house.intake.refund
    with pytest.raises(errors.RefundRefused, match="charged 16 winston, of which 16 can still"):
        refuse(order.id, 17, "too much")
    assert refuse(order.id, 10, "some", refund_id=used) == 10
    assert refuse(order.id, 10, "some", refund_id=used) == 10, "asked again, it is the same"
    with pytest.raises(errors.IdempotencyKeyReused):
        refuse(order.id, 3, "other", refund_id=used)
    with pytest.raises(errors.RefundRefused, match="of which 6 can still"):
        refuse(order.id, 7, "too much")
    for wrong in (0, -1, 2**63):
        with pytest.raises(errors.InvalidRequest):
            refuse(order.id, wrong, "none")
    with pytest.raises(errors.OrderNotFound):
        refuse(NOBODY, 1, "whose?")
    assert house.order(order.id).refunded == 10


def test_a_bid_beyond_all_money_is_refused(house):
    order = house.submit()
    for wrong in (MAX_WINSTON + 1, 0, 1.5, True):
        with pytest.raises(errors.InvalidFee):
            house.intake.rebid(order.id, wrong)
    with pytest.raises(errors.OrderNotFound):
        house.intake.rebid(NOBODY, 50)
    with pytest.raises(errors.InsufficientBalance):
        house.intake.rebid(order.id, 200_000)
    assert (house.order(order.id).fee, house.held()) == (13, 13)


def test_ends_that_an_outage_cuts_in_two_are_told_and_go_on(house, monkeypatch):
    """What was ended is told; the rest is due again, and nothing of it is set aside."""
    orders = [house.submit(start_by_us=house.now_us + 10**6) for _ in range(4)]
    house.now_us += 2 * 10**6
    queue_ends, calls = closing.webhooks.queue_ends, []

    def fails(connection, ended, now_us):
        calls.append(len(ended))
        if len(ended) == 4:
            raise ValueError("together they are refused")
        if len(calls) == 3:
            raise errors.HerdUnavailable("The database went away.")
        queue_ends(connection, ended, now_us)

    monkeypatch.setattr(closing.webhooks, "queue_ends", fails)
    settled = house.cancellation.sweep()
    assert (len(settled.ended), settled.more, calls) == (2, True, [4, 2, 2])
    assert len(house.cancellation.sweep().ended) == 2
    assert (house.aside.count(), house.held()) == (0, 0)
    assert {str(house.order(one.id).state) for one in orders} == {"expired"}


def test_an_order_whose_commit_stays_unknown_is_named(outage_house, outage, monkeypatch):
    """For whoever asks then: `herd order show` tells whether there is one."""
    monkeypatch.setattr(databases, "SETTLE_S", 0.2)
    cut = outage.at_commit()
    with pytest.raises(CommitUnknown) as unknown:
        outage_house.submit(fee=50)
    assert cut.is_set()
    order_id = str(unknown.value.data["order"])
    assert f"`herd order show {order_id}`" in str(unknown.value)
    outage.end()
    time.sleep(0.1)
    held = outage_house.accounts.balance("default").held
    found = [one for one in orders_of(outage_house) if one.id == order_id]
    assert held == sum(one.fee for one in found), "it is there with its fee, or neither is"


def orders_of(house):
    from herder.store import orders as order_sql

    with house.database.read() as connection:
        return order_sql.list_orders(connection)
