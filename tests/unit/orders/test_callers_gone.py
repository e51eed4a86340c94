"""Of a caller who goes away while an order waits to be taken, none is taken."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from herder.orders.intake import CallerGone
from herder.store import models as model_sql


def gone():
    return False


def test_what_nobody_waits_for_is_not_taken_and_leaves_no_trace(house):
    before = (house.traces(), house.available())
    for key in (None, "once"):
        with pytest.raises(CallerGone):
            house.intake.submit(house.call(idempotency_key=key), gone)
    assert (house.traces(), house.available()) == before
    assert house.intake.submit(house.call(idempotency_key="once"), lambda: True).state == "queued"


def test_an_order_that_was_taken_before_is_found_though_its_caller_has_gone(house):
    order = house.intake.submit(house.call(idempotency_key="once"))
    assert house.intake.submit(house.call(idempotency_key="once"), gone) == order


def test_a_caller_who_goes_while_others_have_the_lock_is_noticed(house):
    is_here = threading.Event()
    is_here.set()
    before = house.traces()
    with ThreadPoolExecutor(1) as pool:
        with house.database.write() as connection:
            model_sql.lock_policy(connection)
            taking = pool.submit(house.intake.submit, house.call(), is_here.is_set)
            is_here.clear()
        with pytest.raises(CallerGone):
            taking.result(timeout=60)
    assert house.traces() == before
