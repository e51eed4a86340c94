"""What a stranger can put into the queues: nothing of it runs, and nobody dies of it."""

from __future__ import annotations

import pytest

from herder.herd.herder_key import load_herder_key
from tests.flow.forging import Post, hostile, hostile_bytes, job, message, sealed
from tests.support import telling
from tests.support.wait import wait_for
from workers.wire import (
    HERDER_QUEUE,
    INFER_TASK,
    INFERENCE_QUEUE,
    NUDGE_TASK,
    OUTCOME_TASK,
    AttemptRef,
    Nudge,
    Outcome,
    Outcomes,
    attempt_id,
    seal,
)

pytestmark = pytest.mark.both_brokers

TELL_ALL = {telling.ALL: "yes"}
"""Refusals are counted by their lines, of which else one in ten seconds is written."""


def refuses_all(child, post, queue, attacks):
    """It refuses each of them, once, and lives."""
    for number, (name, attack) in enumerate(attacks.items(), 1):
        post.push(queue, attack)
        wait_for(
            lambda number=number: child.log.count("message_refused") >= number or not child.alive,
            f"{child.name} refuses {name}",
        )
        assert child.alive, f"{name}:\n{child.log}"


def took_each_once(child, post, queue, attacks):
    """Nothing came back: what was refused is gone, on RabbitMQ from its unacked messages too."""
    assert child.log.count("message_refused") == len(attacks)
    assert "Traceback" not in child.log
    assert child.stop() == 0
    assert post.waiting(queue) == 0


def test_a_worker_runs_nothing_of_what_a_stranger_sends_and_serves_the_next_order(
    herd, broker, tmp_path
):
    worker = herd.start_worker(**TELL_ALL)
    trap = tmp_path / "trap"
    post = Post(herd, broker)
    attacks = {**post.fits(hostile(trap)), **hostile_bytes(post.broker)}
    refuses_all(worker, post, INFERENCE_QUEUE, attacks)
    assert herd.submit().result(timeout=60).receipt.state == "completed"
    assert not trap.exists()
    took_each_once(worker, post, INFERENCE_QUEUE, attacks)


def test_a_herder_believes_nothing_of_what_a_stranger_sends(make_herd, broker, tmp_path):
    herd = make_herd()
    herder = herd.start_herder(**TELL_ALL)
    worker = herd.start_worker(**TELL_ALL)
    trap = tmp_path / "trap"
    post = Post(herd, broker)
    forged = Outcomes(outcomes=(Outcome(order="forged", attempt=1, nonce="n", result="completed"),))
    outcome = sealed(forged, audience=HERDER_QUEUE)
    nudge = sealed(Nudge(model="stub"), audience=HERDER_QUEUE)
    own = {
        "a stranger's outcome": message([outcome], task=OUTCOME_TASK),
        "a stranger's nudge": message([nudge], task=NUDGE_TASK, task_id="nudge"),
        "a job for workers": message([herders(herd, job())], task=OUTCOME_TASK),
    }
    attacks = {**post.fits({**hostile(trap), **own}), **hostile_bytes(post.broker)}
    refuses_all(herder, post, HERDER_QUEUE, attacks)
    assert herd.submit().result(timeout=60).receipt.worker == worker.name
    assert not trap.exists()
    assert worker.stop() == 0
    took_each_once(herder, post, HERDER_QUEUE, attacks)


def herders(herd, body, audience=INFERENCE_QUEUE):
    key = load_herder_key(herd.settings)
    return seal(body, key, sender="herder", audience=audience)


def test_a_real_message_in_another_wrapping_runs_as_it_was_signed_and_once(herd, broker):
    """Replayed, re-addressed, or with headers and callbacks of somebody's own."""
    worker = herd.start_worker(HERD_SLOTS="1", **TELL_ALL)
    post = Post(herd, broker)
    held = AttemptRef(order="o-1", attempt=1, nonce="n-1")
    token = herders(herd, job(order="o-1", nonce="n-1"))
    signature = {"task": INFER_TASK, "args": ["x"], "kwargs": {}, "options": {}}
    wrong_id = message([token], task_id="o-2.1")
    dressed = message(
        [token],
        task_id=attempt_id(held),
        embed={"callbacks": [signature], "chain": [signature]},
        headers={"eta": "2999-01-01T00:00:00+00:00", "retries": 7, "timelimit": [0.001, 0.001]},
        properties={"reply_to": HERDER_QUEUE},
    )
    made = post.fits({"wrong": wrong_id, "dressed": dressed})
    post.push(INFERENCE_QUEUE, made["wrong"])
    wait_for(lambda: worker.log.count("message_refused") == 1, "the wrong id is refused")
    for _ in range(4):
        post.push(INFERENCE_QUEUE, made["dressed"])
    wait_for(lambda: post.waiting(INFERENCE_QUEUE) == 0, "all are taken")
    assert herd.submit().result(timeout=60).receipt.state == "completed"
    # The herder never gave that order out: the one attempt that ran was called off as void.
    wait_for(lambda: "order=o-1" in herd.logs, "the herder hears of an order that is none")
    assert worker.log.count("message_refused") == 1
    assert worker.alive
