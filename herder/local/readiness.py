"""Readiness: whether a herd would run an order that came in now, and if not, why."""

from __future__ import annotations

from typing import Protocol

from herder.clock import clock_us
from herder.db.database import Database
from herder.errors import HerdError
from herder.settings import Settings
from herder.store import herd as herd_sql
from herder.store import models as model_sql
from workers.transport.event_log import EventLog
from workers.transport.streams import RedisState, Streams, connect

_log = EventLog("herder.local.readiness", lowered=True)

OK = "ok"
SILENT_S = 10
"""Seconds without a sign of any herder, each of which gives one a second, after which none is
alive. The clocks of the machines may differ by as much."""
BROKER_S = 2
"""Seconds that RabbitMQ is given to let us in."""

STATES: dict[RedisState, str] = {
    "ok": OK,
    "silent": "{} does not answer.",
    "full": "{} is full (maxmemory), and stores nothing more.",
    "read_only": "{} stores nothing: it is read-only, or cannot save.",
}
"""The sentence for each state of a Redis, which is named in it."""


class Looked(Protocol):
    """The parts of `herder.local.local_herd.LocalHerd` that are looked at."""

    settings: Settings
    database: Database

    def redis_state(self) -> RedisState:
        """Return whether Redis answers, and stores what it is given."""


def check(herd: Looked) -> dict[str, str]:
    """Return the parts that a herd needs to run an order, each with `ok` or its fault.

    Anybody may be shown this: it names no address and no error of a server's.

    Args:
        herd: the herd, over this program's connections.

    Returns:
        `database`, `redis`, `broker`, `herder` (one is alive, and hears workers), and `worker`
        (one of the default model was heard within a lease, and is reached by the broker).
    """
    redis = herd.redis_state()
    checks = {
        "database": OK,
        "redis": STATES[redis].format("Redis"),
        "broker": STATES[_broker_state(herd, redis)].format("Celery's broker"),
        "herder": OK,
        "worker": OK,
    }
    now_us = clock_us()
    try:
        with herd.database.read() as connection:
            _, default, _ = model_sql.read_policy(connection)
            heard = herd_sql.listening(connection)
            workers = herd_sql.workers_here(connection, default)
    except HerdError as error:
        _log.warning("not_ready", reason=error.message)
        return checks | {
            "database": "The database does not answer.",
            **dict.fromkeys(("herder", "worker"), "It is not known without the database."),
        }
    if not _lately(heard.marked_us, now_us):
        checks["herder"] = f"No herder has been heard from for {SILENT_S} s."
    elif checks["redis"] == OK and not _lately(heard.heard_us, now_us):
        checks["herder"] = (
            f"A herder is running, but has read nothing from the heartbeat stream for {SILENT_S} s."
        )
    since_us = now_us - herd.settings.lease_s * 1_000_000
    # Their state alone does not tell: where no herder listens, nobody notices that they are gone.
    heard_from = [worker for worker in workers if worker.seen_us >= since_us]
    if not heard_from:
        checks["worker"] = f"No worker with {default} has been heard from lately."
    elif not any(worker.reached for worker in heard_from):
        checks["worker"] = f"No message reaches any worker with {default} by Celery's broker."
    return checks


def _lately(at_us: int, now_us: int) -> bool:
    return abs(now_us - at_us) <= SILENT_S * 1_000_000


def _broker_state(herd: Looked, redis: RedisState) -> RedisState:
    settings = herd.settings
    if settings.broker == settings.redis_url:
        return redis
    if settings.broker_is_redis:
        client = connect(settings.broker)
        try:
            return Streams(client).state()
        finally:
            client.close()
    # Loading Celery takes a moment, and only those who have RabbitMQ need it for this.
    from herder.service.app import make_app

    connection = make_app(settings).connection_for_write(connect_timeout=BROKER_S)
    try:
        connection.ensure_connection(
            max_retries=1, interval_start=0, timeout=BROKER_S, reraise_as_library_errors=False
        )
    except (OSError, *connection.connection_errors, *connection.channel_errors) as error:
        _log.warning("broker_out_of_reach", reason=type(error).__name__)
        return "silent"
    finally:
        connection.release()
    return "ok"


def obstacle(herd: Looked) -> str | None:
    """Return the reason for which no order is run now, whatever workers there are, or None.

    Args:
        herd: the herd, over this program's connections.
    """
    checks = check(herd)
    wrong = [checks[part] for part in ("database", "redis", "broker", "herder")]
    return next((found for found in wrong if found != OK), None)
