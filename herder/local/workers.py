"""Instructions of operators to workers: to leave, or that they are believed no more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from redis import RedisError
from sqlalchemy import Connection

from herder.db.database import Database
from herder.errors import HerdUnavailable, WorkerNotFound
from herder.herd.trusted_keys import REVOKED
from herder.store import herd as herd_sql
from herder.store.herd import Worker
from workers.transport.event_log import EventLog
from workers.transport.reasons import redis_sentence
from workers.transport.streams import Streams
from workers.wire import Body, Drain, PrivateKey, Reject, control_stream, seal

_log = EventLog("herder.local.workers", lowered=True)


@dataclass(frozen=True, slots=True)
class Revocation:
    """A worker that is believed no more.

    Attributes:
        keys: the ids of its keys that were revoked here.
        instances: those of its processes that were still here.
        running: orders that they ran; each waits again once its lease has run out.
    """

    keys: list[str]
    instances: list[str]
    running: int


class WorkerControl:
    """Speaks to workers for an operator.

    Args:
        database: where workers and their keys stand.
        streams: carries what they are told.
        key: the herder's, which signs it.
        clock_us: the time, in microseconds since the epoch.
    """

    def __init__(
        self, database: Database, streams: Streams, key: PrivateKey, *, clock_us: Callable[[], int]
    ) -> None:
        self._database = database
        self._streams = streams
        self._key = key
        self._clock_us = clock_us

    def drain(self, name: str) -> list[str]:
        """Have every worker of a name take no more, finish or hand back, and end.

        Returns:
            Their instances.

        Raises:
            WorkerNotFound: none of that name is here.
            HerdUnavailable: Redis, over which they are told, is out of reach.
        """
        with self._database.read() as connection:
            here = herd_sql.workers_here(connection)
        told = [one.instance for one in here if one.name == name]
        if not told:
            raise WorkerNotFound(name, sorted({one.name for one in here}))
        try:
            self._tell(told, Drain())
        except RedisError as error:
            raise HerdUnavailable(redis_sentence(error)) from error
        return told

    def revoke(self, name: str) -> Revocation:
        """Believe a worker no more, at once and for good.

        No outcome of its counts from now on, and it is told to end. What it runs is dispatched
        again once its lease has run out, and the run that answers then is what is charged.

        Args:
            name: the one under which its key was made, the key's id, or the one that the worker
                announces. Of several keys all are revoked.

        Raises:
            WorkerNotFound: no key that is believed has that name.
        """
        seen: Revocation | None = None

        def step(connection: Connection) -> Revocation:
            nonlocal seen
            workers = herd_sql.workers_here(connection)
            keys = _keys_of(connection, name, workers)
            if not keys:
                if seen is not None:
                    return seen  # it was committed, and nobody heard of it
                raise WorkerNotFound(name, herd_sql.key_owners(connection, herd_sql.WORKER))
            now_us = self._clock_us()
            for kid in keys:
                herd_sql.revoke_key(connection, kid, now_us)
            theirs = [one for one in workers if one.kid in keys]
            for one in theirs:  # nothing more is sent out to fill its slots
                herd_sql.set_worker_state(connection, one.instance, "gone")
            running = sum(one.out for one in theirs)
            seen = Revocation(keys, [one.instance for one in theirs], running)
            return seen

        revoked = self._database.settle(step)
        try:
            self._tell(revoked.instances, Reject(reason=REVOKED))
        except RedisError as error:
            # Each is told again when it beats, and believed in nothing meanwhile.
            _log.warning("revocation_not_told", worker=name, reason=type(error).__name__)
        return revoked

    def _tell(self, instances: Sequence[str], body: Body) -> None:
        def sealed(instance: str) -> str:
            audience = control_stream(instance)
            return seal(body, self._key, sender="herder", audience=audience)

        self._streams.add_controls([(one, sealed(one)) for one in instances])


def _keys_of(connection: Connection, name: str, workers: Sequence[Worker]) -> list[str]:
    """Return the ids of the keys that a name stands for, of those that are believed."""
    named = herd_sql.kids_of(connection, herd_sql.WORKER, name)
    if named:
        return named
    live = herd_sql.live_kids(connection, herd_sql.WORKER)
    return sorted({one.kid for one in workers if one.name == name and one.kid in live})
