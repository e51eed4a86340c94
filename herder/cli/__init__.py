"""The `herd` command. No rule lives here: desk and accounts decide, this asks and shows."""

from herder.cli.app import main

__all__ = ["main"]
