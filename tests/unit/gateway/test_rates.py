"""Calls a minute: what one gateway counts, and how several add it up."""

from __future__ import annotations

import asyncio

import pytest
from redis import RedisError

from herder.gateway.limits.guard import CallLimits, address_of, duration
from herder.gateway.limits.rates import MINUTE_US, NAMES, CallRate, make_sharing
from herder.gateway.settings import GatewaySettings
from herder.settings import load


class Clock:
    def __init__(self) -> None:
        self.now_us = 1_000_000_000

    def __call__(self) -> int:
        return self.now_us

    def pass_s(self, seconds: float) -> None:
        self.now_us += int(seconds * 1_000_000)


class FakeRedis:
    """Buckets by key, on a clock that differs from the gateways'; it may be away."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.empty: dict[str, int] = {}
        self.away = False

    async def add(self, keys, poured):
        if self.away:
            raise RedisError("away")
        now = self.clock() + 77
        full = []
        for key, us in zip(keys, poured, strict=True):
            self.empty[key] = max(self.empty.get(key, 0), now) + us
            full.append(self.empty[key] - now)
        return full


@pytest.fixture
def clock():
    return Clock()


def taken(rate, name, calls):
    """How many of so many calls are let through."""
    return sum(rate.take(name) == 0 for _ in range(calls))


def test_a_minutes_worth_at_once_and_then_as_the_rate_says(clock):
    rate = CallRate("key", 60, clock_us=clock)
    assert taken(rate, "a", 100) == 60
    assert rate.take("a") == 1, "seconds until the next"
    assert taken(rate, "b", 1) == 1, "another name has its own"
    clock.pass_s(5)
    assert taken(rate, "a", 100) == 5, "those that were refused count for nothing"
    clock.pass_s(600)
    assert taken(rate, "a", 100) == 60


def test_the_wait_is_told_in_whole_seconds(clock):
    rate = CallRate("key", 3, clock_us=clock)
    assert taken(rate, "a", 3) == 3
    assert rate.take("a") == 20
    clock.pass_s(19.5)
    assert rate.take("a") == 1
    clock.pass_s(0.5)
    assert rate.take("a") == 0


def test_zero_is_any_number_and_costs_nothing(clock):
    rate = CallRate("key", 0, clock_us=clock)
    assert taken(rate, "a", 10_000) == 10_000
    assert rate._buckets == {}


def test_two_gateways_let_through_what_one_would(clock):
    shared = FakeRedis(clock)
    here, there = (CallRate("key", 60, clock_us=clock) for _ in range(2))

    def share():
        for rate in (here, there):
            asyncio.run(rate.share(shared))

    assert taken(here, "a", 40) == 40
    share()
    assert taken(there, "a", 1) == 1, "it has not heard of the others yet"
    share()
    assert taken(there, "a", 100) == 19
    share()
    assert here.take("a") == 0, "it hears of the others when it has something to say"
    share()
    assert here.take("a") > 0
    clock.pass_s(30)
    share()
    assert taken(here, "a", 100) + taken(there, "a", 100) <= 60
    share()
    clock.pass_s(120)
    assert taken(there, "a", 100) == 60


def test_without_redis_each_goes_on_alone_and_an_outage_leaves_a_minute_at_most(clock):
    shared = FakeRedis(clock)
    rate = CallRate("key", 60, clock_us=clock)
    shared.away = True
    passed = 0
    for _ in range(600):
        passed += taken(rate, "a", 2)
        with pytest.raises(RedisError):
            asyncio.run(rate.share(shared))
        clock.pass_s(1)
    assert 600 <= passed <= 660
    shared.away = False
    asyncio.run(rate.share(shared))
    assert rate.wait_s("a") <= 1
    clock.pass_s(60)
    assert taken(rate, "a", 100) >= 59


def test_what_comes_while_redis_is_asked_is_not_forgotten(clock):
    rate = CallRate("key", 60, clock_us=clock)

    class Slow(FakeRedis):
        async def add(self, keys, poured):
            answer = await super().add(keys, poured)
            assert taken(rate, "a", 10) == 10
            return answer

    assert taken(rate, "a", 50) == 50
    asyncio.run(rate.share(Slow(clock)))
    assert rate.take("a") > 0
    shared = FakeRedis(clock)
    asyncio.run(rate.share(shared))
    assert shared.empty["rate:key:a"] - clock() - 77 == 10 * MINUTE_US // 60


def test_names_without_end_take_no_memory_without_end(clock):
    rate = CallRate("address", 60, clock_us=clock)
    for number in range(NAMES + 10):
        rate.count(str(number))
    assert len(rate._buckets) <= NAMES
    assert rate._unshared <= set(rate._buckets)
    assert rate._buckets[str(NAMES + 9)], "the oldest go first"


def test_an_address_is_a_customer():
    def of(client):
        return address_of({"client": client})

    assert of(("192.0.2.7", 5000)) == "192.0.2.7"
    assert of(("::ffff:192.0.2.7", 5000)) == "192.0.2.7"
    assert of(("2001:db8:1:2:3::4", 5000)) == "2001:db8:1:2::/64"
    assert of(("2001:db8:1:2:ffff::9", 1)) == "2001:db8:1:2::/64"
    assert of(None) == of(("somebody", 0)) == "unknown"


def test_keys_that_were_good_somewhere_are_heard_there(tmp_path, clean_environment):
    limits = CallLimits(load(GatewaySettings, tmp_path, unauthorized_per_minute=2))
    limits.may_show("here", "known")
    limits.was_good("here", "known")
    for _ in range(2):
        limits.may_show("here", "guess")
        limits.was_none("here")
    limits.may_show("here", "known")
    limits.may_show("there", "guess")
    with pytest.raises(Exception, match="without a valid API key") as refused:
        limits.may_show("here", "guess")
    assert refused.value.code == "rate_limited"
    assert refused.value.retry_after_s > 0


@pytest.mark.parametrize("raised", [RedisError("away"), ZeroDivisionError("planted")])
def test_sharing_goes_on_after_a_failure(clock, raised):
    """A task that died in silence would leave each gateway to its own count for good."""

    async def main():
        rate, shared = CallRate("key", 60, clock_us=clock), asyncio.Event()
        there = FakeRedis(clock)
        add, calls = there.add, []

        async def add_or_fail(keys, poured):
            calls.append(keys)
            if len(calls) == 1:
                raise raised
            shared.set()
            return await add(keys, poured)

        there.add = add_or_fail
        rate.count("ada")
        loop = make_sharing([rate], there)
        loop.start()
        await asyncio.wait_for(shared.wait(), 60)
        assert loop.failures == 1
        await loop.stop()
        assert there.empty, "what was counted before is shared now"

    asyncio.run(main())


@pytest.mark.parametrize(
    ("us", "told"),
    [
        (0, "0s"),
        (1, "1ms"),
        (10_000, "10ms"),
        (999_999, "1s"),
        (1_000_000, "1s"),
        (8_640_000, "8.64s"),
        (59_999_001, "1m0s"),
        (61_050_000, "1m1.05s"),
        (360_000_000, "6m0s"),
        (5_400_000_000, "90m0s"),
    ],
)
def test_durations_are_written_as_go_and_openai_write_them(us, told):
    assert duration(us) == told


def test_a_name_is_told_what_it_may_still_do_and_when_all_is_as_before(clock):
    rate = CallRate("key", 4, clock_us=clock)
    assert rate.standing("anna") == (4, 0)
    left = []
    for _ in range(5):
        rate.take("anna")
        left.append(rate.standing("anna"))
    each = MINUTE_US // 4
    assert left == [(3, each), (2, 2 * each), (1, 3 * each), (0, 4 * each), (0, 4 * each)]
    clock.pass_s(14)
    assert rate.standing("anna") == (0, 46_000_000)
    assert rate.take("anna")
    clock.pass_s(1)
    assert rate.standing("anna") == (1, 45_000_000)
    assert not rate.take("anna")
    clock.pass_s(200)
    assert rate.standing("anna") == (4, 0)
    assert rate.standing("berta") == (4, 0)


@pytest.mark.parametrize("per_minute", [1, 7, 700_001, 1_000_000])
def test_no_more_is_told_to_be_left_than_the_limit(clock, per_minute):
    rate = CallRate("key", per_minute, clock_us=clock)
    assert rate.standing("anna") == (per_minute, 0)
    assert not rate.take("anna")
    assert rate.standing("anna")[0] <= per_minute


def test_what_other_gateways_let_through_is_told_too(clock):
    shared = FakeRedis(clock)
    one, other = (CallRate("key", 6, clock_us=clock) for _ in range(2))
    for rate in (one, other):
        for _ in range(5):
            assert not rate.take("anna")

    async def share():
        for rate in (one, other):
            await rate.share(shared)

    asyncio.run(share())
    left, reset_us = other.standing("anna")
    assert left == 0
    assert reset_us >= 99_000_000
