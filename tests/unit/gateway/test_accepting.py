"""What a gateway owes its callers while the database is away; no connection."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from herder.db.outages import CommitUnknown
from herder.errors import HerdUnavailable
from herder.gateway.outages import accept, accepted, ride_out
from herder.gateway.streams.delivering import DeliveryNotes
from herder.gateway.streams.following import Follower
from herder.local.cancellations import Cancellations
from herder.web.errors import answer_to
from tests.support.wait import wait_for


async def until(condition: Any, what: str) -> None:
    await asyncio.to_thread(wait_for, condition, what)


@pytest.mark.parametrize("has_key", [True, False])
def test_an_order_that_is_taken_while_its_gateway_ends_is_called_off(has_key):
    async def story() -> None:
        begun, go = threading.Event(), threading.Event()
        cancelled: list[str] = []

        def cancel(order_id: str, *, account: str | None) -> Any:
            cancelled.append(order_id)

        def take() -> Any:
            begun.set()
            go.wait(30)
            return SimpleNamespace(id="a")

        cancellations = Cancellations(cancel)
        taking = asyncio.ensure_future(accept(cancellations, take, has_key=has_key))
        await asyncio.to_thread(begun.wait, 30)
        taking.cancel()
        await asyncio.sleep(0)
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await taking
        if not has_key:
            await until(lambda: cancelled, "it is cancelled")
        await asyncio.to_thread(cancellations.close)
        assert cancelled == ([] if has_key else ["a"])

    asyncio.run(story())


@pytest.mark.parametrize("has_key", [True, False])
def test_an_order_of_which_nothing_is_known_is_told(has_key):
    order_id = "4fa3cbf0-7b16-4bb0-a7ad-2f5d1a0b2f11"

    def take() -> Any:
        raise CommitUnknown("Lost.", order=order_id)

    async def story() -> None:
        nothing: Any = None
        with pytest.raises(CommitUnknown) as raised:
            await accept(nothing, take, has_key=has_key)
        answer = answer_to(raised.value)
        assert (answer.status_code, answer.headers["x-order"]) == (503, order_id)
        assert ("Idempotency-Key" in raised.value.message) == has_key

    asyncio.run(story())


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
    writer: Any = None
    return Follower(herd, reader, DeliveryNotes(writer), 10, 10)


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
