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
    """Return whether a worker of this model was heard within a lease.

    Their state alone does not tell: where no herder listens, nobody notices that they are gone.
    """
    since_us = clock_us() - lease_s * 1_000_000
    with database.read() as connection:
        return any(one.seen_us >= since_us for one in herd_sql.workers_here(connection, model))
