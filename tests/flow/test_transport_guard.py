"""What a stranger can put into the queues: nothing of it runs, and nobody dies of it."""

from __future__ import annotations

import base64
import json
import pickle

from support.wait import wait_for

from herder import home
from workers.wire import (
    HERDER_QUEUE,
    INFER_TASK,
    INFERENCE_QUEUE,
    NUDGE_TASK,
    OUTCOME_TASK,
    Held,
    Job,
    Nudge,
    Outcome,
    Outcomes,
    PrivateKey,
    attempt_id,
    seal,
)

STRANGER = PrivateKey.generate()
OFF = 9
"""The Redis list of a queue's lowest level; the queues here are read best level first."""


def job(**fields):
    given = {"order": "forged", "attempt": 1, "nonce": "n", "rank": 0, "model": "stub"}
    return Job(**{**given, "prompt": "Hi", "tokens": 5, "run_limit_s": 60, **fields})


def sealed(body=None, key=STRANGER, audience=INFERENCE_QUEUE):
    return seal(body or job(), key, sender="herder", audience=audience)


def message(args, *, task=INFER_TASK, task_id="forged.1", embed=None, body=None, **over):
    """A Celery message as kombu keeps it in a Redis list."""
    raw = json.dumps([args, {}, embed or {}]).encode() if body is None else body
    headers = {"lang": "py", "task": task, "id": task_id, "root_id": task_id, "retries": 0}
    properties = {
        "correlation_id": task_id,
        "delivery_mode": 2,
        "delivery_info": {"exchange": "", "routing_key": INFERENCE_QUEUE},
        "priority": OFF,
        "body_encoding": "base64",
        "delivery_tag": f"tag-{task_id}",
    }
    whole = {
        "body": base64.b64encode(raw).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": headers,
        "properties": properties,
    }
    for name, value in over.items():
        if name == "headers" and isinstance(value, dict):
            headers.update(value)
        elif name == "properties":
            properties.update(value)
        else:
            whole[name.replace("_", "-")] = value
    return json.dumps(whole)


