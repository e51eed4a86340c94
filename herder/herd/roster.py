"""The workers of a herd, for operators and clients."""

from __future__ import annotations

from herder.clock import clock_us
from herder.db.database import Database
from herder.store import herd as herd_sql
from herder.store.herd import Worker


def list_workers(database: Database, *, all_of_them: bool = False) -> list[Worker]:
    """Return the workers that beat; or every instance that ever announced itself."""
    with database.read() as connection:
        if all_of_them:
            return herd_sql.all_workers(connection)
        return herd_sql.workers_here(connection)


def serving(database: Database, model: str, lease_s: int) -> bool:
    """Return whether a worker of this model was heard within a lease, and is sent orders.

    Their state alone does not tell: where no herder listens, nobody notices that they are gone.
    """
    since_us = clock_us() - lease_s * 1_000_000
    with database.read() as connection:
        here = herd_sql.workers_here(connection, model)
        return any(one.seen_us >= since_us and one.reached for one in here)


def why_unreached(worker: Worker) -> str | None:
    """Return the reason why a worker that beats is sent no orders; None where it is sent some."""
    if worker.shown_state != "unreached":
        return None
    if worker.unclaimed:
        times = "an order" if worker.unclaimed == 1 else f"{worker.unclaimed} orders in a row"
        said = f"{worker.name} did not claim {times} that it was sent"
    else:
        said = f"No message has reached {worker.name} by Celery's broker since it joined"
    return (
        f"{said}: it gets none until one has. Its log says why, or its HERD_BROKER_URL is not the "
        "herders', or it is a worker of an earlier version."
    )
