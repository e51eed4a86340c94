"""The thread that waits for the ends of orders: it outlives Redis, and ends when it is told to."""

from __future__ import annotations

import threading

import redis

from herder.orders.watcher import Watcher
from tests.support.wait import wait_for


def watching() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name == "herd-watch"]


def test_it_goes_on_without_redis_and_ends_with_its_herd():
    before = set(watching())
    ended: set[str] = set()
    nowhere = redis.Redis(port=1, retry=None)
    watcher = Watcher(nowhere, lambda orders: ended & set(orders))
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
