"""Machines whose clocks are minutes wrong: orders are run all the same, and somebody is told."""

from __future__ import annotations

import json

import pytest

from tests.support.skewed import AHEAD
from tests.support.typed import answered
from tests.support.wait import wait_for


def complete(herd, count=4):
    """Orders, all of which a worker runs at its first attempt."""
    orders = [herd.submit(f"What time is it? {number}", 3) for number in range(count)]
    for order in orders:
        assert order.result(timeout=120).receipt.state == "completed"


def known_ahead_s(herd, worker):
    """What `herd worker list --json` says of a worker's clock."""
    shown = json.loads(answered(herd, "worker", "list", "--json").stdout)
    (ahead_s,) = [one["clock_ahead_s"] for one in shown["workers"] if one["name"] == worker.name]
    return ahead_s


@pytest.mark.parametrize("ahead_s", [120, -120])
def test_a_worker_whose_clock_is_wrong_runs_orders_and_is_named(herd, ahead_s):
    worker = herd.start_worker(**{AHEAD: str(ahead_s)})
    complete(herd)
    assert "expired" not in worker.log
    worker.says("clock_differs")
    (herder,) = [child for child in herd.children if child.name.startswith("herder")]
    herder.says("worker_clock_differs")
    assert wait_for(lambda: known_ahead_s(herd, worker), "it is known") == pytest.approx(
        ahead_s, abs=30
    )
    listed = answered(herd, "worker", "list")
    assert listed.returncode == 0
    which = "ahead of" if ahead_s > 0 else "behind"
    assert f"The clock of {worker.name} is " in listed.stderr
    assert f"s {which} the herder's" in listed.stderr


def test_a_herder_whose_clock_is_behind_has_its_orders_run(make_herd):
    herd = make_herd()
    herd.start_herder(**{AHEAD: "-120"})
    worker = herd.start_worker()
    complete(herd)
    assert "expired" not in worker.log
    worker.says("clock_differs")
    assert wait_for(lambda: known_ahead_s(herd, worker), "it is known") == pytest.approx(
        120, abs=30
    )


def test_herders_whose_clocks_differ_have_their_orders_run(make_herd):
    herd = make_herd()
    herd.start_herder(**{AHEAD: "-300"})
    herd.start_herder()
    for _ in range(2):
        herd.start_worker()
    complete(herd, 12)


def test_a_worker_whose_clock_is_right_is_not_named(herd):
    worker = herd.start_worker()
    complete(herd)
    assert known_ahead_s(herd, worker) == 0
    assert "clock" not in answered(herd, "worker", "list").stderr
