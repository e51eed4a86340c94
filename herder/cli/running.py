"""The commands that run a herd on this machine: `herd up` and `herd demo`."""

from __future__ import annotations

import typer


def register(app: typer.Typer) -> None:
    """Add the commands to the `herd` command."""
