"""A worker that did not claim what it was sent: is it to blame, and what follows."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection

from herder.domain.doubt import doubt_s
from herder.store import hellos as hello_sql
from herder.store import herd as herd_sql
from herder.store import lapses as lapse_sql
from workers.transport.event_log import EventLog

_log = EventLog("herder.orders.silent")


@dataclass(frozen=True, slots=True)
class SilentWorker:
    """A worker that did not claim what it was sent.

    Attributes:
        worker: as it stands; None where there is none that could be blamed.
        full: whether it had no slot for it.
        name: of the worker, blamed or not.
    """

    worker: herd_sql.Worker | None
    full: bool = False
    name: str | None = None

    @classmethod
    def look(cls, connection: Connection, instance: str) -> SilentWorker:
        """Look at a worker."""
        worker = herd_sql.get_worker(connection, instance)
        if worker is None:
            return cls(None)
        if worker.state != "alive":
            return cls(None, name=worker.name)
        claimed = lapse_sql.claimed(connection, instance)
        return cls(worker, claimed + worker.strays >= worker.slots, worker.name)

    def doubt(self, connection: Connection, heard_s: int) -> None:
        """Send it nothing more until a hello came back from it."""
        if self.worker is None:
            return
        next_heard_s = heard_s + doubt_s(self.worker.unclaimed)
        if hello_sql.doubt(connection, self.worker.instance, next_heard_s):
            _log.warning(
                "worker_doubted",
                worker=self.worker.name,
                instance=self.worker.instance,
                unclaimed=self.worker.unclaimed + 1,
            )
