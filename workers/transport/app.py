"""The Celery app of the herd, which only the herd's own settings reach.

Celery lets its environment go before what an app says: `CELERY_BROKER_URL`, its READ and WRITE
kin, `CELERY_RESULT_BACKEND`, `CELERY_LOADER` and `CELERY_CONFIG_MODULE`, which on many machines
are some other program's. A worker with them would beat and never get an order; a program that
buys would send its nudges to nobody. Processes that Celery starts refuse them (`options`); here
they change nothing, for whoever sends by this app too.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from celery import Celery
from celery.loaders.app import AppLoader

from workers.transport.event_log import EventLog
from workers.transport.options import ignored_variables

_log = EventLog("workers.transport.app", lowered=True)


class HerdLoader(AppLoader):  # type: ignore[misc]
    """Celery's loader of apps, which reads no module of settings."""

    def read_configuration(self, env: str = "") -> None:
        """Read nothing."""


class HerdApp(Celery):  # type: ignore[misc]
    """A Celery app whose broker is the one that it was given.

    Args:
        name: of the app.
        settings: Celery's settings, `broker_url` among them.
    """

    def __init__(self, name: str, settings: dict[str, Any]) -> None:
        super().__init__(name, loader=HerdLoader, set_as_current=False)
        self.conf.update(settings)
        ignored = ignored_variables(os.environ, settings["broker_url"])
        if ignored:
            _log.warning("celery_variables_ignored", variables=",".join(ignored))
        self._broker: str = settings["broker_url"]
        # "disabled", whatever the environment says: results are signed messages of our own.
        self.backend_cls = "disabled"
        self.stop_at_once: Callable[[], None] = lambda: None
        """Called where Celery is told to stop at once, before it waits for its threads."""

    def connection_for_read(self, url: str | None = None, **options: Any) -> Any:
        """Return a connection to take messages by."""
        return super().connection_for_read(url or self._broker, **options)

    def connection_for_write(self, url: str | None = None, **options: Any) -> Any:
        """Return a connection to send messages by."""
        return super().connection_for_write(url or self._broker, **options)

    def connection(self, hostname: str | None = None, **options: Any) -> Any:
        """Return a connection to the broker."""
        return super().connection(hostname or self._broker, **options)
