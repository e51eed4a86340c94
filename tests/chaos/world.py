"""A herd whose processes die and come back, and clients that go on calling all the while."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count
from typing import Any

from herder.host import home
from herder.types import Receipt
from tests.chaos.clients import Client, Seen, await_end
from tests.chaos.kept import Kept
from tests.chaos.points import Points
from tests.support.running import RunningHerd

SETTINGS = {
    "HERD_CLAIM_S": "2",
    "HERD_LEASE_S": "3",
    "HERD_MAX_ATTEMPTS": "8",
    "HERD_SLOTS": "2",
    "HERD_STUB_STEP_MS": "20",
}


@dataclass
class World:
    """A herd, what keeps its processes alive, and its clients."""

    herd: RunningHerd
    seed: str
    kept: list[Kept] = field(default_factory=list)
    clients: list[Client] = field(default_factory=list)
    own: dict[str, Seen] = field(default_factory=dict)
    """Orders of the test's own, which are waited for and judged with the clients'."""
    _folders: Any = field(default_factory=lambda: count(1))

    def points(self, *places: str) -> Points:
        """Points at which processes of this herd are to die."""
        return Points(self.herd.folder / f"points{next(self._folders)}", places)

    def herder(self, name: str, points: Points | None = None) -> Kept:
        """Start a herder."""
        arguments = ["-A", "tests.chaos.herder_app", "worker", "-Q", "herder"]
        return self._keep(name, arguments, {}, points)

    def worker(self, name: str, points: Points | None = None) -> Kept:
        """Start a worker."""
        key = home.add_worker_key(self.herd.database, self.herd.settings, name)
        own = {"HERD_WORKER_KEY": str(key), "HERD_WORKER_NAME": name}
        arguments = ["-A", "tests.chaos.worker_app", "worker", "-Q", "inference"]
        return self._keep(name, arguments, own, points)

    def _keep(
        self, name: str, arguments: list[str], env: dict[str, str], points: Points | None
    ) -> Kept:
        self.kept.append(Kept(self.herd, name, arguments, env, points))
        return self.kept[-1]

    def client(self) -> Client:
        """Begin to call."""
        name = f"client{len(self.clients) + 1}"
        self.clients.append(Client(self.herd, name, f"{self.seed}-{name}"))
        self.clients[-1].start()
        return self.clients[-1]

    @property
    def seen(self) -> list[Seen]:
        """Every order that was accepted."""
        clients = (client.seen for client in self.clients)
        return [one for orders in (self.own, *clients) for one in orders.values()]

    def note(self, receipt: Receipt, acked_us: int) -> Seen:
        """An order of the test's own was acknowledged."""
        self.own[receipt.order] = Seen.of(receipt, acked_us)
        return self.own[receipt.order]

    def check(self) -> None:
        """Fail for what went wrong by now."""
        for client in self.clients:
            client.check()
        faults = [fault for one in self.kept for fault in one.faults]
        assert not faults, faults

    def settle_down(self) -> None:
        """No more calls and no more deaths: every order comes to its end."""
        for client in self.clients:
            client.stop()
        for client in self.clients:
            client.finish()
        for one in self.own.values():
            await_end(self.herd, one)
        self.check()

    def close(self) -> None:
        """End all processes: from here on nothing changes."""
        for one in self.kept:
            one.close()
