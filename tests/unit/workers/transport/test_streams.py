"""Calls of Redis have a limit, and one that was not answered spares the next ones the wait."""

from __future__ import annotations

import socket
import threading

import pytest
import redis

from herder.local.announcements import Announcements
from workers.transport.streams import SILENT_S, Streams, connect

LIMIT_S = 0.2


@pytest.fixture
def silent():
    """The address of a server that takes connections, and answers nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"redis://127.0.0.1:{server.getsockname()[1]}/0"


class Clock:
    def __init__(self):
        self.now_s = 0.0

    def __call__(self):
        return self.now_s


def test_a_call_that_is_not_answered_spares_the_next_ones_the_wait(silent, monkeypatch):
    clock = Clock()
    client = connect(silent, limit_s=LIMIT_S)
    asked = []
    send = client.execute_command
    monkeypatch.setattr(
        client,
        "execute_command",
        lambda *words, **more: asked.append(words) or send(*words, **more),
    )
    streams = Streams(client, clock_s=clock)
    with pytest.raises(redis.TimeoutError):
        streams.announce_ended(["o1"])
    assert len(asked) == 1, "no second try where a server stands still"
    for call in (streams.announce_ended, streams.announce_inboxes):
        with pytest.raises(redis.TimeoutError):
            call(["o1"])
    assert streams.state() == "silent"
    assert len(asked) == 1, "none of these was sent"
    clock.now_s += SILENT_S
    with pytest.raises(redis.TimeoutError):
        streams.nudge_arrived("stub")
    assert len(asked) == 2


def test_an_outage_that_is_noticed_at_once_is_tried_each_time():
    clock = Clock()
    streams = Streams(connect("redis://127.0.0.1:1/0", limit_s=LIMIT_S), clock_s=clock)
    for _ in range(2):
        with pytest.raises(redis.ConnectionError):
            streams.announce_ended(["o1"])
    assert streams.state() == "silent"


def test_a_redis_that_refuses_to_store_is_told_apart():
    found = {
        "full": redis.OutOfMemoryError("used memory > 'maxmemory'"),
        "read_only": redis.ReadOnlyError("a replica"),
        "ok": redis.exceptions.NoPermissionError("no permissions to access one of the keys"),
    }

    class Refusing:
        def __init__(self, error):
            self.error = error

        def set(self, *_, **__):
            raise self.error

    for state, error in found.items():
        assert Streams(Refusing(error)).state() == state


def test_announcements_return_at_once_and_come_in_order():
    heard, go_on = [], threading.Event()

    class Slow:
        def announce_ended(self, orders):
            go_on.wait(60)
            heard.append(("ended", orders))

        def announce_inboxes(self, accounts):
            heard.append(("inboxes", accounts))
            raise redis.ConnectionError("gone")

        def add_controls(self, messages):
            heard.append(("controls", messages))

    announced = Announcements(Slow())
    announced.ended(["o1"])
    announced.inboxes(["a"])
    announced.controls([("w-1", "token")])
    assert heard == []
    go_on.set()
    announced.close(60)
    assert heard == [("ended", ["o1"]), ("inboxes", ["a"]), ("controls", [("w-1", "token")])]
