"""The app: its groups of commands, and what belongs to no group."""

from __future__ import annotations

import typer

from herder.cli import running

app = typer.Typer()
running.register(app)


def main() -> None:
    """Run the `herd` command."""
    app()
