"""A herd whose processes die and come back, and clients that go on calling all the while."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from support.running import RunningHerd
from support.wait import wait_for

from herder import home
from tests.chaos.clients import LIMIT_S, Client, Seen
from tests.chaos.kept import Kept

SETTINGS = {
    "HERD_CLAIM_S": "2",
    "HERD_LEASE_S": "3",
    "HERD_MAX_ATTEMPTS": "8",
    "HERD_SLOTS": "2",
    "HERD_STUB_STEP_MS": "20",
}

KILL_EACH_S = 6.0


@dataclass
class World:
    """A herd, what keeps its processes alive, and its clients."""

    herd: RunningHerd
    seed: str
    kept: list[Kept] = field(default_factory=list)
    clients: list[Client] = field(default_factory=list)

    def herder(self, name: str, points: Sequence[str] = (), **env: str) -> Kept:
        """Start a herder."""
        arguments = ["-A", "tests.chaos.herder_app", "worker", "-Q", "herder"]
        self.kept.append(Kept(self.herd, name, arguments, env, points))
        return self.kept[-1]

    def worker(self, name: str, points: Sequence[str] = (), **env: str) -> Kept:
        """Start a worker."""
        key = home.add_worker_key(self.herd.database, self.herd.settings, name)
        own = {"HERD_WORKER_KEY": str(key), "HERD_WORKER_NAME": name, **env}
        arguments = ["-A", "tests.chaos.worker_app", "worker", "-Q", "inference"]
        self.kept.append(Kept(self.herd, name, arguments, own, points))
        return self.kept[-1]

    def client(self, **options: Any) -> Client:
        """Begin to call."""
        name = f"client{len(self.clients) + 1}"
        self.clients.append(Client(self.herd, name, f"{self.seed}-{name}", **options))
        self.clients[-1].start()
        return self.clients[-1]

    @property
    def seen(self) -> list[Seen]:
        """Every order that was accepted."""
        return [one for client in self.clients for one in client.seen.values()]

    def all_points_reached(self, victim: Kept) -> None:
        """Wait until each process has died where it was to.

        Attempts only lapse when their worker is lost: one is killed for those that wait for that.
        """
        last_s = 0.0

        def all_reached() -> bool:
            nonlocal last_s
            for client in self.clients:
                if client.error is not None:
                    raise client.error
            points = [one.point for one in self.kept if one.point is not None]
            waits = any(point.startswith("lapse") for point in points)
            if waits and time.monotonic() > last_s + KILL_EACH_S:
                last_s = time.monotonic()
                victim.send(signal.SIGKILL)
            return not points

        try:
            wait_for(all_reached, "each point is reached", LIMIT_S)
        except AssertionError:
            left = {one.name: one.point for one in self.kept if one.point is not None}
            raise AssertionError(f"never reached: {left}") from None

    def settle_down(self) -> None:
        """No more calls and no more deaths: every order comes to its end."""
        for client in self.clients:
            client.finish()
        faults = [fault for one in self.kept for fault in one.faults]
        assert not faults, faults

    def close(self) -> None:
        """Keep nothing alive any longer."""
        for one in self.kept:
            one.close()
