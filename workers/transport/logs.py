"""Logging of every process of the herd: to standard error or a file, without prompts or secrets."""

from __future__ import annotations

import logging
import sys
from logging.handlers import WatchedFileHandler
from typing import Any

import structlog

from workers.transport.repeats import RepeatFilter

_QUIET = ("celery.worker.strategy", "celery.app.trace", "kombu", "alembic")
"""Loggers that would write a line or more for each task, in words that name tasks, not orders."""


def configure_logging(level: str, file: str = "", *, plain: bool = False) -> None:
    """Set up structlog and the standard library's logging alike.

    Args:
        level: `DEBUG`, `INFO`, `WARNING`, `ERROR` or `CRITICAL`.
        file: where lines go, opened anew where it was moved away; empty for standard error.
        plain: no colours, on a terminal either.
    """
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = WatchedFileHandler(file, encoding="utf-8") if file else logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.dev.ConsoleRenderer(
                    colors=not file and not plain and sys.stderr.isatty(),
                    pad_event_to=0,
                    # The default shows local variables, and with them prompts and keys.
                    exception_formatter=structlog.dev.plain_traceback,
                ),
            ],
        )
    )
    handler.addFilter(RepeatFilter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
