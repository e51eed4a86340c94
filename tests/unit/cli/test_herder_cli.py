"""The `herd` command as a whole, its models and its workers."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.main import get_command

from herder.cli import base, workers
from herder.cli.app import app
from herder.errors import HerdUnavailable
from herder.version import __version__
from tests.unit.cli.herder_cli_support import Cli


@pytest.fixture
def cli(house, monkeypatch) -> Cli:
    return Cli(house, monkeypatch)


def _commands(command: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    inner = getattr(command, "commands", None)
    if inner is None:
        return [path]
    own = [path] if command.invoke_without_command and path else []
    return own + [one for name in inner for one in _commands(inner[name], (*path, name))]


COMMANDS = _commands(get_command(app))


def test_the_commands_are_these():
    names = {" ".join(path) for path in COMMANDS}
    accounts = "create list deposit withdraw transfer balance statement"
    webhooks = "create list show rotate disable enable delete replay test"
    assert names >= {
        *(
            "init",
            "up",
            "gateway",
            "room",
            "demo",
            "demo agents",
            "quote",
            "tokenize",
            "info",
            "submit",
            "chat",
            "audit",
        ),
        *(f"account {one}" for one in accounts.split()),
        *("order show", "order refund", "order cancel", "order rebid", "orders purge"),
        *("model list", "model set", "policy show", "policy set", "account limit"),
        *("worker list", "worker add", "worker check", "worker drain", "worker revoke"),
        *(f"webhooks {one}" for one in webhooks.split()),
    }


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_explains_itself_with_an_example(cli, path):
    shown = cli.says(*path, "--help")
    assert "Example" in shown
    assert "--json" in shown


def test_help_names_the_exit_codes(cli):
    assert "Exit codes: 0 for success; 1 for an order that did not complete" in cli.says("--help")
    assert cli.says().strip() == cli.says("--help").strip()
    assert cli.says("--version") == f"herd {__version__}\n"
    assert "No such command" in cli.refused("nonsense")


def test_help_loads_nothing_heavy():
    program = (
        "import sys\n"
        "sys.argv = ['herd', '--help']\n"
        "from herder.cli import main\n"
        "try:\n"
        "    main()\n"
        "except SystemExit:\n"
        "    heavy = {'celery', 'sqlalchemy', 'llama_cpp', 'redis', 'pydantic', 'jwt', 'alembic'}\n"
        "    sys.exit(', '.join(sorted(heavy & set(sys.modules))) or None)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_herds_model_is_what_an_operator_names(cli):
    said = cli.says("model", "set", "llama-9b", "--default", "--prompt-fee", "2")
    assert said == (
        "New model llama-9b: 2 winston per prompt, 1 per word and per token. It is the herd's "
        "model from now on.\n"
    )
    assert "llama-9b (default)" in cli.says("model", "list")
    assert cli.says("model", "set", "stub", "--default").endswith("from now on.\n")
    assert "stub (default)" in cli.says("model", "list")
    assert "already exists" in cli.refused("model", "set", "stub")


def test_a_busy_database_ends_with_1(cli, monkeypatch):
    def busy(*_: object) -> object:
        raise HerdUnavailable("The database is busy; try again.")

    monkeypatch.setattr("herder.accounts.accounts.Accounts.balances", busy)
    done = cli.run("account", "list")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == "The database is busy; try again.\n"


def test_a_defect_keeps_its_traceback(cli, monkeypatch):
    def broken(*_: object) -> object:
        raise ZeroDivisionError

    monkeypatch.setattr("herder.accounts.accounts.Accounts.balances", broken)
    assert isinstance(cli.run("account", "list").exception, ZeroDivisionError)


def test_whole_numbers_are_whole():
    assert base.whole("12") == 12
    for text in ("1.5", "-3", "+3", " 3", "1_0", "", "٣", "9" * 31):
        assert base.whole(text) == text


def test_info_says_how_it_stands(cli):
    cli.house.worker(slots=3)
    cli.order()
    found = cli.json("info")
    assert (found["name"], found["version"]) == ("Llama Herder", __version__)
    (model,) = found["models"]
    assert (model["queue_length"], model["workers"], model["slots"]) == (1, 1, 3)
    assert "1 waiting" in cli.says("info")


def test_rates_are_set_for_the_orders_to_come(cli):
    order = cli.order()
    assert cli.json("model", "set", "stub", "--prompt-fee", "5", "--fee-per-token", "0") == {
        "model": "stub",
        "rates": {"prompt_fee": 5, "fee_per_token": 0},
        "new": False,
    }
    assert cli.json("quote", "two words", "-n", "10")["needed"] == 5
    assert cli.json("order", "show", order)["receipt"]["needed"] == 13
    # What is not named stays as it was.
    cli.says("model", "set", "stub", "--fee-per-token", "2")
    assert cli.json("quote", "two words", "-n", "10")["needed"] == 29

    assert cli.json("model", "set", "larger")["new"] is True
    listed = cli.json("model", "list")
    assert [one["name"] for one in listed["models"]] == ["larger", "stub"]
    assert "stub (default)" in cli.says("model", "list")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["stub"], "give prompt_fee, fee_per_token or both"),
        (["stub", "--prompt-fee", "0"], "from 1"),
        (["stub", "--prompt-fee", "1.5"], "from 1"),
        (["stub", "--prompt-fee", "1e400"], "from 1"),
        (["stub", "--fee-per-token", "-1"], "from 0"),
        (["stub", "--fee-per-token", "NaN"], "from 0"),
        (["stub", "--fee-per-token", str(2**41)], "from 0"),
        (["no model", "--prompt-fee", "1"], "model's name"),
    ],
)
def test_rates_that_are_none_change_nothing(cli, words, said):
    before = cli.json("model", "list")
    assert said in cli.refused("model", "set", *words)
    assert cli.json("model", "list") == before


def test_workers_are_listed_while_they_are_here(cli):
    worker = cli.house.worker("shepherd", slots=2, tokens_per_s=30)
    (found,) = cli.json("worker", "list")["workers"]
    assert (found["name"], found["slots"], found["free"]) == ("shepherd", 2, 2)
    assert "60" in cli.says("worker", "list")
    worker.leave()
    assert cli.json("worker", "list")["workers"] == []
    (found,) = cli.json("worker", "list", "--all")["workers"]
    assert found["state"] == "gone"


def test_a_further_worker_may_join(cli):
    environment = cli.json("worker", "add", "gpu-1")["environment"]
    joined = json.loads(Path(environment["HERD_WORKER_KEY"]).read_text())
    assert set(joined) == {"worker", "herders"}
    assert environment["HERD_MODEL"] == "stub"
    shown = cli.says("worker", "add", "gpu-1")
    assert f"export HERD_WORKER_KEY={environment['HERD_WORKER_KEY']}" in shown
    assert "celery -A workers worker -Q inference" in shown
    assert json.loads(Path(environment["HERD_WORKER_KEY"]).read_text()) == joined
    assert "worker's name" in cli.refused("worker", "add", "../escape")


def test_the_check_runs_in_a_child(cli, monkeypatch):
    asked: list[list[str]] = []
    answer = SimpleNamespace(returncode=0, stdout='{"tokens_per_s": 60}\n', stderr="")

    def run(command: list[str], **_: object) -> SimpleNamespace:
        asked.append(command)
        return answer

    monkeypatch.setattr(workers.subprocess, "run", run)
    monkeypatch.setenv("HERD_MODEL_PATH", "/models/some.gguf")
    assert cli.json("worker", "check", "--seconds", "2") == {"tokens_per_s": 60}
    assert asked[0][1:] == [
        *("-m", "workers.tuning.check", "--model-path", "/models/some.gguf"),
        *("--seconds", "2", "--json"),
    ]
    cli.says("worker", "check", "--model-path", "other.gguf", "--slots", "4")
    assert "other.gguf" in asked[1]
    assert asked[1][asked[1].index("--slots") + 1] == "4"
    for wrong in (["--seconds", "0"], ["--seconds", "x"], ["--slots", "257"], ["--slots", "-1"]):
        cli.refused("worker", "check", *wrong)

    answer.returncode, answer.stdout, answer.stderr = 2, "", "noise\ncannot read it\n"
    assert cli.refused("worker", "check") == "cannot read it\n"
    answer.returncode = -4
    done = cli.run("worker", "check")
    assert done.exit_code == 1
    assert "SIGILL" in done.stderr


def test_a_terminal_gets_no_control_characters_of_others():
    ours, theirs = pty.openpty()
    program = "from herder.cli.show import write_text; write_text('a\\x1b[2Jb\\n')"
    subprocess.run([sys.executable, "-c", program], stdout=theirs, check=True)
    assert os.read(ours, 100).decode() == "a�[2Jb\r\n"
    os.close(ours)
    os.close(theirs)
