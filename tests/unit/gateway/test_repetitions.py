"""Marked repetitions of calls without a key: which of them take over the key of a lost call."""

from __future__ import annotations

import asyncio
from itertools import count

import pytest
from redis import RedisError

from herder.gateway.repetitions import KEPT_S, Repetitions, count_of, digest_of
from herder.gateway.streams.hang_up import HangUp


class FakeLostCalls:
    """Keys that wait, as Redis keeps them; it may be away."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.is_away = False
        self.waiting: dict[str, list[tuple[float, str]]] = {}

    async def lose(self, digest: str, key: str) -> None:
        self._ask()
        self.waiting.setdefault(digest, []).append((self.now_s, key))

    async def take(self, digest: str) -> str | None:
        self._ask()
        kept = [one for one in self.waiting.get(digest, []) if one[0] >= self.now_s - KEPT_S]
        first, *rest = [*kept, (0.0, None)]
        self.waiting[digest] = rest[:-1]
        return first[1]

    def _ask(self) -> None:
        if self.is_away:
            raise RedisError("away")


@pytest.fixture
def lost():
    return FakeLostCalls()


@pytest.fixture
def repetitions(lost):
    numbers = count(1)
    return Repetitions(lost, lambda: f"key {next(numbers)}")


def test_a_repetition_takes_over_the_key_of_the_call_that_was_lost(repetitions):
    async def story() -> None:
        assert await repetitions.key_of("call", 0) == "key 1"
        repetitions.lose("call", "key 1")
        await repetitions.step()
        assert await repetitions.key_of("call", 1) == "key 1"
        repetitions.lose("call", "key 1")
        await repetitions.step()
        assert await repetitions.key_of("call", 2) == "key 1"
        assert await repetitions.key_of("call", 3) == "key 2", "that one is being answered"

    asyncio.run(story())


def test_a_key_that_was_lost_this_moment_is_had_by_one_repetition(repetitions):
    async def story() -> None:
        repetitions.lose("call", await repetitions.key_of("call", 0))
        assert await repetitions.key_of("another call", 1) == "key 2"
        assert await repetitions.key_of("call", 1) == "key 1"
        await repetitions.step()
        assert await repetitions.key_of("call", 2) == "key 3", "that one is being answered"

    asyncio.run(story())


def test_a_first_call_and_another_call_take_over_nothing(repetitions):
    async def story() -> None:
        repetitions.lose("call", await repetitions.key_of("call", 0))
        await repetitions.step()
        assert await repetitions.key_of("call", 0) == "key 2", "asked again, on purpose"
        assert await repetitions.key_of("another call", 1) == "key 3"

    asyncio.run(story())


def test_of_equal_calls_that_were_lost_each_repetition_takes_its_own(repetitions):
    async def story() -> None:
        for _ in range(3):
            repetitions.lose("call", await repetitions.key_of("call", 0))
        await repetitions.step()
        taken = [await repetitions.key_of("call", 1) for _ in range(4)]
        assert taken == ["key 1", "key 2", "key 3", "key 4"]

    asyncio.run(story())


def test_after_a_minute_it_is_a_new_call(repetitions, lost):
    async def story() -> None:
        repetitions.lose("call", await repetitions.key_of("call", 0))
        await repetitions.step()
        lost.now_s += KEPT_S + 1
        assert await repetitions.key_of("call", 1) == "key 2"

    asyncio.run(story())


def test_without_redis_what_was_lost_here_is_found_here_and_told_to_others_later(repetitions, lost):
    async def story() -> None:
        lost.is_away = True
        repetitions.lose("call", await repetitions.key_of("call", 0))
        with pytest.raises(RedisError):
            await repetitions.step()
        elsewhere = Repetitions(lost, lambda: "another key")
        assert await elsewhere.key_of("call", 1) == "another key"
        assert await repetitions.key_of("call", 1) == "key 1"
        repetitions.lose("call", "key 1")
        lost.is_away = False
        await repetitions.stop()
        assert await elsewhere.key_of("call", 2) == "key 1"

    asyncio.run(story())


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ({}, None),
        ({"x-stainless-retry-count": "0"}, 0),
        ({"x-stainless-retry-count": "12"}, 12),
        ({"x-stainless-retry-count": "-1"}, None),
        ({"x-stainless-retry-count": "one"}, None),
        ({"x-stainless-retry-count": "9" * 5000}, None),
    ],
)
def test_how_often_a_call_was_sent_is_what_its_client_says(headers, found):
    assert count_of(headers) == found


def test_a_digest_is_of_everything_and_of_the_api_key():
    call = ["chat", None, 5, {"model": "stub", "fee": 3}]
    assert digest_of("key", call) == digest_of("key", ["chat", None, 5, dict(call[3])])
    others = [
        digest_of("other", call),
        digest_of("key", ["completion", *call[1:]]),
        digest_of("key", [*call[:2], 6, call[3]]),
        digest_of("key", [*call[:3], {"model": "stub", "fee": 4}]),
    ]
    assert len({digest_of("key", call), *others}) == 5


def test_a_caller_who_disconnects_is_noticed_at_once_and_one_who_does_not_is_not():
    async def story() -> None:
        gone = asyncio.Event()

        async def receive() -> dict[str, str]:
            await gone.wait()
            return {"type": "http.disconnect"}

        async with HangUp(receive) as line:
            woken = asyncio.Event()
            line.wakes(woken)
            await asyncio.sleep(0)
            assert not line.is_gone
            gone.set()
            await asyncio.wait_for(woken.wait(), 60)
            assert line.is_gone
            late = asyncio.Event()
            line.wakes(late)
            assert late.is_set()

    asyncio.run(story())
