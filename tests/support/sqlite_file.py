"""Files of SQLite that have a herd's tables already: Alembic takes a quarter of a second."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

from sqlalchemy import make_url

from herder.db import migrations
from herder.db.database import Database


def prepare(address: str) -> None:
    """Have the tables in the file that an address names, unless it is there or no file.

    `herd init` finds the tables up to date, and fills them.
    """
    url = make_url(address)
    if url.get_backend_name() != "sqlite" or not url.database:
        return
    path = Path(url.database)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.write_bytes(_migrated())


@cache
def _migrated() -> bytes:
    """A database with a herd's tables and nothing in them, made once a process."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "herd.db"
        database = Database(f"sqlite:///{path}", any_version=True)
        with database.write() as connection:
            migrations.upgrade(connection)
        database.close()
        assert not Path(f"{path}-wal").exists(), "all stands in the one file"
        return path.read_bytes()
