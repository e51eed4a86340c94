"""The original's own traces, played again: one worker with one slot, its fees and its order."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from herder.errors import FeeTooLow

TRACES = json.loads((Path(__file__).parents[2] / "cases" / "seed_order.json").read_text())["traces"]


@pytest.mark.parametrize("trace", TRACES, ids=lambda trace: f"{len(trace)} events")
def test_refusals_order_of_service_and_last_multiplier_equal_the_originals(make_house, trace):
    house = make_house(policy={"auto_half_life_s": 0})
    house.fund(10**6)
    worker = house.worker(slots=1)
    numbers: dict[str, int] = {}
    running = None

    for step in trace:
        house.now_us += 1_000
        if step["do"] == "pay":
            call = house.call(step["prompt"], step["tokens"], fee=step["fee"])
            try:
                numbers[house.intake.submit(call).id] = step["order"]
                refused = False
            except FeeTooLow:
                refused = True
            assert refused == step["refused"], step
        elif running is not None:
            settled = worker.finish(running)
            assert settled.ended == [running.order]
            running = None

        jobs = house.dispatch()
        assert [numbers[job.order] for job in jobs] == (
            [] if step["released"] is None else [step["released"]]
        ), step
        if jobs:
            (running,) = jobs
            worker.claim(running)
        assert float(house.model().last_multiplier) == pytest.approx(
            step["last_multiplier"], rel=1e-9, abs=1e-9
        ), step


def test_the_traces_hold_what_they_are_here_to_show():
    steps = [step for trace in TRACES for step in trace]
    assert len(TRACES) == 5
    assert any(step.get("refused") for step in steps)
    assert any(step["do"] == "pay" and step["tokens"] == 0 for step in steps)
