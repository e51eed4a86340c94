"""Calls a program back when its answers arrive: one thread, however many it waits for.

The thread is no daemon, so that a program that has submitted with a callback lives until it was
called; it ends when nothing is left to wait for, and a later submission starts it anew.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from herder.errors import HerdError
from herder.orders.watcher import Watcher
from herder.types import Result

_log = logging.getLogger("herder.local.callbacks")

_T = TypeVar("_T")
TextCallback = Callable[[str], object]
ErrorCallback = Callable[[HerdError], object]


@dataclass(slots=True, eq=False)
class _Call:
    """Somebody who waits to be called; the watcher's waiter for one order."""

    order_id: str
    callback: TextCallback | None
    on_error: ErrorCallback | None
    ended: queue.SimpleQueue[_Call]

    def set(self) -> None:
        self.ended.put(self)


class Caller:
    """Calls back, each call once, one after the other.

    Args:
        watcher: says when orders end.
        result: gives the result of an ended order, or raises how it ended.
    """

    def __init__(self, watcher: Watcher, result: Callable[[str], Result]) -> None:
        self._watcher = watcher
        self._result = result
        self._lock = threading.Lock()
        self._calls: set[_Call] = set()
        self._ended: queue.SimpleQueue[_Call] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def add(
        self, order_id: str, callback: TextCallback | None, on_error: ErrorCallback | None
    ) -> None:
        """Call `callback` with the text, or `on_error` with the error, at an order's end."""
        call = _Call(order_id, callback, on_error, self._ended)
        with self._lock:
            self._calls.add(call)
            if self._thread is None:
                self._thread = threading.Thread(target=self._loop, name="herd-callbacks")
                self._thread.start()
        self._watcher.add(order_id, call)

    def _loop(self) -> None:
        while True:
            with self._lock:
                if not self._calls:
                    self._thread = None
                    return
            call = self._ended.get()
            with self._lock:
                if call not in self._calls:
                    continue  # an end may be told twice
                self._calls.remove(call)
            self._watcher.remove(call.order_id, call)
            self._call(call)

    def _call(self, call: _Call) -> None:
        try:
            result = self._result(call.order_id)
        except HerdError as error:
            if call.on_error is None:
                _log.error("%s", error)
            else:
                self._guard(call.order_id, call.on_error, error)
            return
        if call.callback is not None:
            self._guard(call.order_id, call.callback, result.text)

    def _guard(self, order_id: str, function: Callable[[_T], object], value: _T) -> None:
        try:
            function(value)
        except Exception:  # noqa: BLE001
            # The program's own error: it is shown, and the other callbacks are still called.
            _log.exception("the callback of order %s failed", order_id)
