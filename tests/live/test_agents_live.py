"""Both example programs end to end on the real model: `herd demo agents`, as a newcomer runs it."""

from __future__ import annotations

import json
import os
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
        "HERD_ROOM_PORT": "1",
        "TMPDIR": str(tmp_path),
    }
    return subprocess.run(
        [*HERD, "demo", "agents", *args], env=env, capture_output=True, text=True, timeout=LIMIT_S
    )


def test_programs_talk_grade_and_pay_and_the_books_balance(
    model_path: Path, tmp_path: Path
) -> None:
    ended = run_demo(tmp_path, "--seconds", "30", "--json")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert list(tmp_path.iterdir()) == [], "it leaves nothing behind, and touches no other home"
    document: dict[str, Any] = json.loads(ended.stdout)
    assert document["ok"]
    assert document["trouble"] == []

    said = document["said"]
    names = {one["name"] for one in said}
    assert "ada" in names
    assert names & {"Lenny", "Mabel"}
    assert [one["id"] for one in said] == sorted({one["id"] for one in said})
    for one in said:
        if one["name"] != "ada":
            assert "STOP" not in one["text"]
            assert "\n" not in one["text"]

    counts = document["counts"]
    decided = sum(counts[name] for name in ("buys", "skips", "errors", "refused"))
    assert counts["requests"] >= 3
    assert decided <= counts["requests"] <= decided + 2, "what was asked last may not be answered"
    assert counts["refused"] == 0

    before, after = (
        {one["account"]: one["posted"] for one in document[when]} for when in ("before", "after")
    )
    bought = after["exchange"]
    assert bought in (counts["buys"] * document["price"], (counts["buys"] + 1) * document["price"])
    assert before["bots"] - after["bots"] == document["charged"]["bots"] > 0
    assert before["agent"] - after["agent"] == document["charged"]["agent"] + bought
    audit = document["audit"]
    assert (audit["drifts"], audit["open_holds"]) == ([], 0)
    assert audit["circulating"] + audit["outside"] == 0


def test_for_people_it_fits_a_terminal(model_path: Path, tmp_path: Path) -> None:
    ended = run_demo(tmp_path, "--seconds", "20")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stderr == ""
    assert max(map(len, ended.stdout.splitlines())) <= 80
    for part in ("In the room", "ada: Good morning", "Said, bought and paid", "The books balance"):
        assert part in ended.stdout
