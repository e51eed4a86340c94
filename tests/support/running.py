"""A herd of real processes: a herder and workers with the deterministic model, as people run them.

What a person types, a test starts: `celery -A herder worker -Q herder` and `celery -A workers
worker -Q inference`, with settings in the environment.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

from herder.accounts.accounts import open_ledger
from herder.client import Order
from herder.db.database import Database
from herder.host import home
from herder.local.local_herd import LocalHerd
from herder.settings import InitialPolicy, load_settings
from herder.store import herd as herd_sql
from herder.web.serving import join_address
from tests.support import skewed, telling
from tests.support.fork_server import start
from tests.support.house import MODEL, check_money
from tests.support.redis_server import RedisServer
from tests.support.sqlite_file import prepare
from tests.support.wait import wait_for

QUICK = {
    "HERD_BEAT_S": "1",
    "HERD_RESEND_S": "1",
    "HERD_LEASE_S": "4",
    "HERD_CLAIM_S": "4",
    "HERD_GRACE_S": "4",
    "HERD_GATEWAY_GRACE_S": "1",
}
"""Times that let a test see a worker lost within seconds."""


UNCOUNTED = {
    "HERD_REQUESTS_PER_MINUTE_PER_KEY": "0",
    "HERD_REQUESTS_PER_MINUTE_PER_ADDRESS": "0",
    "HERD_UNAUTHORIZED_PER_MINUTE": "0",
}
"""Of a gateway that a test calls by the thousand: each call is to be answered for what it asks."""

WORKER = ("-A", "workers", "worker", "-Q", "inference")
"""A worker, as Celery's arguments."""

HERD = ("-c", "from herder.cli import main; main()")
"""The `herd` command, as Python's arguments."""


class Child:
    """A process of the herd, and its log."""

    def __init__(
        self,
        name: str,
        arguments: list[str],
        env: dict[str, str],
        folder: Path,
        program: tuple[str, ...] = ("-m", "celery"),
    ) -> None:
        self.name = name
        self.log_path = folder / f"{name}.log"
        with self.log_path.open("ab") as log:
            self.process = start([*program, *arguments], log=log, env=env, cwd=folder)

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def says(self, words: str) -> None:
        """Wait until it has logged these words."""

        def said() -> bool:
            if words in self.log:
                return True
            assert self.alive, f"{self.name} ended with {self.process.poll()}:\n{self.log}"
            return False

        wait_for(said, f"{self.name} logs {words!r}")

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.ended()

    def ended(self) -> int:
        """Wait for its end; its exit code."""
        return self.process.wait(timeout=60)


class RunningHerd:
    """A home folder, a Redis, and the processes that a test starts."""

    def __init__(self, folder: Path, redis_server: RedisServer, **settings: str) -> None:
        self.folder = folder
        self.redis = redis_server
        self.env = {
            **{name: value for name, value in os.environ.items() if not name.startswith("HERD_")},
            **QUICK,
            "HERD_HOME": str(folder),
            "HERD_REDIS_URL": redis_server.url,
            "HERD_ENGINE": "stub",
            "HERD_MODEL": MODEL,
            "HERD_SLOTS": "2",
            "PYTHONPATH": str(Path(__file__).parents[2]),
            **settings,
        }
        self.settings = load_settings(
            folder,
            redis_url=redis_server.url,
            lease_s=int(self.env["HERD_LEASE_S"]),
            claim_s=int(self.env["HERD_CLAIM_S"]),
            broker_url=self.env.get("HERD_BROKER_URL", ""),
            database_url=self.env.get("HERD_DATABASE_URL", ""),
        )
        prepare(self.settings.database)
        home.init(self.settings, InitialPolicy(model=MODEL), deposit=1_000_000)
        self.database = Database(self.settings.database)
        self.client = LocalHerd(self.settings)
        self.children: list[Child] = []
        self._lock = threading.Lock()
        self._count = 0

    # Processes

    def start(
        self,
        name: str,
        arguments: list[str],
        program: tuple[str, ...] = ("-m", "celery"),
        **env: str,
    ) -> Child:
        if skewed.AHEAD in env:
            program = skewed.PROGRAM
        elif telling.ALL in env:
            program = telling.PROGRAM
        child = Child(name, arguments, {**self.env, **env}, self.folder, program)
        with self._lock:
            self.children.append(child)
        return child

    def begin_herder(self, **env: str) -> Child:
        """A herder that begins to start."""
        self._count += 1
        arguments = ["-A", "herder", "worker", "-Q", "herder"]
        return self.start(f"herder{self._count}", arguments, **env)

    def start_herder(self, **env: str) -> Child:
        """A herder, ready."""
        child = self.begin_herder(**env)
        child.says("herder_ready")
        return child

    def start_gateway(self, port: int = 0, **env: str) -> tuple[Child, str]:
        """A gateway that listens, and its address."""
        self._count += 1
        arguments = ["gateway", "--port", str(port)]
        child = self.start(f"gateway{self._count}", arguments, HERD, **env)
        child.says("gateway_ready")
        (found,) = re.findall(r"gateway_ready +host=(\S+) port=(\d+)", child.log)
        return child, f"http://{join_address(found[0], int(found[1]))}"

    def begin_worker(self, command: tuple[str, ...] = WORKER, **env: str) -> Child:
        """A worker that begins to start."""
        self._count += 1
        name = f"worker{self._count}"
        key = home.add_worker_key(self.database, self.settings, name)
        own = {"HERD_WORKER_KEY": str(key), "HERD_WORKER_NAME": name, **env}
        return self.start(name, list(command), **own)

    def start_worker(self, **env: str) -> Child:
        """A worker that a herder knows, and that is sent orders."""
        child = self.begin_worker(**env)
        wait_for(lambda: self.worker_state(child) == "alive", f"{child.name} joins")
        return child

    def worker_state(self, child: Child) -> str | None:
        assert child.alive, f"{child.name} ended with {child.process.poll()}:\n{child.log}"
        return self.known_state(child.name)

    def known_state(self, name: str) -> str | None:
        """How the herder sees a worker; None if it does not know it."""
        with self.database.read() as connection:
            known = herd_sql.all_workers(connection)
            states = [one.shown_state for one in known if one.name == name]
        return states[-1] if states else None

    # Orders

    def submit(self, prompt: str = "What is it?", tokens: int = 10, **call: Any) -> Order:
        """As `herder.submit`, for this herd."""
        return Order(self.client, self.client.submit(prompt, tokens, **call))

    def running(self, order: Order, worker: Child | None = None) -> Any:
        """Wait until a worker has it."""

        def begun() -> Any:
            receipt = order.receipt()
            fits = worker is None or receipt.worker == worker.name
            return receipt if receipt.state == "running" and fits else None

        return wait_for(begun, f"{order.id} runs")

    def working(self, orders: list[Order]) -> None:
        """Wait until one of them runs.

        The first of several may have ended by the time that a slow test has submitted the last.
        """
        wait_for(lambda: any(one.status() == "running" for one in orders), "one of them runs")

    @property
    def logs(self) -> str:
        return "\n".join(child.log for child in self.children)

    def check(self) -> None:
        """The books balance, and orders and holds tell the same story."""
        check_money(self.database, open_ledger())

    def close(self) -> None:
        """Stop what was started, whatever became of it."""
        for child in self.children:
            if child.alive:
                child.process.terminate()
        for child in self.children:
            try:
                child.process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                child.kill()
        self.client.close()
        self.database.close()
