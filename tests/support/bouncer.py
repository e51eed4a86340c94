"""A PgBouncer of the tests' own, before one PostgreSQL: on a free port, stopped by pid."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import URL

from deploy.install.servers import pgbouncer_path
from tests.support.postgres_server import USER, plain_user
from tests.support.redis_server import free_port
from tests.support.wait import wait_for

CONFIG = """\
[databases]
* = host=127.0.0.1 port={server}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
default_pool_size = {pool}
max_client_conn = {clients}
server_login_retry = 1
admin_users = {user}
{owner}
"""


def require_bouncer() -> None:
    """Skip the test where PgBouncer is not installed; in continuous integration, fail."""
    if pgbouncer_path() is None:
        said = "PgBouncer is not installed: `python -m deploy.install.servers` installs it"
        if os.environ.get("CI"):
            pytest.fail(said)
        pytest.skip(said)


class Bouncer:
    """One PgBouncer; every user may enter, as `USER`.

    Args:
        server_port: where its PostgreSQL listens.
        mode: `session`, `transaction` or `statement`.
        pool: connections to the server for each database and user.
        clients: connections that it takes.
    """

    def __init__(self, server_port: int, mode: str, *, pool: int = 4, clients: int = 100) -> None:
        program = pgbouncer_path()
        assert program is not None, "call require_bouncer() before"
        # Not in pytest's folder, which none but its owner may enter: it leaves root behind.
        self._folder = Path(tempfile.mkdtemp(prefix="herd-bouncer-"))
        self.port = free_port()
        owner = plain_user()
        config = self._folder / "pgbouncer.ini"
        config.write_text(
            CONFIG.format(
                server=f"{server_port} user={USER}",
                port=self.port,
                mode=mode,
                pool=pool,
                clients=clients,
                user=USER,
                owner="" if owner is None else f"user = {owner}",
            )
        )
        if owner is not None:
            shutil.chown(self._folder, owner)
            shutil.chown(config, owner)
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(program), str(config)], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        wait_for(self._answers, "PgBouncer answers")

    def _answers(self) -> bool:
        assert self._process.poll() is None, (self._folder / "log").read_text()
        with suppress(psycopg.OperationalError):
            self.admin("SHOW VERSION")
            return True
        return False

    def admin(self, command: str) -> None:
        """Give it one of its own commands, such as `RECONNECT` or `KILL`."""
        with psycopg.connect(
            host="127.0.0.1", port=self.port, user=USER, dbname="pgbouncer", autocommit=True
        ) as connection:
            connection.execute(command, prepare=False)

    def url(self, database: str) -> str:
        """The address of a database behind it."""
        url = URL.create("postgresql", USER, None, "127.0.0.1", self.port, database)
        return url.render_as_string(hide_password=False)

    def close(self) -> None:
        """Stop it, and remove what it kept."""
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self._folder)
