"""The Celery app of `celery -A herder worker -Q herder`: a herder, with its periodic work inside.

Any number of them may run on one database; no beat process is needed.
"""

from __future__ import annotations

import os
import secrets
import time
from dataclasses import dataclass
from typing import Any

import structlog
from celery import signals

from herder.accounts.accounts import open_ledger
from herder.accounts.grants import Grants
from herder.clock import clock_us
from herder.db.database import Database
from herder.errors import HerdError, HerdUnavailable
from herder.herd.heartbeats import HeartbeatProcessor
from herder.herd.hellos import Greeter
from herder.herd.herder_key import load_herder_key
from herder.herd.trusted_keys import TrustedKeys
from herder.market.policy import set_herd_model
from herder.orders.cancellation import Cancellation
from herder.orders.dispatch import Dispatcher
from herder.orders.settlement import Settlement
from herder.service.app import CONNECTIONS, make_app
from herder.service.loop import Service
from herder.service.tasks import make_guard, register
from herder.service.upkeep import make_upkeep
from herder.settings import Settings, load_settings
from herder.store import models as model_sql
from herder.webhooks.deliverer import Deliverer, DeliveryLimits
from herder.webhooks.sending import HttpSender
from herder.webhooks.signing import Sealer
from workers.transport.event_sender import EventSender
from workers.transport.guard import TaskPool
from workers.transport.launch import launched
from workers.transport.options import HERDER
from workers.transport.private_files import open_mode
from workers.transport.sender import CelerySender
from workers.transport.streams import open_streams

_log = structlog.get_logger("herder")

LOOK_AGAIN_S = 1.0
"""The pause between looks for a database that is not up yet."""


def make_service(
    settings: Settings,
    database: Database,
    publisher: CelerySender,
    deliverer: Deliverer,
    events: EventSender,
) -> Service:
    """Wire a herder's parts together."""
    key = load_herder_key(settings)
    books = open_ledger()
    streams = open_streams(settings.redis_url)
    upkeep = make_upkeep(
        database,
        Grants(database, books, clock_us=clock_us),
        deliverer,
        keep_text_days=settings.keep_text_days,
        clock_us=clock_us,
        model=settings.model,
    )
    return Service(
        database=database,
        settlement=Settlement(
            database, books, settings, streams, clock_us=clock_us, on_lost=events.put
        ),
        cancellation=Cancellation(database, books, settings, streams, clock_us=clock_us),
        dispatcher=Dispatcher(database, books, settings, key, publisher, clock_us=clock_us),
        herd=HeartbeatProcessor(database, settings, clock_us=clock_us),
        streams=streams,
        key=key,
        keys=TrustedKeys(database),
        name=f"h-{secrets.token_hex(4)}",
        clock_us=clock_us,
        upkeep=[Greeter(database, key, publisher, clock_us=clock_us).duty, *upkeep],
    )


def make_deliverer(settings: Settings, database: Database) -> Deliverer:
    """Return the sender of this herder's share of the webhooks."""
    limits = DeliveryLimits(
        at_once=settings.webhook_at_once,
        each=max(1, settings.webhook_at_once // 2),
        timeout_s=settings.webhook_timeout_s,
        retries_s=settings.webhook_retries_s,
        keep_s=settings.webhook_keep_days * 86_400,
    )
    return Deliverer(
        database,
        Sealer(load_herder_key(settings)),
        HttpSender(settings.webhook_rules, timeout_s=limits.timeout_s),
        limits,
        clock_us=clock_us,
    )


def _name_model(database: Database) -> None:
    """Make the model that this herder was given the herd's."""
    if settings.model:
        before = set_herd_model(database, settings.model)
        if before != settings.model:
            _log.warning("herd_model_changed", model=settings.model, before=before)


def _await(database: Database) -> None:
    """Come back when the database answers, and takes what this herder has to write at its start.

    It may start after its herders, be a standby for a while, or have no room.

    Raises:
        SetupError: it answers, and cannot be used as it is.
    """
    told = False
    while True:
        try:
            with database.read() as connection:
                model_sql.read_policy(connection)
            _name_model(database)
        except HerdUnavailable as error:
            if not told:
                _log.warning("database_awaited", reason=error.message)
                told = True
            time.sleep(LOOK_AGAIN_S)
        else:
            if told:
                _log.info("database_found")
            return


@dataclass
class _Process:
    """The state of this process once it is a herder."""

    database: Database
    keys: TrustedKeys
    service: Service
    deliverer: Deliverer
    sender: CelerySender
    events: EventSender


launch = launched(HERDER)
try:
    settings = load_settings()
except HerdError as _error:
    launch.die(str(_error))
launch.check(settings.broker)

app = make_app(settings)
_process: _Process | None = None


def _keys() -> TrustedKeys:
    assert _process is not None, "no message is read before the herder is ready"
    return _process.keys


app.herd_guard = make_guard(_keys)
register(app, lambda: _process.service if _process else None)


@signals.setup_logging.connect(weak=False)  # type: ignore[untyped-decorator]
def _on_logging(**_: Any) -> None:
    launch.log(settings.log_level)


@signals.celeryd_init.connect(weak=False)  # type: ignore[untyped-decorator]
def _on_celeryd_init(instance: Any, **_: Any) -> None:
    if not launch.name:
        instance.hostname = f"herder-{os.getpid()}@{instance.hostname.partition('@')[2]}"
    elif "@" not in launch.name:
        instance.hostname = f"{launch.name}@herd"


@signals.worker_init.connect(weak=False)  # type: ignore[untyped-decorator]
@launch.setting_up()
def _on_worker_init(sender: Any, **_: Any) -> None:
    """Open the database and read the key, before the first message."""
    global _process
    launch.log(settings.log_level)  # Celery sets up logging only after this
    sender.pool_cls = TaskPool  # of pools, `-P threads` means ours
    try:
        database = Database(settings.database, settings.lease_s, CONNECTIONS)
        _await(database)
        sender = CelerySender(app)
        deliverer = make_deliverer(settings, database)
        events = EventSender(app, enabled=settings.events)
        service = make_service(settings, database, sender, deliverer, events)
        _process = _Process(database, TrustedKeys(database), service, deliverer, sender, events)
    except HerdError as error:
        launch.die(str(error))


@signals.worker_ready.connect(weak=False)  # type: ignore[untyped-decorator]
@launch.setting_up()
def _on_worker_ready(**_: Any) -> None:
    if _process is not None:
        _process.events.start()
        _process.service.start()
        _process.deliverer.start(_process.service.tally.failed)
        if (mode := open_mode(settings.home)) is not None:
            _log.warning("home_open_to_others", home=str(settings.home), mode=mode)
        _log.info("herder_ready", home=str(settings.home))


@signals.worker_shutdown.connect(weak=False)  # type: ignore[untyped-decorator]
def _on_shutdown(**_: Any) -> None:
    if _process is not None:
        _process.service.stop()
        _process.deliverer.stop()
        _process.sender.close()
        _process.events.stop()
        _process.database.close()
