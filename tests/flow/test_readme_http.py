"""What README shows of HTTP is run from README's own text."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"


def blocks(language):
    section = README.read_text().split("### Over HTTP\n")[1].split("\n### ")[0]
    return re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)


@pytest.fixture
def run(herd):
    herd.start_worker()
    _, key = herd.client.api_keys.create("default")
    _, url = herd.start_gateway(HERD_MODEL_ALIASES="smollm2-135m-instruct=stub")
    env = herd.env | {"HERD_URL": url, "HERD_API_KEY": key}

    def run(command, text):
        done = subprocess.run(
            command, input=text, env=env, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def test_curl(herd, run):
    (shown,) = blocks("bash")
    said = run(["bash", "-euo", "pipefail"], shown)
    assert "event: receipt" in said
    assert said.count('"state":"completed"') >= 2
    assert herd.client.orders()[0].charged == 60


def test_python(herd, run):
    programs = blocks("python")
    assert len(programs) == 2
    for program in programs:
        said = run([sys.executable, "-"], program)
        assert len(said.split()) > 20
        assert herd.client.orders()[0].charged == 60
    assert "charged 60" in said
