"""The thread that waits for the ends of orders: it outlives Redis, and ends when it is told to."""

from __future__ import annotations

import threading

import pytest
import redis

from herder.errors import HerdUnavailable
from herder.orders.watcher import CompletionWatcher
from tests.support.wait import wait_for


def watching() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name == "herd-watch"]


def test_it_goes_on_without_redis_and_ends_with_its_herd():
    before = set(watching())
    ended: set[str] = set()
    nowhere = redis.Redis(port=1, retry=None)
    watcher = CompletionWatcher(nowhere, lambda orders: ended & set(orders))
    assert not watcher.wait("o1", 0.1)
    (mine,) = set(watching()) - before
    heard = threading.Event()
    watcher.add("o1", heard)
    ended.add("o1")
    assert heard.wait(30), "looked for in the database"
    watcher.close()
    assert mine.is_alive(), "somebody waits"
    watcher.remove("o1", heard)
    wait_for(lambda: not mine.is_alive(), "the thread ends")


class BadRedis:
    """A Redis whose channel brings something that cannot be read, each time."""

    def __init__(self) -> None:
        self.asked = 0

    def pubsub(self, **_: object) -> BadRedis:
        return self

    def subscribe(self, _: str) -> None:
        pass

    def get_message(self, **_: object) -> dict[str, str]:
        self.asked += 1
        raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")

    def close(self) -> None:
        raise redis.ConnectionError("gone")


def test_it_outlives_whatever_redis_or_the_database_raise(caplog):
    ended: set[str] = set()
    trouble: list[Exception] = []

    def look(orders):
        if trouble:
            raise trouble[0]
        return ended & set(orders)

    bad = BadRedis()
    watcher = CompletionWatcher(bad, look)  # type: ignore[arg-type]
    heard = threading.Event()
    watcher.add("o1", heard)
    wait_for(lambda: bad.asked > 1, "it listens again")
    trouble.append(ValueError("planted"))
    wait_for(lambda: "planted" in caplog.text, "it is logged")
    trouble[0] = HerdUnavailable("It is away.")
    ended.add("o1")
    trouble.clear()
    assert heard.wait(30)
    watcher.remove("o1", heard)
    watcher.close()


def test_whoever_could_not_be_added_does_not_wait_and_one_that_fails_keeps_nobody_waiting():
    def look(orders):
        raise ValueError("planted")

    watcher = CompletionWatcher(redis.Redis(port=1, retry=None), look)
    with pytest.raises(ValueError, match="planted"):
        watcher.add("o1", threading.Event())
    assert watcher._waiting == {}
    watcher.remove("o1", threading.Event())

    class Broken:
        def set(self) -> None:
            raise RuntimeError("planted")

    good = threading.Event()
    watcher = CompletionWatcher(redis.Redis(port=1, retry=None), lambda orders: set(orders))
    broken = Broken()
    watcher.add("o1", broken)
    watcher.add("o1", good)
    assert good.is_set()
    watcher.remove("o1", broken)
    watcher.remove("o1", good)
    watcher.close()
