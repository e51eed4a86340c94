"""Calls a program back when its answers arrive, beside the herder and over HTTP alike.

One thread calls, however many orders it waits for: one callback after the other, in the order in
which the ends were noticed, each once. The thread is not a daemon, so that a program that has
submitted with a callback lives until it was called, though its herd is closed meanwhile; the thread
ends when nothing is left to wait for, and a later submission starts it anew.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from herder.errors import HerdError, HerdUnavailable, SetupError
from herder.types import Result
from workers.transport.event_log import EventLog
from workers.transport.loops import Loop

_log = EventLog("herder.local.callbacks", lowered=True)

_T = TypeVar("_T")
TextCallback = Callable[[str], object]
ErrorCallback = Callable[[HerdError], object]


class Waiter(Protocol):
    """A waiter for an order's end."""

    def set(self) -> None:
        """Wake the waiter of an order that ended."""


class Ends(Protocol):
    """Says when orders end: `herder.orders.watcher.CompletionWatcher`, or what asks a gateway."""

    def add(self, order_id: str, waiter: Waiter) -> None:
        """Have a waiter's `set` called at an order's end, at least once."""

    def remove(self, order_id: str, waiter: Waiter) -> None:
        """Stop notifying a waiter."""


@dataclass(slots=True, eq=False)
class _Call:
    """Somebody who waits to be called; the waiter for one order."""

    order_id: str
    callback: TextCallback | None
    on_error: ErrorCallback | None
    ended: queue.SimpleQueue[_Call]
    told: bool = False

    def set(self) -> None:
        if not self.told:  # else a slow callback would have the ends behind it pile up
            self.told = True
            self.ended.put(self)


class CallbackRunner:
    """Calls back, each call once, one after the other.

    Args:
        ends: says when orders end.
        result: gives the result of an ended order, or raises how it ended.
    """

    def __init__(self, ends: Ends, result: Callable[[str], Result]) -> None:
        self._ends = ends
        self._result = result
        self._lock = threading.Lock()
        self._calls: set[_Call] = set()
        self._ended: queue.SimpleQueue[_Call] = queue.SimpleQueue()
        self._afterwards: list[Callable[[], object]] = []
        self._loop = Loop(
            "herd-callbacks",
            self._step,
            daemon=False,
            outages=(HerdUnavailable, SetupError),
            retry_s=(0.1, 1.0),
            log=_log,
        )

    def add(
        self, order_id: str, callback: TextCallback | None, on_error: ErrorCallback | None
    ) -> None:
        """Call `callback` with the text, or `on_error` with the error, at an order's end.

        An error that nobody asked for is logged, and so is what a callback itself raises.
        """
        call = _Call(order_id, callback, on_error, self._ended)
        with self._lock:
            self._calls.add(call)
            self._loop.start()
        try:
            self._ends.add(order_id, call)
        except BaseException:
            with self._lock:
                self._calls.discard(call)
            self._ended.put(call)  # the thread looks whether anybody else waits
            raise

    def afterwards(self, close: Callable[[], object]) -> None:
        """Call `close` once nobody waits to be called back: now, or on the thread that calls."""
        with self._lock:
            if self._calls:
                self._afterwards.append(close)
                return
        close()

    def _step(self) -> None:
        with self._lock:
            closing: list[Callable[[], object]] = []
            left = bool(self._calls)
            if not left:
                self._loop.leave()
                closing, self._afterwards = self._afterwards, []
        if left:
            self._take(self._ended.get())
        for close in closing:
            close()

    def _take(self, call: _Call) -> None:
        with self._lock:
            if call not in self._calls:
                return  # an end may be told twice
        try:
            result = self._result(call.order_id)
        except HerdUnavailable:
            self._ended.put(call)  # it is asked for again, after the others
            raise
        except HerdError as error:
            self._done(call)
            self._fail(call, error)
        except Exception:  # noqa: BLE001
            # Whatever it is, this one is told, and the others are called.
            _log.exception("answer_unreadable", order=call.order_id)
            self._done(call)
            what = (
                f"The answer of order {call.order_id} cannot be read here; the reason was logged."
            )
            self._fail(call, HerdError(what, order=call.order_id))
        else:
            self._done(call)
            if call.callback is not None:
                self._guard(call.order_id, call.callback, result.text)

    def _done(self, call: _Call) -> None:
        with self._lock:
            self._calls.remove(call)
        self._ends.remove(call.order_id, call)

    def _fail(self, call: _Call, error: HerdError) -> None:
        if call.on_error is None:
            _log.error("error_unheard", order=call.order_id, code=error.code, reason=error.message)
        else:
            self._guard(call.order_id, call.on_error, error)

    def _guard(self, order_id: str, function: Callable[[_T], object], value: _T) -> None:
        try:
            function(value)
        except Exception:  # noqa: BLE001
            # The program's own error: it is shown, and the other callbacks are still called.
            _log.exception("callback_failed", order=order_id)
