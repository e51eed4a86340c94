"""Logs events where structlog may not be set up: in a user's program, and in every background loop.

Left alone, structlog prints to standard output, which is a program's own. In a process of the herd
the same lines go through the handler that `workers.transport.logs` sets up, in the same form.
"""

from __future__ import annotations

import logging
from typing import Any


class EventLog:
    """Writes events through `logging`: a snake_case name, and ids and reasons by keyword.

    Args:
        name: the logger's.
        lowered: whether what passes by itself is shown only where a program's logging asks for it:
            events as `DEBUG`, warnings as `INFO`. Errors stay errors. For what waits out outages in
            a user's program.
    """

    def __init__(self, name: str, *, lowered: bool = False) -> None:
        self._log = logging.getLogger(name)
        self._info, self._warning = (
            (logging.DEBUG, logging.INFO) if lowered else (logging.INFO, logging.WARNING)
        )

    def info(self, event: str, **ids: Any) -> None:
        """Log an event."""
        self._write(self._info, event, ids)

    def warning(self, event: str, **ids: Any) -> None:
        """Log an event that somebody may want to act upon, as that something is out of reach."""
        self._write(self._warning, event, ids)

    def error(self, event: str, **ids: Any) -> None:
        """Log a failure; `exc_info` is the exception whose trace is shown."""
        self._write(logging.ERROR, event, ids)

    def exception(self, event: str, **ids: Any) -> None:
        """Log a failure with the trace of the exception that is handled just now."""
        self._write(logging.ERROR, event, {"exc_info": True, **ids})

    def _write(self, level: int, event: str, ids: dict[str, Any]) -> None:
        exc_info = ids.pop("exc_info", None)
        shown = (f"{name}={_shown(value)}" for name, value in ids.items())
        self._log.log(level, "%s", " ".join((event, *shown)), exc_info=exc_info)


def _shown(value: object) -> str:
    """Return a value as one word, or quoted: nothing in it can look like another event or line."""
    text = str(value)
    return text if text.isprintable() and not set(text) & set(" ='\"") else repr(text)
