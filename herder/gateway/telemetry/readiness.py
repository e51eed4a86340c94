"""Readiness: whether a herd would run an order that came in now, and if not, why."""

from __future__ import annotations

import structlog

from herder.clock import clock_us
from herder.errors import HerdError
from herder.local.local_herd import LocalHerd
from herder.store import herd as herd_sql
from herder.store import models as model_sql
from workers.transport.streams import Streams, connect

_log = structlog.get_logger("herder.gateway.telemetry.readiness")

OK = "ok"
SILENT_S = 10
"""Seconds without a sign of any herder, each of which gives one a second, after which none is
alive. The clocks of the machines may differ by as much."""
BROKER_S = 2
"""Seconds that RabbitMQ is given to let us in."""


def check(herd: LocalHerd) -> dict[str, str]:
    """Return what a herd needs to run an order: `ok` for each part, or what is wrong with it.

    Anybody may be shown this: it names no address and no error of a server's.

    Args:
        herd: the herd, over this program's connections.

    Returns:
        `database`, `redis`, `broker`, `herder` (one is alive, and hears workers), and `worker`
        (one of the default model was heard within a lease).
    """
    checks = {
        "database": OK,
        "redis": OK if herd.redis_answers() else "Redis does not answer.",
        "broker": OK,
        "herder": OK,
        "worker": OK,
    }
    if not _broker_answers(herd, checks["redis"] == OK):
        checks["broker"] = "Celery's broker does not answer."
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
    if not any(worker.seen_us >= since_us for worker in workers):
        checks["worker"] = f"No worker with {default} has been heard from lately."
    return checks


def _lately(at_us: int, now_us: int) -> bool:
    return abs(now_us - at_us) <= SILENT_S * 1_000_000


def _broker_answers(herd: LocalHerd, redis_answers: bool) -> bool:
    settings = herd.settings
    if settings.broker == settings.redis_url:
        return redis_answers
    if settings.broker_is_redis:
        client = connect(settings.broker)
        try:
            return Streams(client).answers()
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
        return False
    finally:
        connection.release()
    return True
