"""Takes a herd's database away and gives it back: a server behind a proxy, or SQLite's driver."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from sqlalchemy import Engine, event
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite

from tests.support.cut_proxy import CutProxy


class Outage(Protocol):
    """A database that a test may take away."""

    url: str
    """Its address for a herd; empty: the file in the herd's own folder."""

    def begin(self) -> None:
        """From here on nobody reaches it."""

    def end(self) -> None:
        """It is back."""

    def at_commit(self) -> threading.Event:
        """Commit what is committed next, lose the answer, and be away from then on.

        Returns:
            Set once it has happened.
        """


class ServerOutage:
    """PostgreSQL's, by a proxy before it."""

    def __init__(self, proxy: CutProxy, url: str) -> None:
        self._proxy = proxy
        self.url = proxy.through(url)

    def begin(self) -> None:
        self._proxy.refuse()

    def end(self) -> None:
        self._proxy.restore()

    def at_commit(self) -> threading.Event:
        return self._proxy.cut_at(b"COMMIT")


class FileOutage:
    """SQLite's, by faults in its driver: a file that others hold locked, a disk that fails."""

    url = ""

    def __init__(self) -> None:
        self._away = False
        self._at_commit: threading.Event | None = None

    def begin(self) -> None:
        self._away = True

    def end(self) -> None:
        self._away = False

    def at_commit(self) -> threading.Event:
        self._at_commit = threading.Event()
        return self._at_commit

    @contextmanager
    def planted(self) -> Iterator[FileOutage]:
        """While the block lasts, every database of SQLite in this process is this one's."""
        commit = SQLiteDialect_pysqlite.do_commit

        def do_execute(*_: Any) -> None:
            if self._away:
                raise sqlite3.OperationalError("database is locked")

        def do_commit(dialect: Any, connection: Any) -> None:
            if self._away:
                raise sqlite3.OperationalError("database is locked")
            commit(dialect, connection)
            # Those that only read have a connection of their own, which never changed a row.
            if connection.total_changes > 0 and self._at_commit is not None:
                happened, self._at_commit = self._at_commit, None
                self._away = True
                happened.set()
                raise sqlite3.OperationalError("disk I/O error")

        event.listen(Engine, "do_execute", do_execute)
        SQLiteDialect_pysqlite.do_commit = do_commit  # type: ignore[method-assign]
        try:
            yield self
        finally:
            del SQLiteDialect_pysqlite.do_commit
            event.remove(Engine, "do_execute", do_execute)
