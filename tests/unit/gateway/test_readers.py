"""Who reads an order, at one gateway and at several, and what is done when the last has gone."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

import pytest
from redis import RedisError

from herder.gateway.streams.readers import LEASE_S, RENEW_S, Readers

GRACE_S = 10


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class Shared:
    """What gateways tell each other; it may be away."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.leases: dict[str, dict[str, float]] = {}
        self.told = 0
        self.is_away = False


class FakePresence:
    def __init__(self, shared: Shared, gateway: str) -> None:
        self.shared = shared
        self.gateway = gateway

    async def keep(self, orders: Sequence[str]) -> None:
        self._ask()
        for order in orders:
            lease = self.shared.leases.setdefault(order, {})
            lease[self.gateway] = self.shared.clock() + LEASE_S

    async def leave(self, orders: Sequence[str]) -> list[int]:
        self._ask()
        for order in orders:
            self.shared.leases.setdefault(order, {}).pop(self.gateway, None)
        now_s = self.shared.clock()
        return [
            sum(until_s > now_s for until_s in self.shared.leases[order].values())
            for order in orders
        ]

    def _ask(self) -> None:
        if self.shared.is_away:
            raise RedisError("away")
        self.shared.told += 1


class Gateway:
    """One gateway's readers, and the orders that it has had cancelled."""

    def __init__(self, shared: Shared, name: str) -> None:
        self.cancelled: list[str] = []
        self.readers = Readers(
            FakePresence(shared, name),
            self.cancelled.append,
            grace_s=GRACE_S,
            clock_s=shared.clock,
        )


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def shared(clock):
    return Shared(clock)


@pytest.fixture
def gateway(shared):
    return Gateway(shared, "first")


@pytest.fixture
def other(shared):
    return Gateway(shared, "second")


def passes(clock: Clock, seconds: float, *gateways: Gateway) -> None:
    """Let time pass, in which the gateways do what they do."""

    async def story() -> None:
        until_s = clock.now_s + seconds
        while clock.now_s < until_s:
            clock.now_s = min(until_s, clock.now_s + 0.5)
            for one in gateways:
                with suppress(RedisError):
                    await one.readers.step()

    asyncio.run(story())


def test_what_nobody_comes_back_to_is_cancelled_after_the_grace(gateway, clock):
    gateway.readers.enter("a").leave(may_return=True)
    passes(clock, GRACE_S - 1, gateway)
    assert gateway.cancelled == []
    passes(clock, 1, gateway)
    assert gateway.cancelled == ["a"]
    passes(clock, 60, gateway)
    assert gateway.cancelled == ["a"]


def test_whoever_comes_back_in_time_finds_it_and_has_a_grace_of_their_own(gateway, clock):
    gateway.readers.enter("a").leave(may_return=True)
    passes(clock, GRACE_S - 1, gateway)
    again = gateway.readers.enter("a")
    passes(clock, 60, gateway)
    assert gateway.cancelled == []
    again.leave(may_return=True)
    passes(clock, GRACE_S - 1, gateway)
    assert gateway.cancelled == []
    passes(clock, 1, gateway)
    assert gateway.cancelled == ["a"]


def test_one_of_two_hangs_up_and_the_patient_one_keeps_it(gateway, clock):
    hasty, patient = gateway.readers.enter("a"), gateway.readers.enter("a")
    hasty.leave(may_return=True)
    passes(clock, 60, gateway)
    assert gateway.cancelled == []
    patient.close()
    passes(clock, 60, gateway)
    assert gateway.cancelled == [], "whoever goes last decides"


def test_the_last_of_two_has_it_cancelled(gateway, clock):
    first, last = gateway.readers.enter("a"), gateway.readers.enter("a")
    first.close()
    last.leave(may_return=True)
    passes(clock, GRACE_S, gateway)
    assert gateway.cancelled == ["a"]


def test_a_caller_who_cannot_come_back_is_not_waited_for(gateway, clock):
    gateway.readers.enter("a").leave(may_return=False)
    passes(clock, 0.5, gateway)
    assert gateway.cancelled == ["a"]


def test_a_reading_ends_once(gateway, clock):
    patient = gateway.readers.enter("a")
    hasty = gateway.readers.enter("a")
    for _ in range(2):
        hasty.leave(may_return=False)
        hasty.close()
    passes(clock, 60, gateway)
    assert gateway.cancelled == []
    patient.leave(may_return=False)
    passes(clock, 0.5, gateway)
    assert gateway.cancelled == ["a"]


