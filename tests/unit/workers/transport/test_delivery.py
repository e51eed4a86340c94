"""What readers were given, as Redis keeps it: a real Redis, no herd."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.redis_server import RedisServer
from workers.transport.delivery import Delivery, Reach, delivery_key
from workers.transport.reading import DeliveryWriter
from workers.transport.streams import Streams


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.kill()


@pytest.fixture
def streams(server):
    client = server.client()
    client.flushall()
    return Streams(client)


def said(reader: str, characters: int, tokens: int, *, left: bool = False, attempt: int = 1):
    return Delivery("o1", attempt, reader, Reach(characters, tokens), left, 600)


def reach(streams: Streams, attempt: int = 1) -> Reach:
    return streams.delivered([("o1", attempt)])[0]


def test_what_nobody_read_was_not_delivered(streams):
    assert streams.delivered([("o1", 1), ("o2", 3)]) == [Reach(), Reach()]


def test_who_was_given_most_counts_and_nobody_takes_it_back(streams):
    streams.note_deliveries([said("ada", 30, 7), said("bob", 12, 3)])
    assert reach(streams) == Reach(30, 7)
    streams.note_deliveries([said("ada", 20, 5)])
    assert reach(streams) == Reach(30, 7), "it was said to be given"
    assert reach(streams, 2) == Reach(), "of another attempt"


def test_who_leaves_says_what_was_really_given(streams, server):
    streams.note_deliveries([said("ada", 30, 7), said("bob", 12, 3)])
    streams.note_deliveries([said("ada", 20, 5, left=True)])
    assert reach(streams) == Reach(20, 5)
    streams.note_deliveries([said("bob", 12, 3, left=True)])
    assert reach(streams) == Reach(20, 5)
    assert server.client().zcard(delivery_key("o1", 1)) == 1, "all who left are one"


def test_who_leaves_without_anything_leaves_nothing(streams, server):
    streams.note_deliveries([said("ada", 30, 7)])
    streams.note_deliveries([said("ada", 0, 0, left=True)])
    assert reach(streams) == Reach()
    assert not server.client().exists(delivery_key("o1", 1))


def test_notes_do_not_stay_for_ever(streams, server):
    streams.note_deliveries([said("ada", 30, 7)])
    assert 0 < server.client().ttl(delivery_key("o1", 1)) <= 600


def test_an_event_loop_writes_the_same(streams, server):
    async def write() -> None:
        writer = DeliveryWriter(server.url)
        await writer.write([said("ada", 30, 7), said("bob", 40, 9)])
        await writer.write([said("bob", 35, 8, left=True)])
        await writer.close()

    asyncio.run(write())
    assert reach(streams) == Reach(35, 8)


@given(st.integers(0, 2**20), st.integers(0, 1_000_000))
def test_a_score_is_exact(characters, tokens):
    whole = Reach(characters, tokens)
    assert Reach.of(float(whole.score)) == whole
