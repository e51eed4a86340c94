"""Settings reach the engine, and `herd worker tune` measures them, on the real model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.live

FACTS = """
import json
from dataclasses import asdict
from workers.celery import _load_model
model = _load_model()
print(json.dumps(asdict(model.facts)))
model.close()
"""


def environ(tmp_path: Path, model_path: Path, **settings: str) -> dict[str, str]:
    mine = {name: value for name, value in os.environ.items() if not name.startswith("HERD_")}
    return {
        **mine,
        "HERD_HOME": str(tmp_path),
        "HERD_REDIS_URL": "redis://127.0.0.1:1/0",
        "HERD_MODEL_PATH": str(model_path),
        **settings,
    }


def test_every_setting_of_the_engine_reaches_it(model_path: Path, tmp_path: Path) -> None:
    def facts(**settings: str) -> dict[str, object]:
        answer = subprocess.run(
            [sys.executable, "-c", FACTS],
            env=environ(tmp_path, model_path, **settings),
            capture_output=True,
            text=True,
            check=False,
        )
        assert answer.returncode == 0, answer.stderr
        found: dict[str, object] = json.loads(answer.stdout)
        return found

    unset = facts()
    expected = {"slots": 16, "cells": 32768, "prefixes": 0, "batch_tokens": 512, "step_tokens": 512}
    expected |= {"context": 2048, "can_share": True, "weights": "as in the file"}
    expected |= {"separate": True}
    assert expected.items() <= unset.items()
    changed = facts(
        HERD_KV_LAYOUT="unified",
        HERD_SLOTS="3",
        HERD_CELLS="1024",
        HERD_PREFIXES="2",
        HERD_BATCH_TOKENS="128",
        HERD_STEP_TOKENS="64",
        HERD_THREADS="1",
        HERD_KV_TYPE="f32",
        HERD_REQUANTIZE="q8_0",
    )
    expected = {"slots": 3, "cells": 1024, "prefixes": 2, "batch_tokens": 128, "step_tokens": 64}
    expected |= {"context": 1024, "threads": 1, "weights": "q8_0"}
    assert expected.items() <= changed.items()
    separate = facts(HERD_SHARE_PREFIXES="no", HERD_SLOTS="4", HERD_FLASH_ATTENTION="off")
    expected = {"slots": 4, "cells": 32768, "context": 8192, "prefixes": 0, "can_share": False}
    assert expected.items() <= separate.items()
    most = facts(
        HERD_KV_LAYOUT="unified",
        HERD_SLOTS="255",
        HERD_PREFIXES="255",
        HERD_CONTEXT="512",
        HERD_CELLS="256",
    )
    expected = {"slots": 255, "cells": 512, "context": 512, "prefixes": 1}
    assert expected.items() <= most.items(), "an order of the context that was asked for fits"


def tune(model_path: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "workers.tuning.tune", "--model-path", str(model_path), *words]


def test_tune_measures_and_recommends(model_path: Path, tmp_path: Path) -> None:
    answer = subprocess.run(
        tune(model_path, "--seconds", "0.1", "--only", "cache,weights", "--json"),
        env=environ(tmp_path, model_path, HERD_CELLS="2048", HERD_SLOTS="3"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    document = json.loads(answer.stdout)
    measured = [trial for trial in document["trials"] if not trial["error"]]
    assert len(measured) == 1 + 3 + 2
    assert {trial["changes"].get("requantize") for trial in measured} == {None, "q8_0", "q4_0"}
    assert all(trial["tokens_per_s"] >= 0 for trial in measured)
    assert set(document["environment"]) <= {"HERD_KV_LAYOUT", "HERD_FLASH_ATTENTION"}
    said = answer.stderr.splitlines()
    assert "about 1 min" in said[0], "the time is said beforehand"
    assert len(said) == 3 + len(document["trials"]) + 1


def test_tune_shows_what_it_has_at_ctrl_c(model_path: Path, tmp_path: Path) -> None:
    running = subprocess.Popen(
        tune(model_path, "--seconds", "0.1"),
        env=environ(tmp_path, model_path, HERD_CELLS="2048", HERD_SLOTS="3"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert running.stderr is not None
    for line in running.stderr:
        if "2/1" in line:
            running.send_signal(signal.SIGINT)
            break
    output, rest = running.communicate(timeout=120)
    assert running.returncode == 130
    assert "Traceback" not in rest
    assert "HERD_" in output or "Nothing was clearly better" in output


def test_tune_says_in_one_line_what_it_cannot_use(tmp_path: Path) -> None:
    answer = subprocess.run(
        tune(tmp_path / "missing.gguf"),
        env=environ(tmp_path, tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 2
    assert "No such file" in answer.stderr.splitlines()[-1]
    assert "Traceback" not in answer.stderr