@pytest.mark.parametrize("may_return", [True, False])
def test_a_reader_at_another_gateway_keeps_it(gateway, other, clock, may_return):
    hasty, patient = gateway.readers.enter("a"), other.readers.enter("a")
    passes(clock, 0.5, gateway, other)
    hasty.leave(may_return=may_return)
    passes(clock, 60, gateway, other)
    assert gateway.cancelled == other.cancelled == []
    patient.leave(may_return=True)
    passes(clock, GRACE_S, gateway, other)
    assert (gateway.cancelled, other.cancelled) == ([], ["a"])


def test_a_caller_may_come_back_at_another_gateway(gateway, other, clock):
    gateway.readers.enter("a").leave(may_return=True)
    passes(clock, GRACE_S - 0.5, gateway, other)
    again = other.readers.enter("a")
    passes(clock, 0.5, other, gateway)
    passes(clock, 60, gateway, other)
    assert gateway.cancelled == other.cancelled == []
    again.close()
    passes(clock, 60, gateway, other)
    assert gateway.cancelled == other.cancelled == []


def test_of_two_gateways_whose_callers_are_awaited_one_cancels(gateway, other, clock):
    readings = [gateway.readers.enter("a"), other.readers.enter("a")]
    passes(clock, 0.5, gateway, other)
    for one in readings:
        one.leave(may_return=True)
    passes(clock, GRACE_S + 1, gateway, other)
    assert gateway.cancelled + other.cancelled == ["a"]


def test_the_readers_of_a_gateway_that_was_killed_count_for_a_lease(gateway, other, clock):
    other.readers.enter("a")
    mine = gateway.readers.enter("a")
    passes(clock, 0.5, gateway, other)
    passes(clock, LEASE_S + 1, gateway)
    mine.leave(may_return=True)
    passes(clock, GRACE_S, gateway)
    assert gateway.cancelled == ["a"]


def test_a_reader_who_stays_is_told_of_again_and_again(gateway, other, clock):
    other.readers.enter("a")
    mine = gateway.readers.enter("a")
    passes(clock, 10 * LEASE_S, gateway, other)
    mine.leave(may_return=True)
    passes(clock, GRACE_S, gateway, other)
    assert gateway.cancelled == []


def test_without_redis_each_gateway_counts_by_itself(gateway, shared, clock):
    shared.is_away = True
    hasty, patient = gateway.readers.enter("a"), gateway.readers.enter("a")
    hasty.leave(may_return=True)
    gateway.readers.enter("b").leave(may_return=False)
    passes(clock, GRACE_S, gateway)
    assert gateway.cancelled == ["b"]
    patient.leave(may_return=True)
    passes(clock, GRACE_S, gateway)
    assert gateway.cancelled == ["b", "a"]


def test_whoever_comes_while_the_other_gateways_are_asked_is_in_time(gateway, other, shared, clock):
    came = []

    class Asked(FakePresence):
        async def leave(self, orders: Sequence[str]) -> list[int]:
            found = await super().leave(orders)
            if "a" in orders and not came:
                came.append(first.enter("a"))
            return found

    cancelled: list[str] = []
    first = Readers(Asked(shared, "first"), cancelled.append, grace_s=GRACE_S, clock_s=clock)
    gateway.readers, gateway.cancelled = first, cancelled
    first.enter("a").leave(may_return=True)
    passes(clock, GRACE_S, gateway)
    assert came
    assert cancelled == []
    passes(clock, 0.5, gateway)
    elsewhere = other.readers.enter("a")
    elsewhere.leave(may_return=False)
    passes(clock, 0.5, other)
    assert other.cancelled == [], "it is read here, and the others know"
    came[0].leave(may_return=True)
    passes(clock, GRACE_S, gateway)
    assert cancelled == ["a"]


def test_an_answer_within_a_moment_costs_nobody_a_word(gateway, shared, clock):
    for number in range(100):
        gateway.readers.enter(str(number), is_new=True).close()
    passes(clock, RENEW_S - 1, gateway)
    assert shared.told == 0


def test_a_gateway_that_stops_awaits_nobody_and_cancels_nothing_that_is_read(
    gateway, other, shared, clock
):
    gateway.readers.enter("awaited").leave(may_return=True)
    gateway.readers.enter("read")
    passes(clock, 0.5, gateway, other)
    asyncio.run(gateway.readers.stop())
    assert gateway.cancelled == ["awaited"]
    assert not any(shared.leases.values())
