"""The `herd` command in a test: typed words in, exit code, output and money out."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import typer.testing
from typer.main import get_command
from typer.testing import CliRunner

from herder.cli.app import app

NO_REDIS = "redis://127.0.0.1:1/0"
"""Nobody listens there: no command but those that wait for an answer needs a Redis."""

_command = cache(get_command)
"""Typer makes all fifty commands for each that is typed, which takes longer than most of them."""


class Cli:
    """Types commands at the herd of a house."""

    def __init__(self, house: Any, monkeypatch: Any) -> None:
        self.house = house
        monkeypatch.setenv("HERD_HOME", str(house.settings.home))
        monkeypatch.setenv("HERD_REDIS_URL", NO_REDIS)
        monkeypatch.setenv("COLUMNS", "80")
        monkeypatch.setattr(typer.testing, "_get_command", _command)

    def run(self, *words: str, stdin: str | bytes | None = None) -> Any:
        """Type a command."""
        return CliRunner().invoke(app, list(words), input=stdin, prog_name="herd")

    def says(self, *words: str, stdin: str | bytes | None = None) -> str:
        """What a command that succeeds answers."""
        done = self.run(*words, stdin=stdin)
        assert done.exit_code == 0, done.output
        return str(done.stdout)

    def json(self, *words: str, stdin: str | bytes | None = None) -> dict[str, Any]:
        """The one JSON document of a command that succeeds."""
        document = json.loads(self.says(*words, "--json", stdin=stdin))
        assert isinstance(document, dict)
        return document

    def refused(self, *words: str, stdin: str | bytes | None = None) -> str:
        """The one line of a command that is refused; nothing has moved."""
        before = self.money()
        done = self.run(*words, stdin=stdin)
        assert done.exit_code == 2, done.output
        assert done.stdout == ""
        line = str(done.stderr)
        assert line.count("\n") == 1, line
        assert line.endswith("\n")
        assert self.money() == before
        return line

    def money(self) -> Any:
        """Every balance, and how many transfers there were."""
        report = self.house.accounts.audit()
        return self.house.accounts.balances(), report.transfers, report.held

    def order(self, *more: str, key: str = "key") -> str:
        """The id of an order that waits; typed again with this key, it is the same."""
        done = self.json(
            *("submit", "two words", "-n", "10", "--idempotency-key", key, *more), "--no-wait"
        )
        return str(done["order"])

    def completed(self, text: str = "so it is", generated: int = 4) -> str:
        """The id of an order that a worker completed."""
        order = self.order("--fee", "26")
        worker = self.house.worker()
        worker.finish(self.house.dispatched(), text=text, generated=generated)
        return order
