"""Flower, started as the documentation says: it shows every task, and no prompt or text."""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.request
from fractions import Fraction
from pathlib import Path
from urllib.parse import urlencode

import pytest

from herder.domain.receipts import decimal_text
from tests.support.redis_server import free_port
from tests.support.wait import wait_for

CONFIG = Path(__file__).parents[2] / "deploy" / "flowerconfig.py"
PROMPT, ANSWER = "Quagmire", "Xylophone"
LOGIN = "ada:engine"


class Flower:
    """A running Flower, and what it answers."""

    def __init__(self, herd, **env):
        self.port = free_port()
        prefix = env.get("HERD_FLOWER_URL_PREFIX", "")
        self.root = f"http://127.0.0.1:{self.port}" + (f"/{prefix}" if prefix else "")
        arguments = ["-A", "workers", "flower", f"--conf={CONFIG}", f"--port={self.port}"]
        self.child = herd.start("flower", arguments, **env)
        wait_for(self.answers, "Flower answers")

    def answers(self):
        assert self.child.alive, self.child.log
        try:
            return self.get("/healthcheck", login="")
        except (urllib.error.URLError, ConnectionError):
            return False

    def get(self, path, login=LOGIN, data=None):
        request = urllib.request.Request(f"{self.root}{path}", data=data)
        if login:
            credentials = base64.b64encode(login.encode()).decode()
            request.add_header("Authorization", f"Basic {credentials}")
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.read().decode()

    def tasks(self):
        """Every task, by its id, as a program is told of it."""
        return json.loads(self.get("/api/tasks?limit=100"))

    def table(self):
        """The rows of the tasks page, which its script asks for."""
        asked = urlencode(
            {
                "draw": 1,
                "start": 0,
                "length": 100,
                "search[value]": "",
                "order[0][column]": 0,
                "order[0][dir]": "asc",
                "columns[0][data]": "name",
            }
        )
        return json.loads(self.get("/tasks/datatable", data=asked.encode()))["data"]


def test_it_shows_each_worker_and_each_orders_task_and_neither_prompt_nor_text(herd):
    flower = Flower(herd, HERD_FLOWER_BASIC_AUTH=LOGIN)
    workers = [herd.start_worker(HERD_STUB_STEP_MS="10") for _ in range(2)]
    orders = [
        herd.submit(f"{PROMPT} [[say:{ANSWER}]]", 10 + number, fee=200, reference=PROMPT)
        for number in range(6)
    ]
    failing = herd.submit(f"{PROMPT} [[fail]]", 7)
    for order in orders:
        assert ANSWER in order.result(timeout=60).text
    wait_for(lambda: failing.status() == "failed", "the failing one fails")

    expected = {order.id for order in [*orders, failing]}

    def rows():
        found = [row for row in flower.table() if row["name"] == "workers.infer"]
        done = [row for row in found if row["state"] in ("SUCCESS", "FAILURE")]
        return found if len(done) >= len(expected) else None

    shown = {row["uuid"].partition(".")[0]: row for row in wait_for(rows, "all tasks are shown")}
    assert set(shown) == expected
    for order in orders:
        row, receipt = shown[order.id], order.receipt()
        assert row["name"] == "workers.infer"
        multiplier = decimal_text(Fraction(receipt.fee, receipt.needed), 3)
        # Its beginning is what a narrow column shows, and the id stands beside it.
        told = f"multiplier={multiplier} tokens={receipt.tokens} order={order.id}"
        assert row["kwargs"] == told
        assert row["state"] == "SUCCESS"
        assert "completed" in row["result"]
        assert str(receipt.generated) in row["result"]
    names = {worker.name for worker in workers}
    assert {row["worker"].partition("@")[0] for row in shown.values()} <= names

    page = flower.get("/workers")
    for name in names:
        assert f"{name}@herd" in page
    seen = [page, flower.get("/"), flower.get("/tasks"), json.dumps(list(shown.values()))]
    seen += [flower.get("/api/tasks"), flower.get("/api/workers?status=1"), flower.get("/metrics")]
    seen += [flower.get(f"/task/{row['uuid']}") for row in shown.values()]
    seen += [flower.get(f"/api/task/info/{row['uuid']}") for row in shown.values()]
    everything = "\n".join([*seen, herd.logs])
    assert orders[0].id in everything
    assert PROMPT not in everything
    assert ANSWER not in everything

    with pytest.raises(urllib.error.HTTPError, match="401"):
        flower.get("/tasks", login="")
    with pytest.raises(urllib.error.HTTPError, match="401"):
        flower.get("/api/tasks", login="ada:wrong")
    with pytest.raises(urllib.error.HTTPError, match=r"40[35]"):
        flower.get(f"/api/worker/shutdown/{workers[0].name}@herd", data=b"")
    assert all(worker.alive for worker in workers)


