"""The one kind of background loop, for threads and for asyncio's tasks.

A loop takes its step again and again until it is stopped. It never dies in silence: whatever a step
raises is logged and counted, the loop backs off for a while that grows with each failure in a row,
and goes on. What another server's outage raises is one line of warning; everything else is logged
with its trace. Nothing here needs Redis or a database, nor more than the standard library.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Protocol

from workers.transport.event_log import EventLog
from workers.transport.reasons import reason_of

LOGGER = "herd.loops"

REPEAT_S = 60.0
"""Seconds after which an outage that lasts is logged again."""

FIRST_RETRY_S = 0.1
MAX_RETRY_S = 5.0


class Log(Protocol):
    """The part of a structlog logger that loops use: an event's name, and its ids."""

    def info(self, event: str, **ids: Any) -> Any:
        """Log an event."""

    def warning(self, event: str, **ids: Any) -> Any:
        """Log an event that somebody may want to act upon."""

    def error(self, event: str, **ids: Any) -> Any:
        """Log a failure; `exc_info` is the exception whose trace is shown."""


class Failures:
    """Logs and counts what a loop's steps raise, and says how long to back off.

    Args:
        name: the loop's, in its log events.
        outages: exceptions that say that something else is out of reach, besides `OSError`: logged
            as a warning without a trace, once at first and then once in `REPEAT_S`.
        retry_s: seconds of back-off after the first failure in a row, doubled with each further
            one, and at most the second.
        on_failure: is told of each failure; what it raises is logged.
        ids: added to each log event.
        log: where events go; by default the logger `herd.loops`.
        clock_s: a clock that only rises, in seconds.
    """

    def __init__(
        self,
        name: str,
        *,
        outages: tuple[type[BaseException], ...] = (),
        retry_s: tuple[float, float] = (FIRST_RETRY_S, MAX_RETRY_S),
        on_failure: Callable[[BaseException], object] | None = None,
        ids: dict[str, str] | None = None,
        log: Log | None = None,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.total = 0
        self.in_a_row = 0
        self._outages: tuple[type[BaseException], ...] = (OSError, *outages)
        self._retry_s = retry_s
        self._on_failure = on_failure
        self._ids = {"loop": name, **(ids or {})}
        self._log: Log = log or EventLog(LOGGER)
        self._clock_s = clock_s
        self._warned: tuple[type[BaseException], float] | None = None

    def failed(self, error: BaseException) -> float:
        """Log and count a failure; returns the seconds to back off."""
        self.total += 1
        self.in_a_row += 1
        if isinstance(error, self._outages):
            self._warn(error)
        else:
            self._write("error", "step_failed", exc_info=error)
        if self._on_failure is not None:
            try:
                self._on_failure(error)
            except BaseException as second:  # noqa: BLE001 (logged with its trace)
                self._write("error", "failure_not_told", exc_info=second)
        first_s, most_s = self._retry_s
        # The exponent is bounded: an outage of a month would overflow a float.
        return float(min(most_s, first_s * 2 ** min(self.in_a_row - 1, 30)))

    def _warn(self, error: BaseException) -> None:
        now_s = self._clock_s()
        if self._warned is not None:
            kind, since_s = self._warned
            if kind is type(error) and now_s - since_s < REPEAT_S:
                return
        self._warned = (type(error), now_s)
        self._write("warning", "out_of_reach", reason=reason_of(error), failures=self.in_a_row)

    def _write(self, level: str, event: str, **more: Any) -> None:
        try:
            getattr(self._log, level)(event, **self._ids, **more)
        except Exception:  # noqa: BLE001 (a log that cannot be written ends no loop)
            # The standard library's handlers raise nothing.
            getattr(EventLog(LOGGER), level)(event, **self._ids, **more)

    def worked(self) -> None:
        """Note a step that succeeded; the first one after failures is logged."""
        if self.in_a_row:
            self._write("info", "recovered", failures=self.in_a_row)
            self.in_a_row = 0
            self._warned = None


class _Run:
    """One thread of a loop, from its start to its end."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.stopping = threading.Event()
        self.roused = threading.Event()
        self.thread: threading.Thread | None = None

    def stop(self) -> None:
        self.stopping.set()
        self.roused.set()


class Loop:
    """Takes a step again and again on a thread of its own, until it is stopped.

    What a step raises, `SystemExit` included, ends no thread: in a thread it would end that alone,
    without a word, and the process would look alive.

    A thread does not live on in a forked child. `start` there begins a new one, and a child that
    was forked by a step itself takes no further step.

    Args:
        name: the thread's, and the loop's in log events.
        step: what is done. It may block for as long as it likes, if `unblock` can end that;
            `pause` waits within a step, and `leave` ends the loop from within one.
        every_s: seconds between the end of a step and the next one, which `wake` cuts short;
            0: none, the step waits by itself.
        first_s: seconds before the first step, which `wake` cuts short, so that many loops that
            start together do not wake together.
        unblock: is called by `stop`, to end what a step waits for.
        last: is called on the thread after the last step: to flush, or to close.
        daemon: whether the program may end while the thread lives.
        outages, retry_s, on_failure, ids, log: as `Failures` has them.
    """

    def __init__(
        self,
        name: str,
        step: Callable[[], object],
        *,
        every_s: float = 0.0,
        first_s: float = 0.0,
        unblock: Callable[[], object] | None = None,
        last: Callable[[], object] | None = None,
        daemon: bool = True,
        outages: tuple[type[BaseException], ...] = (),
        retry_s: tuple[float, float] = (FIRST_RETRY_S, MAX_RETRY_S),
        on_failure: Callable[[BaseException], object] | None = None,
        ids: dict[str, str] | None = None,
        log: Log | None = None,
    ) -> None:
        self.name = name
        self._step = step
        self._every_s = every_s
        self._first_s = first_s
        self._unblock = unblock
        self._last = last
        self._daemon = daemon
        self._failures = Failures(
            name, outages=outages, retry_s=retry_s, on_failure=on_failure, ids=ids, log=log
        )
        self._run: _Run | None = None
        self._lock = threading.Lock()
        self._lock_pid = os.getpid()

    @property
    def failures(self) -> int:
        """Steps that raised, since the loop was made."""
        return self._failures.total

    @property
    def alive(self) -> bool:
        """Whether a thread takes steps in this process, or has one left to end."""
        run = self._run
        return run is not None and _lives(run)

    @property
    def stopping(self) -> bool:
        """Whether the loop was told to end."""
        run = self._run
        return run is not None and run.stopping.is_set()

    def start(self) -> None:
        """Begin to take steps; a loop that does already goes on as it is."""
        if self._lock_pid != os.getpid():
            # Whoever held it when the process was forked is not here to give it back.
            self._lock, self._lock_pid = threading.Lock(), os.getpid()
        with self._lock:
            if self._run is not None and _lives(self._run) and not self._run.stopping.is_set():
                return
            self._run = run = _Run()
            run.thread = threading.Thread(
                target=self._loop, args=(run,), name=self.name, daemon=self._daemon
            )
            run.thread.start()

    def wake(self) -> None:
        """Take the next step now; in a back-off nothing is taken sooner."""
        run = self._run
        if run is not None:
            run.roused.set()

    def pause(self, seconds: float) -> bool:
        """Wait, within a step, but no longer than until the loop is stopped; says whether it is."""
        run = self._run
        if run is None:
            return True
        return run.stopping.wait(seconds)

    def leave(self) -> None:
        """End the loop after the step at hand, from within it.

        A `start` that comes after this begins a new thread, even before this one has ended: so
        neither is lost where both are called under one lock of the caller's.
        """
        run, self._run = self._run, None
        if run is not None:
            run.stop()

    def stop(self, timeout_s: float | None = 10.0) -> bool:
        """End after the step at hand; a back-off or a pause is cut short.

        Args:
            timeout_s: seconds to wait for the thread's end; None: as long as it takes; 0: not at
                all. A step that stops its own loop does not wait.

        Returns:
            Whether the thread has ended.
        """
        run = self._run
        if run is None or run.thread is None:
            return True
        run.stop()
        if self._unblock is not None:
            self._unblock()
        if run.thread is not threading.current_thread() and _lives(run):
            run.thread.join(timeout_s)
        return not _lives(run)

    def _loop(self, run: _Run) -> None:
        if self._first_s > 0:
            run.roused.wait(self._first_s)
        while not run.stopping.is_set() and run.pid == os.getpid():
            run.roused.clear()
            if run.stopping.is_set():
                break  # stopped just before that was cleared
            try:
                self._step()
            except BaseException as error:  # noqa: BLE001 (logged and counted; see the class)
                run.stopping.wait(self._failures.failed(error))
                continue
            self._failures.worked()
            if self._every_s > 0:
                run.roused.wait(self._every_s)
        if self._last is not None and run.pid == os.getpid():
            try:
                self._last()
            except BaseException as error:  # noqa: BLE001 (logged and counted)
                self._failures.failed(error)


def _lives(run: _Run) -> bool:
    return run.pid == os.getpid() and run.thread is not None and run.thread.is_alive()


AGAIN_S = 0.5
"""Seconds until a task that was cancelled, and goes on, is cancelled once more."""


class TaskLoop:
    """Takes a step again and again in a task of the running event loop, until it is stopped.

    A step may be cancelled by `stop` only: a `CancelledError` that came from something which the
    step waited for is a failure like others. `SystemExit` and `KeyboardInterrupt` are logged and
    go on to the event loop, which ends with them.

    Args:
        name: the task's, and the loop's in log events.
        step: what is done.
        every_s: seconds before the first step, and between the end of one and the next; `wake`
            cuts them short.
        outages, retry_s, on_failure, ids, log: as `Failures` has them.
    """

    def __init__(
        self,
        name: str,
        step: Callable[[], Awaitable[object]],
        *,
        every_s: float,
        outages: tuple[type[BaseException], ...] = (),
        retry_s: tuple[float, float] = (FIRST_RETRY_S, MAX_RETRY_S),
        on_failure: Callable[[BaseException], object] | None = None,
        ids: dict[str, str] | None = None,
        log: Log | None = None,
    ) -> None:
        self.name = name
        self._step = step
        self._every_s = every_s
        self._failures = Failures(
            name, outages=outages, retry_s=retry_s, on_failure=on_failure, ids=ids, log=log
        )
        self._task: asyncio.Task[None] | None = None
        self._roused = asyncio.Event()

    @property
    def failures(self) -> int:
        """Steps that raised, since the loop was made."""
        return self._failures.total

    @property
    def alive(self) -> bool:
        """Whether its task runs."""
        return self._task is not None and not self._task.done()

    def start(self) -> None:
        """Begin to take steps; to be called within the event loop."""
        if not self.alive:
            self._task = asyncio.create_task(self._loop(), name=self.name)

    def wake(self) -> None:
        """Take the next step now. Called on the event loop's thread."""
        self._roused.set()

    async def stop(self) -> None:
        """Cancel the step at hand, and wait for the task's end."""
        task, self._task = self._task, None
        # Again and again: what a step awaits may swallow a cancellation that comes as it ends, as
        # `asyncio.wait_for` does before Python 3.12, and the loop would go on.
        while task is not None and not task.done():
            task.cancel()
            await asyncio.wait([task], timeout=AGAIN_S)

    async def _loop(self) -> None:
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._roused.wait(), self._every_s)
            self._roused.clear()
            try:
                await self._step()
            except asyncio.CancelledError as error:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                wait_s = self._failures.failed(error)
            except Exception as error:  # noqa: BLE001 (logged and counted)
                wait_s = self._failures.failed(error)
            except BaseException as error:
                self._failures.failed(error)
                raise
            else:
                self._failures.worked()
                continue
            await asyncio.sleep(wait_s)
