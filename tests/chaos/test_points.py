"""Death at each commit and each publish, on both sides of each, while others go on."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests.chaos.clients import Seen, run_caller
from tests.chaos.servers import WAYS

SIDES = ("before", "after")


def both(*steps, how="KILL"):
    return [f"{step}:{side}:{how}" for step in steps for side in SIDES]


DISPATCH = [*both("_take", "publish_job"), "_take:after:TERM", "publish_job:before:TERM"]
SETTLE = [*both("settle", "control", "hear"), "settle:before:TERM", "lapse:before:KILL"]
WORKER = [*both("say_claim", "publish_outcome"), "say_claim:after:TERM"]
CALLS = both("submit", "publish_nudge", "rebid", "cancel")


@pytest.mark.parametrize("servers", WAYS, indirect=True)
def test_nothing_is_lost_wherever_a_process_dies(servers, make_world, judged, tmp_path):
    world = make_world(servers)
    world.herder("herder1", DISPATCH)
    world.herder("herder2", [*SETTLE, "lapse:after:KILL"])
    world.worker("worker1", WORKER)
    victim = world.worker("worker2")
    for _ in range(2):
        world.client()
    callers = call_and_die(world, tmp_path)
    world.all_points_reached(victim)
    world.clients[0].seen |= callers
    ends = judged(world)
    assert ends["completed"] > 20
    assert [one.deaths for one in world.kept[:3]] == [
        len(DISPATCH),
        len(SETTLE) + 1,
        len(WORKER),
    ]


def call_and_die(world, folder):
    """A client's program that dies at each of its points, and is run again each time."""
    calls, answers = [], {}
    seen = {}
    for number, point in enumerate([*CALLS, ""]):
        mark = Path(folder) / f"caller{number}"
        for again in range(5):
            calls += new_calls(f"{number}-{again}")
            code, said = run_caller(world.herd, "\n".join(calls), point, mark)
            for line in said.splitlines():
                answer = json.loads(line)
                assert "error" not in answer, answer
                if "order" in answer:
                    # Whatever was repeated, one key is one order.
                    assert answers.setdefault(answer["key"], answer["order"]) == answer["order"]
            if code == -signal.SIGKILL or not point:
                break
        else:
            raise AssertionError(f"{point} was never reached")
    for order_id in answers.values():
        receipt = world.herd.client.receipt(order_id)
        seen[order_id] = Seen(receipt, receipt.submitted_us)
    return seen


def new_calls(tag):
    """An order that is bid for again, and one that is cancelled; their keys tell them apart."""
    call = {"prompt": "Wait for the others", "tokens": 10, "fee": 15}
    made = [
        {"do": "submit", "key": f"bid-{tag}", "call": call},
        {"do": "submit", "key": f"cancel-{tag}", "call": call},
        {"do": "rebid", "key": f"bid-{tag}", "fee": 25},
        {"do": "cancel", "key": f"cancel-{tag}"},
    ]
    return [json.dumps(one) for one in made]
