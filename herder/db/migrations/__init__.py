"""The database's versions, made by Alembic. `herd init` and `herd up` bring it up to date.

May not enter: anything that changes when the code changes: a migration says itself what it makes.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection

from herder.errors import DatabaseVersionMismatch

TURN_S = 60
"""Seconds to wait for others who make the same database."""

KNOWN = tuple(
    sorted(path.name[:4] for path in Path(__file__).parent.glob("versions/[0-9][0-9][0-9][0-9]_*"))
)
"""The versions of the database that this program knows, the last of them its own.

By the names of their files: without Alembic, which takes a seventh of a second to load.
"""

_ONE_AT_A_TIME = 0x6C6C616D61
"""The number of the lock that a PostgreSQL server is asked for: any, if only always the same."""


def require_current(connection: Connection) -> None:
    """Refuse a database of another version.

    Asked at the start alone: migrations let the version before theirs go on.

    Raises:
        DatabaseVersionMismatch: it was made by a later version, or by an earlier one and not
            brought up to date.
        DBAPIError: it has no tables of ours.
    """
    version = _version(connection)
    _refuse_later(version)
    if version != KNOWN[-1]:
        raise DatabaseVersionMismatch(
            f"The database is of an earlier version ({version}, and this program needs "
            f"{KNOWN[-1]}); `herd init` brings it up to date.",
            version=version,
            known=KNOWN[-1],
        )


def load() -> None:
    """Load Alembic, before a transaction that would stand idle meanwhile."""
    import alembic.command  # noqa: F401


def upgrade(connection: Connection) -> None:
    """Bring the database to this version, within the caller's transaction.

    Raises:
        DatabaseVersionMismatch: it was made by a later version.
    """
    if connection.dialect.name == "postgresql":
        _await_turn(connection)
    if connection.dialect.has_table(connection, "alembic_version"):
        version = _version(connection)
        _refuse_later(version)
        if version == KNOWN[-1]:
            return
    # Loaded here: every command imports this package, and only `init` needs it.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _version(connection: Connection) -> str | None:
    found = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    return None if found is None else str(found)


def _refuse_later(version: str | None) -> None:
    if version is not None and version not in KNOWN:
        raise DatabaseVersionMismatch(
            f"The database was made by a later version of Llama Herder ({version}, and this "
            f"program knows {KNOWN[-1]} at most); upgrade this program.",
            version=version,
            known=KNOWN[-1],
        )


def _await_turn(connection: Connection) -> None:
    """Wait for others' commits: whoever comes second finds everything made.

    Longer than for any other lock. Those that the migrations take are waited for as ever: everybody
    else queues behind who waits for a table. And this transaction may stand idle for as long: on a
    machine that has much to do, Alembic takes seconds to find out what is to be made.
    """
    connection.exec_driver_sql(f"SET LOCAL idle_in_transaction_session_timeout = '{TURN_S}s'")
    usual = connection.exec_driver_sql("SHOW lock_timeout").scalar_one()
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{TURN_S}s'")
    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_ONE_AT_A_TIME})")
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{usual}'")
