"""The client alone: what it needs, and what a command says whose extra is not installed."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from herder import errors
from herder.client import optional as extras

ROOT = Path(__file__).parents[3]
CLIENT = {
    "httpx",
    "httpx_sse",
    "httpcore",
    "h11",
    "certifi",
    "pydantic",
    "pydantic_core",
    "jwt",
    "cryptography",
    "rich",
    "typer",
}
"""What the client alone brings, as it is imported."""

WITHOUT = """
import importlib.abc, importlib.machinery, json, sys
from herder.client.optional import EXTRAS

class Gone(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in set(EXTRAS) - {"anyio"}:  # httpx brings that one
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Gone())
import importlib.util
found = importlib.util.find_spec
def find(name, package=None):
    try:
        return found(name, package)
    except ModuleNotFoundError:
        return None
importlib.util.find_spec = find
"""
"""A Python in which only the client is installed."""


def without(program: str, **env: str) -> str:
    """What a program prints where only the client is installed."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HERD_")}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT + program],
        capture_output=True,
        text=True,
        env={**clean, **env},
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def imported() -> set[str]:
    """Every package of others that ours import anywhere."""
    names: set[str] = set()
    for room in ("herder", "ledger", "workers"):
        for path in (ROOT / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    names |= {one.name.partition(".")[0] for one in node.names}
                elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                    names.add(node.module.partition(".")[0])
    return names - set(sys.stdlib_module_names) - {"herder", "ledger", "workers"}


def brought_by(extra: str) -> set[str]:
    """All distributions that come with an extra, in small letters with dashes."""
    found: set[str] = set()
    waiting = [("llama-herder", {extra})]
    while waiting:
        name, wanted = waiting.pop()
        for text in metadata.requires(name) or []:
            one = Requirement(text)
            applies = one.marker is None or any(
                one.marker.evaluate({"extra": which}) for which in (*wanted, "")
            )
            key = re.sub(r"[-_.]+", "-", one.name).lower()
            if applies and key not in found:
                found.add(key)
                waiting.append((one.name, one.extras))
    return found


def test_every_package_is_the_clients_or_some_extras():
    unknown = imported() - CLIENT - set(extras.EXTRAS)
    # Guarded imports of what needs no extra are not there to be missed.
    assert unknown <= {"vine"}, "herder.client.optional names what brings each package"
    homes = metadata.packages_distributions()
    for package in imported() & set(extras.EXTRAS):
        homes_of = {re.sub(r"[-_.]+", "-", one).lower() for one in homes[package]}
        assert homes_of & brought_by(extras.EXTRAS[package]), package


def test_a_worker_needs_no_herder():
    """What `workers` import comes with `[worker]` alone."""
    needed = set()
    for path in (ROOT / "workers").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                needed.add(node.module.partition(".")[0])
            elif isinstance(node, ast.Import):
                needed |= {one.name.partition(".")[0] for one in node.names}
    homes = metadata.packages_distributions()
    brought = brought_by("worker") | brought_by("")
    for package in needed - set(sys.stdlib_module_names) - {"workers"}:
        assert {re.sub(r"[-_.]+", "-", one).lower() for one in homes[package]} & brought, package


def test_the_client_loads_where_nothing_else_is_installed():
    said = without(
        "import herder, herder.cli.app, herder.domain.signed_tokens\n"
        "import herder.client.http.remote_herd, herder.client.http.async_client\n"
        "from herder import AsyncClient, Client\n"
        "Client('https://herd.example', 'herd_k_s').close()\n"
        "print('fine')\n"
    )
    assert said == "fine\n"


COMMANDS = {
    "herder": [
        *("info", "orders", "order show x", "order cancel x", "order rebid x 5", "model list"),
        *("quote Hi -n 5", "submit Hi -n 5", "chat", "account balance", "account statement"),
        *("receipt get x", "init", "audit", "account deposit x 5", "model set x", "policy show"),
        *("key create x", "worker list", "worker add x", "order refund x --reason y"),
    ],
    "herder,gateway": ["gateway"],
    "herder,worker,demo": ["up", "demo"],
    "worker": ["worker check", "worker tune"],
}


def test_a_command_whose_extra_is_missing_says_which(tmp_path):
    words = [line.split() for lines in COMMANDS.values() for line in lines]
    said = without(
        "from typer.testing import CliRunner\n"
        "from herder.cli.app import app\n"
        f"for words in {words!r}:\n"
        "    done = CliRunner().invoke(app, words, input='Hi', prog_name='herd')\n"
        "    print(json.dumps([done.exit_code, done.stdout, done.stderr, repr(done.exception)]))\n",
        HERD_HOME=str(tmp_path / "home"),
    )
    answers = iter(json.loads(line) for line in said.splitlines())
    for extra, lines in COMMANDS.items():
        for line in lines:
            code, out, complaint, exception = next(answers)
            assert (code, out, complaint.count("\n")) == (2, "", 1), (line, exception, complaint)
            assert f"pip install 'llama-herder[{extra}]'" in complaint, line
    assert not (tmp_path / "home").exists()


def test_where_another_herder_is_named_no_extra_is_asked_for(tmp_path):
    operators = [line.split() for line in COMMANDS["herder"][11:]]
    operators = [words for words in operators if words[0] != "receipt"]
    said = without(
        "from typer.testing import CliRunner\n"
        "from herder.cli.app import app\n"
        f"for words in {operators!r}:\n"
        "    done = CliRunner().invoke(app, words, prog_name='herd')\n"
        "    print(json.dumps([done.exit_code, done.stderr]))\n",
        HERD_URL="http://127.0.0.1:1",
        HERD_API_KEY="herd_k_s",
        HERD_HOME=str(tmp_path),
    )
    for line in said.splitlines():
        code, complaint = json.loads(line)
        assert code == 2
        assert "works only on the herder's own machine" in complaint


def test_the_library_says_so_too():
    said = without(
        "import herder\n"
        "try:\n"
        "    herder.submit('Hi', 5)\n"
        "except herder.SetupError as error:\n"
        "    print(error.code, error.message)\n"
    )
    assert said.startswith("setup_error This needs the package ")
    assert "'llama-herder[herder]'`; or use a herder elsewhere: set HERD_URL" in said


def test_what_is_no_extras_keeps_its_traceback():
    error = ModuleNotFoundError("No module named 'herder.gone'", name="herder.gone")
    assert extras.missing(error) is None
    with pytest.raises(ModuleNotFoundError), extras.needing("herder"):
        raise error
    with (
        pytest.raises(errors.SetupError, match=r"llama-herder\[worker\]"),
        extras.needing("worker"),
    ):
        raise ModuleNotFoundError(name="llama_cpp.llama")
