"""Keeps a log short: a warning that says what another said just now is counted, not written."""

from __future__ import annotations

import logging
import re
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

REPEAT_S = 10.0
"""Seconds in which one kind of warning is written once."""

MAX_KINDS = 1000
"""Kinds that are remembered; beyond them the oldest are written anew."""

COUNTED = frozenset(
    {"loop", "duty", "step", "herder", "failures", "outcomes", "waiting", "count", "request_id"}
)
"""Fields in which two of one kind may differ: who noticed it, at which call, and how often."""

_STAMPED = frozenset({"timestamp", "level"})
_COUNTED_TEXT = re.compile(rf" (?:{'|'.join(sorted(COUNTED))})=\S+")
_OURS = ("herder", "workers", "herd", "ledger")


class RepeatFilter(logging.Filter):
    """Lets one warning or error of a kind through in `REPEAT_S`; the next one says how many more.

    A kind is an event with its fields, but for those of `COUNTED`, and with the error whose trace
    is shown. Of other packages' lines numbers do not count. Safe among threads.

    Args:
        clock_s: a clock that only rises, in seconds.
    """

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock_s = clock_s
        self._lock = threading.Lock()
        self._kinds: dict[str, tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to write a line."""
        if record.levelno < logging.WARNING:
            return True
        kind, now_s = _kind(record), self._clock_s()
        with self._lock:
            since_s, left_out = self._kinds.get(kind, (float("-inf"), 0))
            if now_s - since_s < REPEAT_S:
                self._kinds[kind] = (since_s, left_out + 1)
                return False
            self._kinds.pop(kind, None)  # the oldest stand first
            self._kinds[kind] = (now_s, 0)
            if len(self._kinds) > MAX_KINDS:
                del self._kinds[next(iter(self._kinds))]
        if left_out:
            _add(record, left_out)
        return True


def _kind(record: logging.LogRecord) -> str:
    fields: Any = record.msg
    trace = record.exc_info
    if isinstance(fields, dict):  # structlog's
        trace = fields.get("exc_info") or trace
        kept = {
            name: value
            for name, value in fields.items()
            if name not in COUNTED and name not in _STAMPED and name != "exc_info"
        }
        text = repr(sorted(kept.items(), key=lambda one: one[0]))
    elif _is_ours(record):
        text = _COUNTED_TEXT.sub("", record.getMessage())
    else:
        text = f"{record.name} {re.sub(r'[0-9]+', '#', record.getMessage())}"
    return f"{record.levelno} {text} {_error(trace)}"


def _is_ours(record: logging.LogRecord) -> bool:
    return record.name.partition(".")[0] in _OURS


def _error(trace: Any) -> str:
    if trace is True:
        trace = sys.exc_info()
    error = trace[1] if isinstance(trace, tuple) else trace
    return f"{type(error).__name__}: {error}" if isinstance(error, BaseException) else ""


def _add(record: logging.LogRecord, left_out: int) -> None:
    if isinstance(record.msg, dict):
        record.msg = {**record.msg, "repeated": left_out}
    elif _is_ours(record):
        record.msg, record.args = f"{record.getMessage()} repeated={left_out}", ()