@pytest.mark.both_brokers
def test_how_an_attempt_ended_is_shown_by_a_state_and_a_code(herd):
    flower = Flower(herd, HERD_FLOWER_BASIC_AUTH=LOGIN)
    worker = herd.start_worker(HERD_SLOTS="4")
    failed = herd.submit(f"{PROMPT} [[fail]]", 7)
    tried_again = herd.submit(f"{PROMPT} [[trouble]]", 7)
    for order in (failed, tried_again):
        wait_for(lambda order=order: order.status() == "failed", "it fails")
    called_off = herd.submit(f"{PROMPT} [[hang:3]]", 100)
    overdue = herd.submit(f"{PROMPT} [[hang:3]]", 100, run_limit_s=2)
    herd.running(called_off, worker)
    called_off.cancel()
    wait_for(lambda: overdue.status() == "expired", "its time is up")
    answered = herd.submit(f"{PROMPT} [[say:{ANSWER}]]", 7)
    answered.result(timeout=60)
    attempts = tried_again.receipt().attempts
    expected = {
        f"{failed.id}.1": ("FAILURE", "stub_failure"),
        f"{called_off.id}.1": ("REVOKED", None),
        f"{overdue.id}.1": ("REVOKED", None),
        f"{answered.id}.1": ("SUCCESS", None),
        **{f"{tried_again.id}.{n + 1}": ("FAILURE", "stub_trouble") for n in range(attempts)},
    }

    def shown():
        tasks = flower.tasks()
        ended = {uuid: (task["state"], task["exception"]) for uuid, task in tasks.items()}
        return tasks if expected.items() <= ended.items() else None

    tasks = wait_for(shown, "each attempt is shown as it ended")
    assert "cancelled" in tasks[f"{called_off.id}.1"]["result"]
    assert "deadline" in tasks[f"{overdue.id}.1"]["result"]
    assert not [task for task in tasks.values() if task["traceback"]]
    assert {task["state"] for task in tasks.values()} == {"SUCCESS", "FAILURE", "REVOKED"}
    everything = json.dumps(tasks) + flower.get("/metrics") + herd.logs
    everything += "".join(flower.get(f"/task/{uuid}") for uuid in tasks)
    assert PROMPT not in everything
    assert ANSWER not in everything


@pytest.mark.both_brokers
def test_what_a_killed_worker_ran_is_shown_as_lapsed(herd):
    flower = Flower(herd, HERD_FLOWER_BASIC_AUTH=LOGIN)
    dies = herd.start_worker()
    order = herd.submit(f"{PROMPT} [[hang:3]]", 100)
    herd.running(order, dies)
    uuid = f"{order.id}.1"
    wait_for(lambda: flower.tasks().get(uuid, {}).get("state") == "STARTED", "it runs")
    dies.kill()
    wait_for(lambda: flower.tasks()[uuid]["state"] == "FAILURE", "it is shown as lapsed")
    shown = flower.tasks()[uuid]
    assert shown["exception"] == "lapsed"
    assert shown["name"] == "workers.infer"
    assert shown["worker"] == f"{dies.name}@herd"
    assert shown["kwargs"].startswith("multiplier=")
    assert not shown["traceback"]
    # Another attempt is another task, and so is one that was still sent to the dead worker.
    other = herd.start_worker()
    herd.running(order, other)
    order.cancel()

    def states():
        tasks = flower.tasks().items()
        return [task["state"] for each, task in tasks if each.startswith(order.id)]

    def each_is_shown():
        *lapsed, last = sorted(states())
        return last == "REVOKED" and set(lapsed) == {"FAILURE"}

    wait_for(each_is_shown, "the last one is called off")


def test_without_events_nobody_is_told_and_all_goes_on(make_herd):
    herd = make_herd(HERD_EVENTS="false")
    herd.start_herder()
    flower = Flower(herd, HERD_FLOWER_BASIC_AUTH=LOGIN)
    dies = herd.start_worker()
    failed = herd.submit("[[fail]]", 7)
    wait_for(lambda: failed.status() == "failed", "it fails")
    order = herd.submit("[[hang:3]]", 100)
    herd.running(order, dies)
    dies.kill()
    wait_for(lambda: order.status() == "queued", "it lapses")
    other = herd.start_worker()
    herd.running(order, other)
    order.cancel()
    wait_for(lambda: order.status() == "cancelled", "it is called off")
    assert flower.tasks() == {}


def test_it_needs_no_key_and_no_model_and_stays_on_this_machine(make_herd):
    herd = make_herd()
    flower = Flower(
        herd,
        HERD_WORKER_KEY="/nowhere",
        HERD_ENGINE="llama",
        HERD_MODEL_PATH="/nowhere",
        HERD_FLOWER_URL_PREFIX="flower",
    )
    assert "/flower/" in flower.get("/workers", login="")
    with pytest.raises(urllib.error.HTTPError, match="401"):
        flower.get("/api/tasks", login="")
    listening = [
        line.split()[1]
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]
        if line.split()[1].endswith(f":{flower.port:04X}") and line.split()[3] == "0A"
    ]
    assert listening == [f"0100007F:{flower.port:04X}"]
