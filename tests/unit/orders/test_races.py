"""Cancellation, new bids, dispatch, settlement and lapses at once: one winner, and money right."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

import pytest

from herder.domain.order import ENDED
from herder.errors import HerdUnavailable, OrderNotWaiting, RebidTooLow
from herder.store import accounts as account_sql

ORDERS = 60
_FINAL = {state.value for state in ENDED}


def insist(call: Callable[[], object]) -> object:
    """Do it again while the database says that it is busy, as a client would."""
    while True:
        try:
            return call()
        except HerdUnavailable:
            continue


@pytest.mark.parametrize("seed", [1, 2])
def test_one_of_all_that_happens_to_an_order_at_once_wins(make_house, seed):
    house = make_house()
    house.fund(10**9)
    worker = house.worker(slots=16)
    orders = [house.submit(fee=20 + place % 7) for place in range(ORDERS)]
    wrong: list[BaseException] = []
    left = threading.Event()

    def each(act: Callable[[random.Random, str], object], number: int) -> None:
        chance = random.Random(f"{seed} {number}")
        ids = [order.id for order in orders]
        chance.shuffle(ids)
        try:
            for one in ids:
                insist(lambda one=one: act(chance, one))
        except BaseException as error:  # noqa: BLE001 (raised again below)
            wrong.append(error)

    def bid(chance: random.Random, one: str) -> None:
        with suppress(OrderNotWaiting, RebidTooLow):  # somebody was quicker
            house.intake.rebid(one, chance.randint(20, 60))

    def cancel(chance: random.Random, one: str) -> None:
        if chance.random() < 0.5:
            house.cancellation.cancel(one)

    def herd() -> None:
        chance = random.Random(f"{seed} herd")
        try:
            while not left.is_set():
                for job in insist(house.dispatch):
                    if chance.random() < 0.7:
                        insist(lambda job=job: worker.claim(job))
                    outcome = worker.answer(job, generated=chance.randint(0, 10))
                    insist(lambda outcome=outcome: house.settlement.settle([outcome] * 2))
        except BaseException as error:  # noqa: BLE001 (raised again below)
            wrong.append(error)

    serving = threading.Thread(target=herd)
    threads = [
        threading.Thread(target=each, args=(act, number))
        for number, act in enumerate((bid, cancel, bid, cancel))
    ]
    for thread in (serving, *threads):
        thread.start()
    for thread in threads:
        thread.join()
    left.set()
    serving.join()
    assert not wrong, wrong

    while jobs := house.dispatch():
        for job in jobs:
            worker.finish(job)
    for order in orders:
        ends = [kind for kind in house.events(order.id) if kind in _FINAL]
        assert ends == [house.order(order.id).state], order.id
    states = Counter(house.order(order.id).state for order in orders)
    assert states["completed"] > 0
    assert states["cancelled"] > 0
    house.check()
    with house.database.read() as connection:
        now = account_sql.standing(connection, "default")
    assert now is not None
    assert now.open_orders == 0


def test_one_key_at_once_from_many_threads_is_one_order(make_house):
    house = make_house()
    house.fund(1000)
    gate = threading.Barrier(4)
    found: list[str] = []

    def submit() -> None:
        gate.wait()
        order = insist(lambda: house.submit(idempotency_key="the same"))
        found.append(order.id)

    threads = [threading.Thread(target=submit) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(found)) == 1
    assert house.held() == 13
    house.check()


def test_a_limit_holds_among_many_threads(make_house):
    house = make_house(policy={"max_open_orders": 3})
    house.fund(1000)
    gate = threading.Barrier(6)
    done: list[str] = []

    def submit() -> None:
        gate.wait()
        try:
            insist(house.submit)
            done.append("taken")
        except Exception as error:  # noqa: BLE001 (counted below)
            done.append(type(error).__name__)

    threads = [threading.Thread(target=submit) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(done) == {"taken": 3, "RateLimited": 3}
    house.check()
