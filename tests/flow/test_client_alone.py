"""`pip install llama-herder`, with no extra, in an environment of its own: it buys."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
ABSENT = [
    *("celery", "kombu", "llama_cpp", "numpy", "sqlalchemy", "alembic", "fastapi", "starlette"),
    *("uvicorn", "redis", "structlog", "pydantic_settings", "psycopg", "standardwebhooks"),
]

PROGRAM = """
from herder import submit
order = submit("What is it?", 12, fee=50)
text = "".join(order.stream())
result = order.result(timeout=60)
assert result.text == text, (result.text, text)
print(order.id, result.receipt.charged)
"""


def install(folder: Path) -> Path:
    """A new environment with the project and no extra; its folder of programs."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    programs = folder / "bin"
    done = subprocess.run(
        [str(programs / "python"), "-m", "pip", "install", "--quiet", str(ROOT)],
        # For what builds it, too.
        env={**os.environ, "PIP_CONSTRAINT": str(ROOT / "constraints.txt")},
        capture_output=True,
        text=True,
        timeout=500,
    )
    if done.returncode != 0:
        reason = f"pip cannot install the client here: {done.stderr.strip()[-500:]}"
        if os.environ.get("CI") or "No matching distribution" not in done.stderr:
            pytest.fail(reason)
        pytest.skip(reason)
    return programs


def test_the_client_alone_buys_from_a_gateway(herd: Any, tmp_path: Path):
    programs = install(tmp_path / "venv")
    bare = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("HERD_", "PYTHON"))
    } | {"HERD_HOME": str(tmp_path / "nowhere")}

    def run(*command: str, stdin: str = "", **env: str) -> subprocess.CompletedProcess[str]:
        program, *words = command
        return subprocess.run(
            [str(programs / program), *words],
            input=stdin,
            capture_output=True,
            text=True,
            env={**bare, **env},
            cwd=tmp_path,
            timeout=120,
        )

    look = (
        "import herder, importlib.util as u; print(herder.__file__); "
        f"print([name for name in {ABSENT!r} if u.find_spec(name)])"
    )
    where, present = run("python", "-c", look).stdout.splitlines()
    assert Path(where).is_relative_to(tmp_path / "venv")
    assert present == "[]"

    # Without a herder elsewhere there is nothing that it could do here.
    for words, extras in (("info", "herder"), ("up", "herder,worker,demo")):
        refused = run("herd", words)
        assert (refused.returncode, refused.stdout, refused.stderr.count("\n")) == (2, "", 1)
        assert f"pip install 'llama-herder[{extras}]'" in refused.stderr

    herd.start_worker(HERD_STUB_STEP_MS="1")
    _, key = herd.client.api_keys.create("default")
    _, url = herd.start_gateway()
    elsewhere = {"HERD_URL": url, "HERD_API_KEY": key}

    bought = run("python", "-c", PROGRAM, **elsewhere)
    assert bought.returncode == 0, bought.stderr
    order, charged = bought.stdout.split()
    assert herd.client.receipt(order).charged == int(charged) == 50

    typed = run("herd", "submit", "What is it?", "-n", "12", "--fee", "50", **elsewhere)
    assert (typed.returncode, len(typed.stdout.split())) == (0, 12), typed.stderr
    assert "charged 50 of 50 winston" in typed.stderr

    talk = run("herd", "chat", "--json", "-n", "5", stdin="Hi\nAnd you?\n", **elsewhere)
    assert talk.returncode == 0, talk.stderr
    turns = [json.loads(line) for line in talk.stdout.splitlines()]
    assert turns[1]["total"] == turns[0]["charged"] + turns[1]["charged"]
    assert turns[1]["available"] == herd.client.balance().available

    signed = run("herd", "receipt", "get", order, **elsewhere)
    (tmp_path / "receipt.jws").write_text(signed.stdout)
    genuine = run("herd", "receipt", "verify", "receipt.jws", **elsewhere)
    assert genuine.stdout.startswith(f"Genuine: order {order} ")

    operators = run("herd", "account", "deposit", "default", "5", **elsewhere)
    assert operators.returncode == 2
    assert "works only on the herder's own machine" in operators.stderr
