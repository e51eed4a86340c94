"""Whoever waits for an order that is set aside is told, and waits no longer."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from herder.errors import OrderSetAside
from herder.local.local_herd import LocalHerd
from herder.settings import load_settings
from tests.support.wait import wait_for
from tests.unit.cli.herder_cli_support import NO_REDIS
from tests.unit.orders.test_set_aside import break_hold, mend_hold


@pytest.fixture
def herd(house):
    settings = load_settings(
        house.settings.home, database_url=house.settings.database, redis_url=NO_REDIS
    )
    made = LocalHerd(settings)
    yield made
    made.close()


def is_told(error: BaseException | None, order) -> None:
    assert isinstance(error, OrderSetAside)
    assert error.code == "order_set_aside"
    assert error.data == {"order": order.id, "state": "set_aside", "held": 26}
    assert "its fee of 26 winston stays held and nothing is charged" in error.message
    assert error.result.receipt.failure["code"] == "order_set_aside"


def test_results_streams_and_callbacks_are_told_and_the_order_may_complete_later(house, herd):
    order = house.submit(fee=26)
    worker = house.worker()
    (job,) = house.dispatch()
    worker.claim(job)
    called: list[BaseException] = []
    told = threading.Event()
    herd.call_back(order.id, None, lambda error: (called.append(error), told.set()))
    with ThreadPoolExecutor(2) as waiting:
        result = waiting.submit(herd.result, order.id, None)
        stream = waiting.submit(lambda: "".join(herd.stream(order.id)))
        wait_for(lambda: len(herd.watcher._waiting.get(order.id, ())) >= 2, "they wait")
        break_hold(house, order)
        worker.finish(job, text="so it is", generated=10)
        assert house.order(order.id).state == "set_aside"
        is_told(result.exception(60), order)
        is_told(stream.exception(60), order)
    assert told.wait(60)
    is_told(called[0], order)
    with pytest.raises(OrderSetAside):
        herd.result(order.id, 0)

    mend_hold(house, order)
    assert house.aside.retry(order.id).state == "completed"
    assert herd.result(order.id, 60).text == "so it is"
    assert "".join(herd.stream(order.id)) == "so it is"
