"""The database's versions, made by Alembic. `herd init` and `herd up` bring it up to date.

May not enter: anything that changes when the code changes: a migration says itself what it makes.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection

_ONE_AT_A_TIME = 0x6C6C616D61
"""The number of the lock that a PostgreSQL server is asked for: any, if only always the same."""


TURN_S = 60
"""Seconds to wait for others who make the same database."""


def upgrade(connection: Connection) -> None:
    """Bring the database to this version, within the caller's transaction."""
    # Loaded here: every command imports this package, and only `init` needs a seventh of a second
    # of Alembic.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.attributes["connection"] = connection
    if connection.dialect.name == "postgresql":
        _await_turn(connection)
    command.upgrade(config, "head")


def _await_turn(connection: Connection) -> None:
    """Wait for others' commits: whoever comes second finds everything made.

    Longer than for any other lock. Those that the migrations take are waited for as ever: everybody
    else queues behind who waits for a table.
    """
    usual = connection.exec_driver_sql("SHOW lock_timeout").scalar_one()
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{TURN_S}s'")
    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_ONE_AT_A_TIME})")
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{usual}'")
