"""`herd demo` on the real model, as a newcomer runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.live

LIMIT_S = 400
HERD = [sys.executable, "-c", "from herder.cli import main; main()"]


def run_demo(tmp_path: Path, *args: str) -> subprocess.CompletedProcess[str]:
    # A herd that the person has must not be touched: these settings would lead to one.
    env = {
        **os.environ,
        "HERD_HOME": str(tmp_path / "mine"),
        "HERD_REDIS_URL": "redis://127.0.0.1:1/0",
        "HERD_ENGINE": "stub",
        "TMPDIR": str(tmp_path),
    }
    return subprocess.run(
        [*HERD, "demo", *args], env=env, capture_output=True, text=True, timeout=LIMIT_S
    )


def test_the_demo_serves_by_price_and_its_books_balance(model_path: Path, tmp_path: Path) -> None:
    ended = run_demo(tmp_path, "--json")
    assert ended.returncode == 0, ended.stderr
    assert list(tmp_path.iterdir()) == [], "it leaves nothing behind, and touches no other home"
    document: dict[str, Any] = json.loads(ended.stdout)
    assert document["ok"]
    assert document["trouble"] == []
    orders = document["orders"]
    receipts = [order["receipt"] for order in orders]

    assert [receipt["state"] for receipt in receipts] == ["completed"] * len(orders)
    assert {receipt["worker"] for receipt in receipts} == {"worker-1", "worker-2"}
    asked = {(order["prompt"], order["receipt"]["tokens"]) for order in orders}
    assert ("Write a story in 10 words or less.", 10) in asked
    assert ("What is the meaning of life?", 20) in asked
    assert all(order["text"].strip() for order in orders)

    # Those that waited were served by price: higher multipliers first.
    waited = sorted(orders[4:], key=lambda order: order["served"])
    assert len(waited) >= 8
    prices = [order["receipt"]["fee"] / order["receipt"]["needed"] for order in waited]
    assert prices == sorted(prices, reverse=True)

    for receipt in receipts:
        assert receipt["charged"] + receipt["returned"] == receipt["fee"]
        assert receipt["held"] == 0
    assert any(receipt["returned"] > 0 for receipt in receipts)

    audit = document["audit"]
    assert audit["clean"]
    assert audit["open_holds"] == 0
    assert audit["circulating"] + audit["outside"] == 0
    charged = sum(receipt["charged"] for receipt in receipts)
    before, after = (
        sum(balance["posted"] for balance in document["balances"][when])
        for when in ("before", "after")
    )
    assert document["revenue"] == charged == before - after


def test_the_demo_stops_at_ctrl_c_and_leaves_nothing(model_path: Path, tmp_path: Path) -> None:
    running = subprocess.Popen(
        [*HERD, "demo"],
        env={**os.environ, "TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert running.stdout is not None
    children: list[str] = []
    for line in running.stdout:
        if line.startswith("Ready"):
            (folder,) = tmp_path.iterdir()
            log = (folder / "logs" / "herd.log").read_text()
            children = [line.split()[-1] for line in log.splitlines() if "started" in line]
        if "1/16" in line:
            break
    assert len(children) == 4
    running.send_signal(signal.SIGINT)
    output, _ = running.communicate(timeout=LIMIT_S)
    assert running.returncode == 130
    assert output.splitlines()[-1] == "The demo was stopped; nothing of it is left."
    assert list(tmp_path.iterdir()) == []
    assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]


def test_the_demo_for_people_fits_a_terminal(model_path: Path, tmp_path: Path) -> None:
    ended = run_demo(tmp_path)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stderr == ""
    assert max(map(len, ended.stdout.splitlines())) <= 80
    for part in ("Receipts", "served by price", "Balances", "Audit", "herd up"):
        assert part in ended.stdout
