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
        found = flower.table()
        done = [row for row in found if row["state"] == "SUCCESS"]
        return found if len(done) >= len(expected) else None

    shown = {row["uuid"].partition(".")[0]: row for row in wait_for(rows, "all tasks are shown")}
    assert set(shown) == expected
    for order in orders:
        row, receipt = shown[order.id], order.receipt()
        assert row["name"] == "workers.infer"
        assert f"order={order.id}" in row["kwargs"]
        multiplier = decimal_text(Fraction(receipt.fee, receipt.needed), 3)
        assert f"multiplier={multiplier} " in row["kwargs"]
        assert f"tokens={receipt.tokens}" in row["kwargs"]
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
