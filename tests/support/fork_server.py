"""Starts Python programs in processes that have the libraries loaded already.

Each herder, worker and gateway loads a second's worth of other people's packages and half a second
of ours, and the tests start a thousand of them. One process for each run of pytest loads those
packages, and forks for each program. For the programs that people type it loads ours too, but for
the modules that read the environment or do something when they are loaded: the apps of Celery and
llama.cpp. A program of a test's own, which may change something before ours is loaded, is forked
from another process, which has loaded none of ours. The rest is as if Python had been started:
arguments, streams, working folder, signals, exit status. `TESTS_START_ANEW=1` starts Python itself
each time.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import threading
import types
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import IO, Any, NoReturn, Protocol

LOADED = (
    *("celery.apps.worker", "celery.bin.celery", "celery.concurrency.thread"),
    *("celery.app.amqp", "celery.app.events", "celery.app.routes"),
    *("celery.fixups.django", "celery.worker.consumer", "celery.worker.pidbox"),
    *("kombu.transport.pyamqp", "kombu.transport.redis", "redis.asyncio", "hiredis"),
    *("psycopg", "sqlalchemy.dialects.postgresql", "sqlalchemy.dialects.sqlite", "sqlite3"),
    *("sqlalchemy.ext.compiler", "pydantic_settings", "pydantic.v1", "jwt.algorithms"),
    *("cryptography.x509", "cryptography.hazmat.primitives.ciphers.aead"),
    *("cryptography.hazmat.primitives.kdf.hkdf", "anyio._backends._asyncio", "certifi"),
    *("fastapi.openapi.utils", "sse_starlette", "uvicorn.lifespan.on", "uvicorn.loops.auto"),
    *("uvicorn.protocols.http.h11_impl", "prometheus_client", "structlog", "httpcore", "httpx"),
    *("httpx_sse", "rich.console", "rich.table", "typer", "logging.config"),
)
"""None of these starts a thread, nor looks at the environment for settings of a herd."""
OURS = (
    *("herder.accounts.grants", "herder.cli.app", "herder.cli.running", "herder.client.api"),
    *("herder.client.http.remote_herd", "herder.gateway.app", "herder.herd.hellos"),
    *("herder.local.local_herd", "herder.market.policy"),
    *("herder.service.app", "herder.service.loop", "herder.service.tasks", "herder.service.upkeep"),
    *("herder.webhooks.deliverer", "herder.webhooks.sending", "workers.agent.agent"),
    *("workers.engine.stub", "workers.settings", "workers.transport.event_sender"),
    *("workers.transport.guard", "workers.transport.launch", "workers.transport.monitoring"),
)
"""What the apps and the command load of ours; nothing of it reads the environment by then."""
ROOT = Path(__file__).parents[2]
COMMAND = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from herder.cli import main; main()"
)
"""Python ignores Ctrl-C where whoever started it did; the test must not depend on that."""
TYPED = (
    ("-m", "celery", "-A", "herder"),
    ("-m", "celery", "-A", "workers"),
    ("-c", "from herder.cli import main; main()"),
    ("-c", COMMAND),
    ("-m", "celery", "-A", "tests.chaos.herder_app"),
    ("-m", "celery", "-A", "tests.chaos.worker_app"),
)
"""How the programs begin that people type, and those that change methods of ours alone."""
MAX_BYTES = 2**17
"""A program's arguments and environment."""


class Process(Protocol):
    """What a test does with a process; `subprocess.Popen` is one."""

    pid: int
    returncode: int | Any

    def poll(self) -> int | None:
        """Its exit status; None while it runs."""

    def wait(self, timeout: float | None = None) -> int:
        """Its exit status, when it has ended."""

    def send_signal(self, sig: int) -> None:
        """Signal it."""

    def terminate(self) -> None:
        """SIGTERM."""

    def kill(self) -> None:
        """SIGKILL."""


def start(arguments: list[str], *, log: IO[bytes], env: dict[str, str], cwd: Path) -> Process:
    """Start Python with these arguments.

    Args:
        arguments: `-m`, a module and its words, or `-c`, a program and its words.
        log: where what it prints goes.
        env: its whole environment.
        cwd: the folder that it runs in.
    """
    with open(os.devnull, "rb") as nothing:
        streams = (nothing.fileno(), log.fileno(), log.fileno())
        return start_with(streams, arguments, env=env, cwd=cwd)


def start_with(
    streams: tuple[int, int, int],
    arguments: list[str],
    *,
    env: dict[str, str],
    cwd: Path,
    new_session: bool = False,
) -> Process:
    """Start Python with these arguments, reading and writing these files.

    Args:
        streams: its standard input, output and error, as open files.
        arguments: as `start`.
        env: as `start`.
        cwd: as `start`.
        new_session: whether it is the first process of a session.
    """
    # Python itself reads its settings when it starts.
    if _of_python(env) != _of_python(os.environ) or os.environ.get("TESTS_START_ANEW"):
        return subprocess.Popen(
            [sys.executable, *arguments],
            stdin=streams[0],
            stdout=streams[1],
            stderr=streams[2],
            env=env,
            cwd=cwd,
            start_new_session=new_session,
        )
    given = {"arguments": arguments, "env": env, "cwd": str(cwd), "session": new_session}
    asked = json.dumps(given).encode()
    assert len(asked) <= MAX_BYTES
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        server = _server(with_ours=_is_typed(arguments, env))
        socket.send_fds(server, [asked], [theirs.fileno(), *streams])
    return Forked(ours)


