"""The time of a worker's stop: all of it is the grace time, and orders have all but the end."""

from __future__ import annotations

import threading

import pytest

from tests.support.wait import wait_for
from tests.unit.workers.agent.test_agent import Bench, job
from workers.agent.stopping import CLOSE_S, FAREWELL_S, StopClock
from workers.settings import WorkerSettings
from workers.wire import WorkerStopped

DOCKER_KILLS_S = 10


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


@pytest.mark.parametrize(
    ("grace_s", "runs_s", "whole_s"),
    [(8, 5, 8), (30, 27, 30), (3, 0, 3), (4, 1, 4), (1, 0, 3), (0, 0, 3)],
)
def test_orders_have_all_of_it_but_what_the_end_takes(clock, grace_s, runs_s, whole_s):
    stop = StopClock(clock)
    assert (stop.begin(grace_s), stop.left_s) == (runs_s, whole_s)
    clock.now_s += runs_s
    assert stop.left_s == CLOSE_S
    assert stop.to_confirm_s == CLOSE_S - FAREWELL_S
    clock.now_s += CLOSE_S
    assert (stop.left_s, stop.to_confirm_s) == (0, 0)


def test_without_a_setting_it_ends_before_docker_kills():
    assert WorkerSettings().grace_s <= DOCKER_KILLS_S - 2


def test_a_later_call_only_shortens_it(clock):
    stop = StopClock(clock)
    assert not stop.begun
    stop.begin(8)
    clock.now_s += 2
    assert (stop.begin(30), stop.left_s) == (3, 6)
    assert (stop.begin(0), stop.left_s) == (0, CLOSE_S)
    clock.now_s += 60
    assert (stop.begin(8), stop.left_s) == (0, 0)
    assert stop.begun


def test_what_nobody_confirms_is_waited_for_no_longer_than_that(clean_environment, tmp_path):
    bench = Bench(tmp_path)
    assert bench.agent.run(job("[[end:0]]"))["status"] == "completed"
    assert bench.agent.drain(grace_s=0) <= CLOSE_S
    closing = threading.Thread(target=bench.agent.close)
    closing.start()
    wait_for(lambda: not closing.is_alive(), "it ends")
    assert len(bench.streams.said(WorkerStopped)) == 1
