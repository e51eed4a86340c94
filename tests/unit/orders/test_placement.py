"""Which worker each order is sent to."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from herder.orders.placement import place, room
from herder.store.herd import Worker

ONE = Worker(
    instance="w-1",
    kid="k",
    name="one",
    model="stub",
    slots=4,
    context=4096,
    tokens_per_s=10,
    weights="as in the file",
    state="alive",
    beat=1,
    strays=0,
    heard_s=0,
    joined_us=0,
    seen_us=0,
    hello=1,
    answered=1,
    hellos_sent=0,
    unclaimed=0,
    proven=True,
    out=0,
)
TWO = replace(ONE, instance="w-2")


def test_orders_are_spread_by_load():
    assert Counter(place([ONE, TWO], 4, 0)) == {"w-1": 2, "w-2": 2}
    assert place([replace(ONE, out=2), TWO], 2, 0) == ["w-2", "w-2"]


def test_of_unlike_workers_each_gets_its_share():
    large = replace(TWO, slots=12)
    assert Counter(place([ONE, large], 8, 0)) == {"w-1": 2, "w-2": 6}


def test_the_faster_one_comes_first_among_equals():
    assert place([ONE, replace(TWO, tokens_per_s=11)], 1, 0) == ["w-2"]


def test_no_worker_gets_more_than_it_has_room_for():
    assert place([replace(ONE, out=3), replace(TWO, strays=2)], 10, 0).count("w-1") == 1
    assert len(place([replace(ONE, out=3), replace(TWO, strays=2)], 10, 0)) == 3


def test_who_left_an_order_unclaimed_comes_last():
    doubted = replace(ONE, unclaimed=1, proven=False)
    assert place([doubted, replace(TWO, out=2)], 3, 0) == ["w-2", "w-2", "w-1"]


def test_only_who_claimed_before_gets_orders_ahead_of_a_free_slot():
    assert (room(replace(ONE, out=4), 2), room(replace(ONE, proven=False), 2)) == (2, 1)
    unreached = replace(ONE, answered=0)
    assert (room(unreached, 2), room(replace(ONE, state="draining"), 2)) == (0, 0)
    assert place([unreached], 3, 2) == []
