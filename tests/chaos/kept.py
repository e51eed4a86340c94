"""Processes that are started again whenever they end, as a supervisor would."""

from __future__ import annotations

import signal
import threading

from tests.chaos.points import Points
from tests.support.running import Child, RunningHerd

TERMED = {0, -signal.SIGTERM}
"""How a process ends that was told to; the second while it had yet to learn what to do then."""


class Kept:
    """A process that is started again whenever it ends, as a supervisor would.

    Args:
        herd: whose it is.
        name: its own.
        arguments: after `celery`.
        env: beside the herd's.
        points: where it is to die, unless another did there.
    """

    def __init__(
        self,
        herd: RunningHerd,
        name: str,
        arguments: list[str],
        env: dict[str, str],
        points: Points | None = None,
    ) -> None:
        self.name = name
        self._herd, self._arguments = herd, arguments
        self._points = points
        self._env = {**env, **(points.env if points else {})}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._told: set[int] = set()
        """Processes that a test signalled: they may end."""
        self._standing: list[threading.Timer] = []
        self.faults: list[str] = []
        self.deaths = 0
        self.child = self._start()
        self._thread = threading.Thread(target=self._keep, name=f"keep {name}", daemon=True)
        self._thread.start()

    def _start(self) -> Child:
        return self._herd.start(self.name, self._arguments, **self._env)

    def _keep(self) -> None:
        while not self._stopping.wait(0.05):
            with self._lock:
                if self.child.alive or self._stopping.is_set():
                    continue
                self._note_end(self.child)
                self.child = self._start()

    def _note_end(self, child: Child) -> None:
        code, pid = child.process.returncode, child.process.pid
        self.deaths += 1
        at_point = self._points is not None and self._points.ended(pid)
        if pid not in self._told and not at_point:
            self.faults.append(f"{self.name} ended by itself with {code}")
        elif code not in TERMED | {-signal.SIGKILL}:
            self.faults.append(f"{self.name} ended with {code}")

    @property
    def pid(self) -> int:
        """Its process's."""
        return self.child.process.pid

    def send(self, what: signal.Signals) -> None:
        """Signal its process; one that ends of it is started again."""
        with self._lock:
            if what in (signal.SIGKILL, signal.SIGTERM):
                self._told.add(self.pid)
            self.child.process.send_signal(what)

    def stand(self, seconds: float) -> None:
        """Stop its process, and let it go on after a while."""
        child = self.child
        child.process.send_signal(signal.SIGSTOP)
        timer = threading.Timer(seconds, child.process.send_signal, [signal.SIGCONT])
        timer.start()
        self._standing.append(timer)

    def close(self) -> None:
        """Keep it no longer, and end it."""
        for timer in self._standing:
            timer.join()
        self._stopping.set()
        self._thread.join(timeout=30)
        self.child.kill()
