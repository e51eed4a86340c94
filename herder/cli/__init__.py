"""The `herd` command. No rule lives here: order intake and accounts decide, this asks and shows.

Rules: thin; an API key is no argument of a command. Imports that take time stand in the commands.

May not enter: a rule about orders or money, SQL.
"""

from herder.cli.app import main

__all__ = ["main"]
