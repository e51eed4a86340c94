"""The herder's Celery app, for who runs a herder and for who only sends to one."""

from __future__ import annotations

from herder.settings import Settings
from workers.transport.app import HerdApp
from workers.transport.config import celery_config
from workers.wire import HERDER_QUEUE

HANDOVER_THREADS = 2
"""Celery's threads only hand over to the herder's own."""

CONNECTIONS = 20
"""Connections to the database that a herder may use at once: one for each thread that may want one,
which are `work`, `beats`, each duty, the deliverer of webhooks and the thread that sends them, and
Celery's two."""


def make_app(settings: Settings) -> HerdApp:
    """Return a Celery app that speaks to queue `herder`."""
    app = HerdApp(
        "herder",
        celery_config(settings, queue=HERDER_QUEUE, concurrency=HANDOVER_THREADS, pulls=False),
    )
    # Events are there to show workers and orders; these tasks are neither, and they are many.
    app.conf.worker_send_task_events = False
    return app
