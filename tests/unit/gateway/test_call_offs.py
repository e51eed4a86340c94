"""What a gateway remembers for its callers while the database is away; no connection."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from herder.db.outages import CommitUnknown
from herder.errors import HerdUnavailable, OrderNotFound, SetupError
from herder.gateway import outages
from herder.gateway.outages import CallOffs, accept, accepted, ride_out
from herder.gateway.streams.following import Follower
from herder.web.errors import answer_to
from tests.support.wait import wait_for


class Herd:
    """Cancels orders, unless it is away."""

    def __init__(self) -> None:
        self.away = True
        self.asked: list[tuple[str, str | None]] = []
        self.cancelled: list[str] = []
        self.unknown: set[str] = set()

    def cancel(self, order_id: str, *, account: str | None) -> None:
        self.asked.append((order_id, account))
        if self.away:
            raise HerdUnavailable("It is away.")
        if order_id in self.unknown:
            raise OrderNotFound(order_id)
        self.cancelled.append(order_id)


async def until(condition: Any, what: str) -> None:
    await asyncio.to_thread(wait_for, condition, what)


def test_a_cancellation_that_cannot_be_made_is_made_once_it_can():
    async def story() -> None:
        herd = Herd()
        offs = CallOffs(herd.cancel)
        offs.start()
        await offs.cancel("a")
        offs.later("b", account="ada")
        assert offs.waiting == 2
        await until(lambda: ("b", "ada") in herd.asked, "it is tried")
        herd.away = False
        await until(lambda: offs.waiting == 0, "both are cancelled")
        assert sorted(herd.cancelled) == ["a", "b"]
        await offs.close()

    asyncio.run(story())


def test_a_database_that_cannot_be_used_as_it_is_has_cancelled_nothing():
    async def story() -> None:
        wrong = ["It rejected the password."]
        herd = Herd()
        herd.away = False

        def cancel(order_id: str, *, account: str | None) -> None:
            if wrong:
                raise SetupError(wrong.pop())
            herd.cancel(order_id, account=account)

        offs = CallOffs(cancel)
        offs.start()
        await offs.cancel("a")
        assert offs.waiting == 1
        await until(lambda: herd.cancelled == ["a"], "it is cancelled")
        await offs.close()

    asyncio.run(story())


def test_one_that_can_never_be_cancelled_keeps_no_other():
    async def story() -> None:
        herd = Herd()
        herd.away, busy = False, {"stuck"}

        def cancel(order_id: str, *, account: str | None) -> None:
            if order_id in busy:
                raise HerdUnavailable("Its row is locked.")
            if order_id == "broken":
                raise RuntimeError("a fault")
            herd.cancel(order_id, account=account)

        offs = CallOffs(cancel)
        for one in ("stuck", "broken", "fine"):
            offs.later(one)
        offs.start()
        await until(lambda: herd.cancelled == ["fine"], "the third is cancelled")
        await until(lambda: offs.waiting == 1, "only the first is left")
        busy.clear()
        await offs.close()
        assert herd.cancelled == ["fine", "stuck"]

    asyncio.run(story())


def test_an_order_that_may_yet_appear_is_looked_for_again_and_not_for_ever():
    async def story() -> None:
        herd, now_s = Herd(), [0.0]
        herd.away, herd.unknown = False, {"late", "never"}
        offs = CallOffs(herd.cancel, clock_s=lambda: now_s[0])
        offs.start()
        offs.later("late", is_taken=False)
        offs.later("never", is_taken=False)
        offs.later("gone")
        herd.unknown.add("gone")
        await until(lambda: herd.asked.count(("late", None)) > 1, "it is looked for again")
        herd.unknown.discard("late")
        await until(lambda: herd.cancelled == ["late"], "it is cancelled")
        assert offs.waiting == 1
        now_s[0] = outages.APPEARS_S + 1
        await until(lambda: offs.waiting == 0, "the other is given up")
        await offs.close()

    asyncio.run(story())


def test_what_is_remembered_is_bounded_and_what_is_dropped_is_counted(monkeypatch):
    monkeypatch.setattr(outages, "MAX_REMEMBERED", 3)
    dropped: list[int] = []

    async def story() -> None:
        herd = Herd()
        offs = CallOffs(herd.cancel, lambda: dropped.append(1))
        for number in range(5):
            offs.later(str(number))
        offs.later("0")
        assert (offs.waiting, len(dropped)) == (3, 2)
        await offs.close()

    asyncio.run(story())
    assert len(dropped) == 5, "what is left at the end is given up too"


def test_a_gateway_that_ends_in_the_midst_of_a_cancellation_makes_it():
    async def story() -> None:
        herd, begun, go = Herd(), threading.Event(), threading.Event()

        def cancel(order_id: str, *, account: str | None) -> None:
            if not begun.is_set():
                begun.set()
                go.wait(30)
                raise HerdUnavailable("It went away.")
            herd.cancel(order_id, account=account)

        offs = CallOffs(cancel)
        asked = asyncio.ensure_future(offs.cancel("a"))
        await asyncio.to_thread(begun.wait, 30)
        asked.cancel()
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await asked
        herd.away = False
        await offs.close()
        assert herd.cancelled == ["a"]

    asyncio.run(story())


@pytest.mark.parametrize("has_key", [True, False])
def test_an_order_that_is_taken_while_its_gateway_ends_is_called_off(has_key):
    async def story() -> None:
        herd, begun, go = Herd(), threading.Event(), threading.Event()
        herd.away = False

        def take() -> Any:
            begun.set()
            go.wait(30)
            return SimpleNamespace(id="a")

        offs = CallOffs(herd.cancel)
        taking = asyncio.ensure_future(accept(offs, take, has_key=has_key))
        await asyncio.to_thread(begun.wait, 30)
        taking.cancel()
        await asyncio.sleep(0)
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await taking
        if not has_key:
            await until(lambda: offs.waiting == 1, "it is remembered")
        await offs.close()
        assert herd.cancelled == ([] if has_key else ["a"])

    asyncio.run(story())


@pytest.mark.parametrize("has_key", [True, False])
def test_an_order_of_which_nothing_is_known_is_told_and_called_off_without_a_key(has_key):
    order_id = "4fa3cbf0-7b16-4bb0-a7ad-2f5d1a0b2f11"

    def take() -> Any:
        raise CommitUnknown("Lost.", order=order_id)

    async def story() -> CallOffs:
        offs = CallOffs(Herd().cancel)
        with pytest.raises(CommitUnknown) as raised:
            await accept(offs, take, has_key=has_key)
        answer = answer_to(raised.value)
        assert (answer.status_code, answer.headers["x-order"]) == (503, order_id)
        assert ("Idempotency-Key" in raised.value.message) == has_key
        return offs

    assert asyncio.run(story()).waiting == (0 if has_key else 1)


def test_what_fails_after_an_order_was_taken_tells_which():
    with pytest.raises(HerdUnavailable) as raised, accepted("an-order"):
        raise HerdUnavailable("Away.")
    assert raised.value.data == {"order": "an-order"}
    assert "x-order" not in answer_to(raised.value).headers, "only ids go into headers"


def test_an_outage_is_ridden_out_and_no_longer_than_asked():
    async def story() -> None:
        tries = iter([True, True, False])

        async def ask() -> str:
            if next(tries, True):
                raise HerdUnavailable("Away.")
            return "so it is"

        assert await ride_out(ask) == "so it is"
        with pytest.raises(HerdUnavailable):
            await ride_out(ask, within_s=0.1)

    asyncio.run(story())


class Watcher:
    """Notes who waits, slowly, and looks into a database that is away."""

    def __init__(self) -> None:
        self.waiting: list[object] = []
        self.begun, self.go = threading.Event(), threading.Event()

    def add(self, _: str, waiter: object) -> None:
        self.begun.set()
        assert self.go.wait(30)
        self.waiting.append(waiter)
        raise HerdUnavailable("Away.")

    def remove(self, _: str, waiter: object) -> None:
        self.waiting.remove(waiter)


def follower(watcher: Watcher) -> Follower:
    herd: Any = SimpleNamespace(watcher=watcher, database=SimpleNamespace(reads_at_once=False))
    reader: Any = None
    return Follower(herd, reader, 10, 10)


def test_who_meets_an_outage_waits_and_is_forgotten_afterwards():
    async def story() -> None:
        watcher = Watcher()
        watcher.go.set()
        assert not await follower(watcher).wait("o1", 0.05)
        await until(lambda: watcher.waiting == [], "nobody waits any more")

    asyncio.run(story())


def test_who_goes_away_while_he_is_noted_is_forgotten_too():
    async def story() -> None:
        watcher = Watcher()
        waiting = asyncio.ensure_future(follower(watcher).wait("o1", 30))
        await asyncio.to_thread(watcher.begun.wait, 30)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        watcher.go.set()
        await asyncio.sleep(0.2)
        await until(lambda: watcher.waiting == [], "nobody waits any more")

    asyncio.run(story())