def _is_typed(arguments: list[str], env: Mapping[str, str]) -> bool:
    """Whether people type it, and it finds our modules where the tests have them."""
    typed = any(tuple(arguments[: len(words)]) == words for words in TYPED)
    return typed and env.get("PYTHONPATH") == str(ROOT)


def _of_python(env: Mapping[str, str]) -> dict[str, str]:
    own = ("PYTHON", "LANG", "LC_")
    names = {name for name in env if name.startswith(own)} - {"PYTHONPATH"}
    return {name: env[name] for name in names}


class Forked:
    """A process that the server forked, as `subprocess.Popen` shows one."""

    def __init__(self, told: socket.socket) -> None:
        self._told = told
        self._lock = threading.Lock()
        self.returncode: int | None = None
        self.pid = self._hear()

    def _hear(self) -> int:
        said = self._told.recv(64)
        assert said, "the server that forks processes is gone"
        return int(said)

    def poll(self) -> int | None:
        return self._await(0)

    def wait(self, timeout: float | None = None) -> int:
        status = self._await(timeout)
        if status is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
        return status

    def _await(self, timeout: float | None) -> int | None:
        with selectors.DefaultSelector() as selector:
            # Outside of the lock, so that others may ask while one waits.
            if self.returncode is None:
                selector.register(self._told, selectors.EVENT_READ)
                if not selector.select(timeout):
                    return None
        with self._lock:
            if self.returncode is None:
                self.returncode = self._hear()
                # Not closed: another thread may wait for it just now.
                self._told.shutdown(socket.SHUT_RDWR)
        return self.returncode

    def send_signal(self, sig: int) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, sig)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


@cache
def _server(*, with_ours: bool) -> socket.socket:
    """The line to one of this process's two servers, which ends with the line."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with theirs:
        server = subprocess.Popen(
            [sys.executable, __file__, str(theirs.fileno()), *(["ours"] if with_ours else [])],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            env=clean,
        )

    def end() -> None:
        ours.close()
        server.wait(timeout=60)

    atexit.register(end)
    return ours


# In the server


def serve(line: socket.socket) -> dict[str, Any] | None:
    """Fork for each that asks, and tell how each ended.

    Returns:
        In a forked process, what is asked of it; in the server None, when the line was closed.
    """
    running: dict[int, tuple[int, socket.socket]] = {}
    """By the file that tells of its end: a process, and who asks for it."""
    with selectors.DefaultSelector() as selector:
        selector.register(line, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is not line:
                    selector.unregister(key.fileobj)
                    pid, asker = running.pop(key.fd)
                    _, status = os.waitpid(pid, 0)
                    os.close(key.fd)
                    with asker, suppress(OSError):  # whoever asked may be gone
                        asker.send(str(os.waitstatus_to_exitcode(status)).encode())
                    continue
                asked, fds, _, _ = socket.recv_fds(line, MAX_BYTES, 4)
                if not asked:
                    return None
                asker = socket.socket(fileno=fds[0])
                pid = os.fork()
                if pid == 0:
                    for watched, (_, other) in running.items():
                        os.close(watched)
                        other.close()
                    asker.close()
                    line.close()
                    for number, stream in enumerate(fds[1:]):
                        os.dup2(stream, number)
                        os.close(stream)
                    given: dict[str, Any] = json.loads(asked)
                    return given
                for stream in fds[1:]:
                    os.close(stream)
                asker.send(str(pid).encode())
                watched = os.pidfd_open(pid)
                running[watched] = (pid, asker)
                selector.register(watched, selectors.EVENT_READ)


def become(asked: dict[str, Any]) -> None:
    """Be the program that is asked for, as Python would start it."""
    if asked["session"]:
        os.setsid()
    _open_streams()
    os.environ.clear()
    os.environ.update(asked["env"])
    os.chdir(asked["cwd"])
    how, what, *words = asked["arguments"]
    more = [path for path in asked["env"].get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.argv = [how, *words]
    sys.path[0:1] = [asked["cwd"] if how == "-m" else "", *more]
    if how == "-m":
        runpy.run_module(what, run_name="__main__", alter_sys=True)
        return
    assert how == "-c"
    main = types.ModuleType("__main__")
    sys.modules["__main__"] = main
    exec(compile(what, "<string>", "exec"), main.__dict__)


def _open_streams() -> None:
    """Open the standard streams anew: how they are buffered depends on what they are."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        before = getattr(sys, f"__{name}__")
        stream = open(  # noqa: SIM115
            before.fileno(),
            mode,
            encoding=before.encoding,
            errors=before.errors,
            buffering=1 if name == "stderr" else -1,
            closefd=False,
        )
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def run() -> NoReturn:
    """Load the libraries, and what else is asked for, and serve until the line is closed."""
    line = socket.socket(fileno=int(sys.argv[1]))
    with_ours = sys.argv[2:] == ["ours"]
    for name in LOADED:
        importlib.import_module(name)
    if with_ours:
        sys.path.insert(0, str(ROOT))
        for name in OURS:
            importlib.import_module(name)
        del sys.path[0]
    assert len(os.listdir("/proc/self/task")) == 1, "a thread does not survive a fork"
    ours = {name for name in sys.modules if name.split(".")[0] in {"herder", "ledger", "workers"}}
    assert with_ours or not ours
    assert not ours & {"herder.celery", "workers.celery", "workers.llama"}
    gc.freeze()
    asked = serve(line)
    if asked is not None:
        become(asked)
    sys.exit(0)


if __name__ == "__main__":
    run()
