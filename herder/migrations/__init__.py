"""The database's versions, made by Alembic. `herd init` and `herd up` bring it up to date."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection


def upgrade(connection: Connection) -> None:
    """Bring the database to this version, within the caller's transaction."""
    # Loaded here: every command imports this package, and only `init` needs a seventh of a second
    # of Alembic.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
