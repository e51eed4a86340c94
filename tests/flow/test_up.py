"""`herd up` as people run it: Redis, herder and workers, on the deterministic model."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import openai
import pytest

import herder
from herder.client.api import connect
from herder.host.bundled import new_redis, redis_config, redis_server

LIMIT_S = 120
HERD = [sys.executable, "-c", "from herder.cli import main; main()"]


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def eventually(condition: Callable[[], object]) -> None:
    until = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < until, f"waited too long for {condition}"
        time.sleep(0.05)


class Up:
    """A running `herd up --json`."""

    def __init__(self, home: Path, *args: str, **env: str) -> None:
        self.home = home
        self.log = home.parent / f"up-{uuid4().hex[:8]}.log"
        clean = {name: value for name, value in os.environ.items() if not name.startswith("HERD_")}
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*HERD, "up", "--json", *args],
                env={**clean, "HERD_HOME": str(home), "HERD_ENGINE": "stub", **env},
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def ready(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"it ended early:\n{self.log.read_text()}"
        document: dict[str, Any] = json.loads(line)
        return document

    def count(self, part: str) -> int:
        return self.log.read_text().count(part)

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(LIMIT_S)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Up]]:
    begun: list[Up] = []

    def start(*args: str, **env: str) -> Up:
        up = Up(tmp_path / "home", *args, **env)
        begun.append(up)
        return up

    yield start
    for up in begun:
        if up.process.poll() is None:
            up.process.kill()  # its children go with it
        up.process.communicate()


@pytest.fixture
def use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The client library of this process belongs to the herd of this test."""
    for name in [name for name in os.environ if name.startswith("HERD_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HERD_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("herder.client.api._connected", None)
    yield
    connect().close()


@pytest.mark.usefixtures("use")
def test_a_herd_stays_up_until_it_is_told_to_stop(start: Callable[..., Up]) -> None:
    up = start("--workers", "2", HERD_SLOTS="1", HERD_STUB_STEP_MS="50")
    ready = up.ready()
    assert ready["workers"] == ["worker-1", "worker-2"]
    assert ready["slots"] == 2
    pids = ready["processes"]
    assert set(pids) == {"redis", "herder", "worker-1", "worker-2"}
    assert herder.info().model.workers == 2

    # Orders are served by both workers.
    connect().accounts.deposit("default", 10_000, str(uuid4()))
    orders = [herder.submit("What is the meaning of life?", 20) for _ in range(6)]
    receipts = [order.result(timeout=LIMIT_S).receipt for order in orders]
    assert {receipt.worker for receipt in receipts} == {"worker-1", "worker-2"}
    assert all(receipt.charged + receipt.returned == receipt.fee for receipt in receipts)

    # A worker that dies comes back, and serves again.
    os.kill(pids["worker-1"], signal.SIGKILL)
    eventually(lambda: up.count("worker-1 started") == 2)
    eventually(lambda: up.count("worker=worker-1") >= 2)  # the herder saw it join a second time
    orders = [herder.submit("Are you back?", 10) for _ in range(4)]
    for order in orders:
        assert order.result(timeout=LIMIT_S).receipt.charged > 0
    assert connect().accounts.audit().clean

    children = [int(line.split()[-1]) for line in up.log.read_text().splitlines() if _starts(line)]
    assert len(children) == 5
    assert up.end() == 0
    assert all(map(is_gone, children))
    told = [line.split("| ")[1] for line in up.log.read_text().splitlines() if " ended, " in line]
    assert told[-2:] == ["herder ended, exit code 0", "redis ended, exit code 0"]


def _starts(line: str) -> bool:
    return " herd " in line and " started, process " in line


@pytest.mark.usefixtures("use")
def test_the_redis_of_a_home_is_private_and_stays_the_same(
    start: Callable[..., Up], tmp_path: Path
) -> None:
    home = tmp_path / "home"
    up = start()
    pids = up.ready()["processes"]
    config = (home / "redis.conf").read_text()
    settings = (home / "herd.env").read_text()
    password = next(line.split()[1] for line in config.splitlines() if line[:11] == "requirepass")
    assert f"redis://:{password}@127.0.0.1:" in settings
    for name in ("redis.conf", "herd.env", "herder.jwk", "workers/worker-1.json"):
        assert stat.S_IMODE((home / name).stat().st_mode) == 0o600
    for pid in [up.process.pid, *pids.values()]:
        assert password not in Path(f"/proc/{pid}/cmdline").read_text()
    assert password not in up.log.read_text()

    # Another `herd up` in this home says so in one line, and disturbs nothing.
    other = start()
    assert other.process.wait(LIMIT_S) == 2
    assert other.log.read_text() == (
        f"A herd is already running in {home} (process {up.process.pid}); stop it, or set "
        f"HERD_HOME to another folder.\n"
    )

    # Killed without a chance to stop anything, it leaves nothing that would be in the way.
    up.process.kill()
    for pid in pids.values():
        eventually(lambda pid=pid: is_gone(pid))
    again = start()
    again.ready()
    assert (home / "redis.conf").read_text() == config
    assert (home / "herd.env").read_text() == settings
    connect().accounts.deposit("default", 1000, str(uuid4()))
    assert herder.submit("Who is there?", 8).result(timeout=LIMIT_S).receipt.worker == "worker-1"
    assert again.end(signal.SIGINT) == 0


@pytest.mark.usefixtures("use")
def test_a_further_worker_joins_with_what_is_printed(start: Callable[..., Up]) -> None:
    up = start(HERD_MODEL="stub")
    join = up.ready()["join"]
    program, *arguments = join["command"].split()
    assert program == "celery"
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HERD_")}
    further = subprocess.Popen(
        [sys.executable, "-m", "celery", *arguments],
        env={**clean, **join["environment"]},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        eventually(lambda: herder.info().model.workers == 2)
    finally:
        further.kill()
        further.wait()
    assert up.end() == 0


def bought(ready: dict[str, Any], *, key: str | None = None) -> Any:
    """A completion, by what was printed to be pasted."""
    env = ready["gateway"]["environment"]
    with openai.OpenAI(
        base_url=env["OPENAI_BASE_URL"], api_key=key or env["OPENAI_API_KEY"], max_retries=0
    ) as client:
        return client.chat.completions.create(
            model=ready["model"], messages=[{"role": "user", "content": "Hi"}], max_tokens=8
        )


@pytest.mark.usefixtures("use")
def test_a_herd_with_a_gateway_sells_at_once(start: Callable[..., Up], tmp_path: Path) -> None:
    up = start("--gateway", HERD_MODEL="stub", HERD_GATEWAY_PORT="0")
    ready = up.ready()
    assert set(ready["processes"]) == {"redis", "herder", "worker-1", "gateway"}
    assert (ready["account"], ready["available"]) == ("default", 100_000)
    assert ready["gateway"]["deposited"] == 100_000
    env = ready["gateway"]["environment"]
    assert env["OPENAI_BASE_URL"] == f"{env['HERD_URL']}/v1" == f"{ready['gateway']['url']}/v1"
    answer = bought(ready)
    assert answer.usage.completion_tokens == 8
    with herder.Client(env["HERD_URL"], env["HERD_API_KEY"]) as client:
        assert client.submit("Hi", 5).result(timeout=LIMIT_S).receipt.account == "default"

    # One that dies comes back where it was.
    os.kill(ready["processes"]["gateway"], signal.SIGKILL)
    eventually(lambda: up.count("gateway started") == 2)
    eventually(lambda: up.count("The gateway listens on") == 2)
    assert bought(ready).usage.completion_tokens == 8
    left = connect().balance("default").available
    assert left < 100_000

    children = [int(line.split()[-1]) for line in up.log.read_text().splitlines() if _starts(line)]
    assert up.end(signal.SIGINT) == 0
    assert all(map(is_gone, children))
    key = env["OPENAI_API_KEY"]
    kept = [path for path in (tmp_path / "home").rglob("*") if path.is_file()]
    assert not [path for path in (*kept, up.log) if key.encode() in path.read_bytes()]

    # The next time the money is what is left of it, and the key of before opens it too.
    again = start("--gateway", HERD_MODEL="stub", HERD_GATEWAY_PORT="0")
    ready = again.ready()
    assert (ready["available"], ready["gateway"]["deposited"]) == (left, 0)
    assert ready["gateway"]["environment"]["OPENAI_API_KEY"] != key
    assert bought(ready, key=key).usage.completion_tokens == 8
    assert connect().accounts.audit().clean
    assert again.end(signal.SIGINT) == 0


def test_a_gateway_whose_port_is_taken_is_one_line(start: Callable[..., Up]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        up = start("--gateway", HERD_GATEWAY_PORT=str(taken.getsockname()[1]))
        assert up.process.wait(LIMIT_S) == 2
    (line,) = up.log.read_text().splitlines()
    assert "HERD_GATEWAY_PORT chooses another port" in line


@pytest.mark.usefixtures("use")
def test_a_herd_survives_its_redis(start: Callable[..., Up]) -> None:
    up = start()
    pids = up.ready()["processes"]
    connect().accounts.deposit("default", 1000, str(uuid4()))
    assert herder.submit("Before.", 8).result(timeout=LIMIT_S).receipt.charged > 0
    os.kill(pids["redis"], signal.SIGKILL)
    eventually(lambda: up.count("redis started") == 2)
    assert herder.submit("After.", 8).result(timeout=LIMIT_S).receipt.charged > 0
    assert up.end() == 0


@pytest.mark.usefixtures("use")
def test_a_redis_that_is_given_is_used_and_left_alone(
    start: Callable[..., Up], tmp_path: Path
) -> None:
    given = new_redis(tmp_path)
    given.config.write_text(redis_config(given))
    with subprocess.Popen([redis_server(), given.config], stdout=subprocess.DEVNULL) as server:
        try:
            eventually(given.answers)
            up = start(HERD_REDIS_URL=given.url)
            assert set(up.ready()["processes"]) == {"herder", "worker-1"}
            connect().accounts.deposit("default", 1000, str(uuid4()))
            assert herder.submit("Hello.", 8).result(timeout=LIMIT_S).receipt.charged > 0
            assert up.end() == 0
            assert given.answers()
        finally:
            server.terminate()


def test_a_redis_that_does_not_answer_is_one_line(start: Callable[..., Up]) -> None:
    up = start(HERD_REDIS_URL="redis://:secret@127.0.0.1:1/0")
    assert up.process.wait(LIMIT_S) == 2
    (line,) = up.log.read_text().splitlines()
    assert line.startswith("The Redis that HERD_REDIS_URL names does not answer (ConnectionError)")
    assert "secret" not in line


def test_wrong_settings_of_the_workers_end_it(start: Callable[..., Up], tmp_path: Path) -> None:
    up = start("--workers", "2", HERD_SLOTS="many")
    assert up.process.wait(LIMIT_S) == 78
    assert up.log.read_text().splitlines()[-1].startswith("The herd is down: worker-")
    assert "The setting HERD_SLOTS must be a whole number" in up.log.read_text().splitlines()[-1]


@pytest.mark.parametrize("workers", ["0", "-1", "257"])
def test_a_count_of_workers_that_makes_no_sense_is_refused(
    start: Callable[..., Up], workers: str
) -> None:
    up = start("--workers", workers)
    assert up.process.wait(LIMIT_S) == 2
    assert len(up.log.read_text().splitlines()) == 1
