"""A RabbitMQ of the tests' own: one node on free ports, in a folder of its own, stopped by pid.

Debian's `/usr/sbin/rabbitmq-server` insists on the system's folders and user; what it wraps runs
anywhere, told where by its environment.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import amqp
import pytest

from tests.support.redis_server import free_port
from tests.support.wait import wait_for

SCRIPTS = Path("/usr/lib/rabbitmq/bin")
NODE = "herd@localhost"
PASSWORD = "in-tests-only"
START_S = 180

EVERYTHING = (".*", ".*", ".*")
RIGHTS = {
    "herd": EVERYTHING,
    # Who may configure, write and read what: the patterns that the documentation gives.
    "herder": (
        r"^(herder|inference(\..+)?|celeryev)$",
        r"^(herder|inference(\..+)?|celeryev)$",
        r"^(herder|inference(\..+)?)$",
    ),
    "worker": (
        r"^(inference(\..+)?|celeryev)$",
        "^(herder|celeryev)$",
        r"^inference(\..+)?$",
    ),
    "client": ("^$", "^herder$", "^$"),
    "flower": ("^celeryev.*$", "^celeryev.*$", "^celeryev.*$"),
}
"""(configure, write, read) of each user."""


def find_scripts() -> Path | None:
    """The folder of RabbitMQ's own scripts."""
    if shutil.which("epmd") and (SCRIPTS / "rabbitmq-server").exists():
        return SCRIPTS
    return None


def require_rabbit() -> None:
    """Skip the test where RabbitMQ is not installed; in continuous integration, fail."""
    if find_scripts() is None:
        said = "RabbitMQ is not installed (Debian's rabbitmq-server)"
        if os.environ.get("CI"):
            pytest.fail(said)
        pytest.skip(said)


class RabbitServer:
    """One node. What it holds survives `kill` and `start`, and not `wipe`.

    Args:
        folder: its own.
        erlang: more arguments for Erlang, such as `-rabbit channel_tick_interval 1000`.
        config: lines of its `rabbitmq.conf`, dots written as two underscores.
    """

    def __init__(self, folder: Path, *, erlang: str = "", **config: object) -> None:
        scripts = find_scripts()
        assert scripts is not None, "call require_rabbit() before"
        folder.mkdir(parents=True, exist_ok=True)
        self._scripts = scripts
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        self._epmd_port = free_port()
        self._env = {**self._environment(), "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": erlang}
        self._configure({"loopback_users": "none", "disk_free_limit.absolute": "1MB", **config})
        # RabbitMQ would start this one by itself, and leave it behind.
        self._epmd = subprocess.Popen(
            ["epmd", "-port", str(self._epmd_port), "-address", "127.0.0.1"],
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_for(lambda: listens(self._epmd_port), "epmd listens")
        self.start()

    def _environment(self) -> dict[str, str]:
        here = str(self._folder)
        return {
            "PATH": os.environ["PATH"],
            "HOME": here,  # for a cookie of its own
            "LANG": "C.UTF-8",
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": NODE,
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_CONF_ENV_FILE": f"{here}/rabbitmq-env.conf",
            "RABBITMQ_CONFIG_FILE": f"{here}/rabbitmq.conf",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{here}/enabled_plugins",
            "RABBITMQ_PLUGINS_EXPAND_DIR": f"{here}/plugins",
            "RABBITMQ_GENERATED_CONFIG_DIR": f"{here}/config",
            "RABBITMQ_MNESIA_BASE": f"{here}/mnesia",
            "RABBITMQ_LOG_BASE": f"{here}/log",
            "RABBITMQ_LOGS": "-",
            # Then its script becomes the node, and stays in the foreground.
            "RUNNING_UNDER_SYSTEMD": "true",
        }

    def _configure(self, config: dict[str, object]) -> None:
        lines = [f"{name.replace('__', '.')} = {value}" for name, value in config.items()]
        lines += [
            f"load_definitions = {self._folder}/definitions.json",
            "log.console.level = warning",
        ]
        (self._folder / "rabbitmq.conf").write_text("\n".join(lines) + "\n")
        (self._folder / "rabbitmq-env.conf").write_text("")
        (self._folder / "enabled_plugins").write_text("[].\n")
        definitions = {
            "vhosts": [{"name": "/"}],
            "users": [user(name) for name in RIGHTS],
            "permissions": [
                {"user": name, "vhost": "/", "configure": one[0], "write": one[1], "read": one[2]}
                for name, one in RIGHTS.items()
            ],
        }
        (self._folder / "definitions.json").write_text(json.dumps(definitions))

    # Life

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        with (self._folder / "rabbit.log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(self._scripts / "rabbitmq-server")],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=self._env,
                cwd=self._folder,
            )
        wait_for(self._answers, "RabbitMQ answers", START_S)

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"RabbitMQ ended:\n{self.log[-3000:]}"
        try:
            with self.channel():
                return True
        except (OSError, amqp.AMQPError):
            return False

    @property
    def log(self) -> str:
        return (self._folder / "rabbit.log").read_text(errors="replace")

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def wipe(self) -> None:
        """Forget everything but the users; it must be dead."""
        assert self._process is None
        shutil.rmtree(self._folder / "mnesia", ignore_errors=True)

    def close(self) -> None:
        """End the node, and what belongs to it."""
        self.kill()
        self._epmd.kill()
        self._epmd.wait()

    def ctl(self, *words: str) -> str:
        """What `rabbitmqctl` answers; it takes seconds."""
        port = str(free_port())
        ports = {"RABBITMQ_CTL_DIST_PORT_MIN": port, "RABBITMQ_CTL_DIST_PORT_MAX": port}
        done = subprocess.run(
            [str(self._scripts / "rabbitmqctl"), *words],
            env={**self._env, **ports},
            cwd=self._folder,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    # Use

    def url(self, name: str = "herd") -> str:
        """The address for one of the users."""
        return f"amqp://{name}:{PASSWORD}@127.0.0.1:{self.port}//"

    @contextmanager
    def channel(self, name: str = "herd", **options: Any) -> Iterator[amqp.Channel]:
        """A channel of one of the users."""
        with amqp.Connection(
            f"127.0.0.1:{self.port}",
            userid=name,
            password=PASSWORD,
            connect_timeout=10,
            read_timeout=30,
            **options,
        ) as connection:
            yield connection.channel()

    def clear(self) -> None:
        """Take away the herd's queues and exchanges, and what is in them."""
        with self.channel() as channel:
            for name in ("inference", "herder"):
                channel.queue_delete(name)
                channel.exchange_delete(name)

    def waiting(self, queue: str) -> int:
        """How many messages wait in a queue; those that were taken and not yet acked do not."""
        with self.channel() as channel:
            return int(channel.queue_declare(queue, passive=True).message_count)


def user(name: str) -> dict[str, Any]:
    """A user with the tests' password, as RabbitMQ's definitions have it."""
    salt = b"salt"
    digest = hashlib.sha256(salt + PASSWORD.encode()).digest()
    return {
        "name": name,
        "password_hash": base64.b64encode(salt + digest).decode(),
        "hashing_algorithm": "rabbit_password_hashing_sha256",
        "tags": "",
    }


def listens(port: int) -> bool:
    """Whether somebody takes connections there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