class Exploit:
    """Runs a command where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def hostile(trap):
    """Messages that must not run: their name, and what stands in the list."""
    token = sealed()
    signature = {"task": OUTCOME_TASK, "args": [token], "kwargs": {}, "options": {}}
    return {
        "no JSON": message([], body=b"{never closed"),
        "null": message([], body=b"null"),
        "a number": message([], body=b"5"),
        "no arguments": message([]),
        "two arguments": message([token, token]),
        "an argument that is no text": message([{"token": token}]),
        "not UTF-8": message([], body=b"\xff\xfe\xfa"),
        "nested a lot": message([], body=b"[" * 50_000),
        "a list where headers should be": message([token], headers=[1, 2]),
        "null where headers should be": message([token], headers=None),
        "no task": message([token], headers={"task": None}),
        "a task that is a list": message([token], headers={"task": [INFER_TASK]}),
        "no id": message([token], headers={"id": None}),
        "an unknown task": message([token], task="os.system"),
        "a task of Celery's own": message([token], task="celery.backend_cleanup"),
        "a pickle": message(
            [], body=pickle.dumps(Exploit(trap)), content_type="application/x-python-serialize"
        ),
        "a pickle that says JSON": message([], body=pickle.dumps(Exploit(trap))),
        "plain text": message([], body=token.encode(), content_type="text/plain"),
        "yaml": message([], body=b"!!python/object", content_type="application/x-yaml"),
        "an unknown encoding": message([token], content_encoding="utf-77"),
        "compressed nonsense": message([token], headers={"compression": "application/x-gzip"}),
        "unsigned": message(["not a token"]),
        "signed by a stranger": message([token]),
        "callbacks": message([token], embed={"callbacks": [signature], "errbacks": [signature]}),
        "a chain": message([token], embed={"chain": [signature], "chord": signature}),
        "far in the future": message([token], headers={"eta": "2999-01-01T00:00:00+00:00"}),
        "expired": message([token], headers={"expires": "1999-01-01T00:00:00+00:00"}),
        "an eta that is none": message([token], headers={"eta": "soon", "expires": [], "group": 5}),
        "a timelimit of words": message([token], headers={"timelimit": "none"}),
        "retries without end": message([token], headers={"retries": "many", "stamps": {"a": 1}}),
        "an answer to somewhere": message([token], properties={"reply_to": HERDER_QUEUE}),
        **{f"the bytes {raw}": raw for raw in ("not json", "null", "5", "[]", "{}", '{"body": 5}')},
        "an old protocol": message([], body=json.dumps({"task": INFER_TASK, "id": "1"}).encode()),
    }


def push(herd, queue, *messages):
    herd.redis.client().lpush(queue, *messages)


def drained(herd, queue):
    """Wait until the queue was read to its end."""
    client = herd.redis.client()
    levels = [queue, *(f"{queue}\x06\x16{level}" for level in range(10))]
    wait_for(lambda: not any(client.llen(level) for level in levels), f"{queue} is read")


def test_a_worker_runs_nothing_of_what_a_stranger_sends_and_serves_the_next_order(herd, tmp_path):
    worker = herd.start_worker()
    trap = tmp_path / "trap"
    attacks = hostile(trap)
    for name, attack in attacks.items():
        push(herd, INFERENCE_QUEUE, attack)
        drained(herd, INFERENCE_QUEUE)
        assert worker.alive, f"{name}:\n{worker.log}"
    order = herd.submit()
    assert order.result(timeout=60).receipt.state == "completed"
    assert not trap.exists()
    assert worker.alive
    assert worker.log.count("message_refused") == len(attacks)
    assert "Traceback" not in worker.log


def test_a_herder_believes_nothing_of_what_a_stranger_sends(make_herd, tmp_path):
    herd = make_herd()
    herder = herd.start_herder()
    worker = herd.start_worker()
    trap = tmp_path / "trap"
    forged = Outcomes(outcomes=(Outcome(order="forged", attempt=1, nonce="n", result="completed"),))
    outcome = sealed(forged, audience=HERDER_QUEUE)
    nudge = sealed(Nudge(model="stub"), audience=HERDER_QUEUE)
    attacks = {
        **hostile(trap),
        "a stranger's outcome": message([outcome], task=OUTCOME_TASK),
        "a stranger's nudge": message([nudge], task=NUDGE_TASK, task_id="nudge"),
        "a job for workers": message([herders(herd, job())], task=OUTCOME_TASK),
    }
    for name, attack in attacks.items():
        push(herd, HERDER_QUEUE, attack)
        drained(herd, HERDER_QUEUE)
        assert herder.alive, f"{name}:\n{herder.log}"
    assert herd.submit().result(timeout=60).receipt.worker == worker.name
    assert not trap.exists()
    assert herder.log.count("message_refused") == len(attacks)
    assert "Traceback" not in herder.log


def herders(herd, body, audience=INFERENCE_QUEUE):
    key = home.load_herder_key(herd.settings)
    return seal(body, key, sender="herder", audience=audience)


def test_a_real_message_in_another_wrapping_runs_as_it_was_signed_and_once(herd):
    """Replayed, re-addressed, or with headers and callbacks of somebody's own."""
    worker = herd.start_worker(HERD_SLOTS="1")
    held = Held(order="o-1", attempt=1, nonce="n-1")
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
    push(herd, INFERENCE_QUEUE, wrong_id)
    drained(herd, INFERENCE_QUEUE)
    assert worker.log.count("message_refused") == 1
    for _ in range(4):
        push(herd, INFERENCE_QUEUE, dressed)
    drained(herd, INFERENCE_QUEUE)
    assert herd.submit().result(timeout=60).receipt.state == "completed"
    # The herder never gave that order out: the one attempt that ran was called off as void.
    wait_for(lambda: "order=o-1" in herd.logs, "the herder hears of an order that is none")
    assert worker.log.count("message_refused") == 1
    assert worker.alive
