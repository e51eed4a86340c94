"""What is remembered to be cancelled while the database is away; no connection."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from herder.errors import HerdUnavailable, OrderNotFound
from herder.local import cancellations
from herder.local.cancellations import Cancellations
from tests.support.wait import wait_for


class Herd:
    """Cancels orders, unless it is away."""

    def __init__(self) -> None:
        self.away = True
        self.asked: list[tuple[str, str | None]] = []
        self.cancelled: list[str] = []
        self.unknown: set[str] = set()

    def cancel(self, order_id: str, *, account: str | None) -> Any:
        self.asked.append((order_id, account))
        if self.away:
            raise HerdUnavailable("It is away.")
        if order_id in self.unknown:
            raise OrderNotFound(order_id)
        self.cancelled.append(order_id)


def test_a_cancellation_that_cannot_be_made_is_made_once_it_can():
    herd = Herd()
    remembered = Cancellations(herd.cancel)
    assert remembered.remember("a")
    assert remembered.remember("b", account="ada")
    assert remembered.waiting == 2
    wait_for(lambda: ("b", "ada") in herd.asked, "it is tried")
    herd.away = False
    wait_for(lambda: remembered.waiting == 0, "both are cancelled")
    assert sorted(herd.cancelled) == ["a", "b"]
    remembered.close()


def test_what_one_account_asks_is_not_what_another_one_asks():
    herd = Herd()
    remembered = Cancellations(herd.cancel)
    for account in ("ada", "bob"):
        remembered.remember("a", account=account)
    assert remembered.waiting == 2
    herd.away = False
    remembered.close()
    assert {("a", "ada"), ("a", "bob")} <= set(herd.asked)


def test_one_that_can_never_be_cancelled_keeps_no_other():
    herd = Herd()
    herd.away, busy = False, {"stuck"}

    def cancel(order_id: str, *, account: str | None) -> Any:
        if order_id in busy:
            raise HerdUnavailable("Its row is locked.")
        if order_id == "broken":
            raise RuntimeError("a fault")
        herd.cancel(order_id, account=account)

    remembered = Cancellations(cancel)
    for one in ("stuck", "broken", "fine"):
        remembered.remember(one)
    wait_for(lambda: herd.cancelled == ["fine"], "the third is cancelled")
    wait_for(lambda: remembered.waiting == 1, "only the first is left")
    busy.clear()
    remembered.close()
    assert herd.cancelled == ["fine", "stuck"]


def test_an_order_that_may_yet_appear_is_looked_for_again_and_not_for_ever():
    herd, now_s = Herd(), [0.0]
    herd.away, herd.unknown = False, {"late", "never", "gone"}
    remembered = Cancellations(herd.cancel, clock_s=lambda: now_s[0])
    remembered.remember("late", is_taken=False)
    remembered.remember("never", is_taken=False)
    remembered.remember("gone")
    wait_for(lambda: herd.asked.count(("late", None)) > 1, "it is looked for again")
    herd.unknown.discard("late")
    wait_for(lambda: herd.cancelled == ["late"], "it is cancelled")
    wait_for(lambda: remembered.waiting == 1, "the third is not waited for")
    now_s[0] = cancellations.APPEARS_S + 1
    wait_for(lambda: remembered.waiting == 0, "the other is given up")
    remembered.close()


def test_what_is_remembered_is_bounded_and_what_is_dropped_is_counted(monkeypatch, caplog):
    monkeypatch.setattr(cancellations, "MAX_REMEMBERED", 3)
    dropped: list[int] = []
    remembered = Cancellations(Herd().cancel)
    remembered.on_dropped = lambda: dropped.append(1)
    assert [remembered.remember(str(number)) for number in range(5)] == [True] * 3 + [False] * 2
    assert remembered.remember("0")
    assert (remembered.waiting, len(dropped)) == (3, 2)
    monkeypatch.setattr(cancellations, "PATIENCE_S", 0.0)
    with pytest.raises(HerdUnavailable, match="it will not be") as raised:
        remembered.cancel("6")
    assert raised.value.data == {}
    remembered.close()
    assert len(dropped) == 6, "what is left at the end is given up too"
    assert all(f"herd order cancel {number}'" in caplog.text for number in (*range(5), 6))


def test_a_program_that_ends_in_the_midst_of_a_cancellation_makes_it():
    herd, begun, go = Herd(), threading.Event(), threading.Event()
    herd.away = False

    def cancel(order_id: str, *, account: str | None) -> Any:
        if not begun.is_set():
            begun.set()
            go.wait(30)
            raise HerdUnavailable("It went away.")
        herd.cancel(order_id, account=account)

    remembered = Cancellations(cancel)
    remembered.remember("a")
    assert begun.wait(30)
    threading.Timer(0.2, go.set).start()
    remembered.close()
    assert herd.cancelled == ["a"]


def test_a_program_ends_though_its_database_is_silent(monkeypatch):
    monkeypatch.setattr(cancellations, "LAST_S", 0.2)
    begun, go = threading.Event(), threading.Event()
    dropped: list[int] = []

    def cancel(order_id: str, *, account: str | None) -> Any:
        begun.set()
        go.wait(60)

    remembered = Cancellations(cancel)
    remembered.on_dropped = lambda: dropped.append(1)
    remembered.remember("a")
    assert begun.wait(30)
    began_s = time.monotonic()
    remembered.close()
    assert time.monotonic() - began_s < 30
    assert dropped == [1]
    go.set()


def test_many_are_made_side_by_side_and_one_that_is_locked_keeps_none():
    """Bounded, so that whoever else needs the database gets to it."""
    at_once = cancellations.MAX_SIDE_BY_SIDE
    together, lock, now, most = threading.Barrier(at_once, timeout=60), threading.Lock(), [0], [0]
    done: set[str] = set()

    def cancel(order_id: str, *, account: str | None) -> Any:
        if order_id == "locked":
            raise HerdUnavailable("Its row is locked.")
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        if int(order_id) >= at_once - 1:  # those beside the locked one
            together.wait()
        with lock:
            now[0] -= 1
            done.add(order_id)

    remembered = Cancellations(cancel)
    # None may begin before all are there, or the groups would be others.
    with remembered._lock:
        remembered._asked.update(
            {
                cancellations._Asked(one, None): 0.0
                for one in ("locked", *map(str, range(5 * at_once - 1)))
            }
        )
    remembered._make_all(None)
    assert done == {str(number) for number in range(5 * at_once - 1)}
    assert most[0] == at_once
    assert remembered.waiting == 1
    remembered.close()
