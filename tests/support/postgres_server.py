"""A PostgreSQL of the tests' own: one server on a free port, in a folder of its own."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from contextlib import suppress
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import URL

from deploy.install.servers import postgres_folder
from tests.support.redis_server import free_port
from tests.support.wait import wait_for

USER = "herd"
GUARDED = "guarded"
"""The one user that has to give a password."""
PASSWORD = "never-to-be-shown"

ACCESS = f"""\
host all {GUARDED} 127.0.0.1/32 scram-sha-256
host all all 127.0.0.1/32 trust
host all all ::1/128 trust
local all all trust
"""

SETTINGS = """\
listen_addresses = '127.0.0.1'
max_connections = 100
shared_buffers = 32MB
autovacuum_naptime = 1h
log_min_messages = warning
"""
HASTY = """\
fsync = off
full_page_writes = off
"""
"""What only an operating system that crashes would punish."""


def why_not() -> str | None:
    """Why there can be no server here; None if there can be one."""
    if postgres_folder() is None:
        return "PostgreSQL is not installed: `python -m deploy.install.servers` installs it"
    return None


def plain_user() -> str | None:
    """Whom to run it, and what stands before it, as: they refuse root. None: whoever we are."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            pwd.getpwnam(name)
            return name
    raise AssertionError("there is no user to run it as")


def _memory() -> Path | None:
    """A folder in memory, where a database is made ten times as fast; None if it is too small."""
    folder = Path("/dev/shm")
    return folder if folder.is_dir() and shutil.disk_usage(folder).free > 2**30 else None


def _program(name: str) -> str:
    folder = postgres_folder()
    assert folder is not None, why_not()
    return str(folder / name)


class PostgresServer:
    """One server; it and its folder are gone after `close`."""

    def __init__(self, *, hasty: bool = True, settings: str = "") -> None:
        """Make its folder and start it.

        Args:
            hasty: not to wait for the disk, and to do without one where there is memory enough.
            settings: lines of postgresql.conf that go before ours.
        """
        self._user = plain_user()
        # Not in pytest's folder, which none but its owner may enter, and whose name may be too
        # long for a socket in it.
        self._folder = Path(tempfile.mkdtemp(prefix="herd-pg-", dir=_memory() if hasty else None))
        self._data = self._folder / "data"
        if self._user is not None:
            shutil.chown(self._folder, self._user)
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        initdb = ["-D", str(self._data), "-U", USER, "-A", "trust", "-E", "UTF8", "--locale=C"]
        done = subprocess.run(
            [_program("initdb"), *initdb, "--no-sync", "--no-instructions"],
            capture_output=True,
            **self._as_user(),
        )
        assert done.returncode == 0, done.stderr.decode(errors="replace")
        (self._data / "pg_hba.conf").write_text(ACCESS)
        with (self._data / "postgresql.conf").open("a") as file:
            file.write(SETTINGS + (HASTY if hasty else "") + settings)  # the last line counts
            file.write(f"port = {self.port}\nunix_socket_directories = '{self._folder}'\n")
        self._names = count(1)
        self.start()

    def _as_user(self) -> dict[str, Any]:
        own: dict[str, Any] = {"cwd": self._folder, "stdin": subprocess.DEVNULL}
        if self._user is not None:
            own |= {"user": self._user, "group": pwd.getpwnam(self._user).pw_gid}
            own |= {"extra_groups": []}
        return own

    # Life

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [_program("postgres"), "-D", str(self._data)],
                stdout=log,
                stderr=log,
                **self._as_user(),
            )
        wait_for(self._answers, "PostgreSQL answers")

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self._folder / "log").read_text()
        try:
            self.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop it: SIGINT ends every session, SIGQUIT is a crash."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(timeout=60)
            self._process = None

    def crash(self) -> None:
        """End it at once, with nothing written that was not written before."""
        self.stop(signal.SIGQUIT)

    def become_standby(self) -> None:
        """Start anew as one: it follows nobody, and takes no writes until `promote`."""
        self.stop()
        signal_file = self._data / "standby.signal"
        signal_file.touch()
        if self._user is not None:
            shutil.chown(signal_file, self._user)
        self.start()

    def promote(self) -> None:
        """Take writes again."""
        self.execute("SELECT pg_promote()")

    def close(self) -> None:
        """Stop it, and remove what it kept."""
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self._folder)

    # Databases

    def url(
        self, database: str, user: str = USER, password: str | None = None, **query: str
    ) -> str:
        """The address of one of its databases."""
        url = URL.create("postgresql", user, password, "127.0.0.1", self.port, database, query)
        return url.render_as_string(hide_password=False)

    def execute(self, statement: str, database: str = "postgres") -> list[Any]:
        """Execute a statement as the owner of everything; its rows."""
        with psycopg.connect(
            host="127.0.0.1", port=self.port, user=USER, dbname=database, autocommit=True
        ) as connection:
            done = connection.execute(statement)
            return done.fetchall() if done.description else []

    def new_database(self, template: str = "template1", where: str = "pg_default") -> str:
        """The name of a new database, a copy of `template`, in a tablespace."""
        name = f"db{next(self._names)}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template} TABLESPACE {where}")
        return name

    def new_tablespace(self, folder: Path) -> str:
        """The name of a new tablespace, in a folder that is made."""
        folder.mkdir()
        if self._user is not None:
            shutil.chown(folder, self._user)
        name = f"space{next(self._names)}"
        self.execute(f"CREATE TABLESPACE {name} LOCATION '{folder}'")
        return name

    def drop(self, name: str) -> None:
        """Remove a database, whoever uses it."""
        self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    @cached_property
    def migrated(self) -> str:
        """The name of a database with a herd's tables and nothing in them, to be a template."""
        from herder.db import migrations
        from herder.db.database import Database

        name = self.new_database()
        database = Database(self.url(name), any_version=True)
        migrations.load()
        with database.write() as connection:
            migrations.upgrade(connection)
        database.close()
        return name

    def new_books(self) -> str:
        """The address of an empty schema: as good as a database for the ledger, and made faster."""
        name = f"books{next(self._names)}"
        self.execute(f"CREATE SCHEMA {name}", self._books)
        return self.url(self._books, options=f"-csearch_path={name}")

    @cached_property
    def _books(self) -> str:
        return self.new_database()
