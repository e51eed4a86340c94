"""Logs the events of loops in a user's program, which has its own standard output and logging."""

from __future__ import annotations

import logging
from typing import Any


class ProgramLog:
    """Writes events through `logging`, as `workers.transport.loops.Log` asks for it.

    Outages are waited out, and shown only where a program's logging asks for it; defects always.
    """

    def __init__(self, name: str) -> None:
        self._log = logging.getLogger(name)

    def info(self, event: str, **ids: Any) -> None:
        """Log an event."""
        self._write(logging.DEBUG, event, ids)

    def warning(self, event: str, **ids: Any) -> None:
        """Log that something is out of reach."""
        self._write(logging.INFO, event, ids)

    def error(self, event: str, **ids: Any) -> None:
        """Log a failure; `exc_info` is the exception whose trace is shown."""
        self._write(logging.ERROR, event, ids)

    def _write(self, level: int, event: str, ids: dict[str, Any]) -> None:
        exc_info = ids.pop("exc_info", None)
        said = " ".join((event, *(f"{name}={value}" for name, value in ids.items())))
        self._log.log(level, "%s", said, exc_info=exc_info)
