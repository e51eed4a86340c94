"""Keeps programs running: starts them in order, restarts what dies, stops them in order.

Programs stand in stages. A stage is started when the one before is ready, and stopped when the
one behind has ended. What dies is started again, at once the first time, then ever later; what
dies young again and again ends everything. A program that says that its settings are wrong (exit
code 78) stays down, and if nothing else of its stage is left, everything ends.

The children are honcho's: a session of their own, so that Ctrl-C reaches only the supervisor, and
output through a pipe. Its manager stops everything as soon as one ends, so the loop is ours. Each
child is tied to the life of this process, see `die_with_parent.py`.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from honcho.process import Popen

EXIT_SETTINGS = 78
"""EX_CONFIG of sysexits.h: the program's settings are wrong, starting it again would not help."""

EXIT_KILLED = 130
"""The exit code that a shell gives to a program ended by Ctrl-C."""

LEASH = Path(__file__).with_name("die_with_parent.py")
MAX_LINES = 30
TICK_S = 0.05
LAST_LINES_S = 1.0

Show = Callable[[str, str], None]
"""Takes a line of output: whose it is, and the line."""


@dataclass(frozen=True, slots=True)
class Program:
    """A program that is kept running.

    Attributes:
        name: what its lines are prefixed with.
        command: the program and its arguments; secrets have no place in it.
        env: the whole environment.
        stop_s: seconds from SIGTERM to SIGKILL.
        ready: asked until it says True before the next stage starts; None: at once.
    """

    name: str
    command: Sequence[str]
    env: Mapping[str, str]
    stop_s: int = 10
    ready: Callable[[], bool] | None = None


@dataclass(frozen=True, slots=True)
class Patience:
    """The limits after which a program that dies is given up.

    Attributes:
        young_s: a program that lived for less died at once.
        tries: deaths at once, one after the other, that end everything.
        wait_s: wait before the second restart in a row; doubled for each one more.
        wait_most_s: the longest wait.
    """

    young_s: float = 10.0
    tries: int = 5
    wait_s: float = 0.5
    wait_most_s: float = 5.0


@dataclass(slots=True)
class _Kept:
    """A program and how it stands."""

    program: Program
    stage: int
    process: subprocess.Popen[bytes] | None = None
    began_s: float = 0.0
    due_s: float | None = None
    kill_s: float | None = None
    deaths: int = 0
    set_aside: bool = False
    last: deque[str] = field(default_factory=lambda: deque(maxlen=MAX_LINES))


class Supervisor:
    """Runs programs until it is told to stop, or one of them cannot be kept running."""

    def __init__(
        self,
        stages: Sequence[Sequence[Program]],
        show: Show,
        *,
        patience: Patience = Patience(),
        own_name: str = "herd",
    ) -> None:
        self._stages = [[_Kept(program, n) for program in stage] for n, stage in enumerate(stages)]
        self._all = [kept for stage in self._stages for kept in stage]
        self._show = show
        self._patience = patience
        self._own_name = own_name
        # A SimpleQueue, because a signal handler may put into it at any moment; but never waited
        # for: in CPython 3.11 a signal at the wrong moment makes `get(timeout=...)` wait for ever.
        self._asked: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._happened: queue.Queue[tuple[_Kept, str | int]] = queue.Queue()
        self._started = 0
        self._stopping: int | None = None
        self.failure: str | None = None
        self.exit_code = 0
        self.ended = threading.Event()

    # For other threads, and signal handlers

    def stop(self) -> None:
        """End everything in order."""
        self._asked.put("stop")

    def kill(self) -> None:
        """End everything at once."""
        self._asked.put("kill")

    @property
    def stopping(self) -> bool:
        """Whether it has begun to stop, or has ended."""
        return self._stopping is not None or self.ended.is_set()

    def pid(self, name: str) -> int | None:
        """Return the process id of a program; None while it is down."""
        process = self._named(name).process
        return None if process is None else process.pid

    def kept(self) -> list[str]:
        """Return the names of the programs that are not set aside."""
        return [kept.program.name for kept in self._all if not kept.set_aside]

    def _named(self, name: str) -> _Kept:
        return next(kept for kept in self._all if kept.program.name == name)

    # The loop

    def run(self) -> int:
        """Keep the programs running until the end.

        It starts the children from the thread that calls it, and the kernel ties their lives to
        that thread's; it returns, or raises, only when all have ended.

        Returns:
            0 after `stop`, 130 after `kill`; else the exit code that `failure` explains.
        """
        try:
            while not self._over():
                self._obey()
                self._start_what_is_due()
                self._stop_what_is_due()
                self._take_in()
        finally:
            for kept in self._all:
                self._kill_group(kept)
            self.ended.set()
        return self.exit_code

    def _over(self) -> bool:
        return self._stopping is not None and not any(kept.process for kept in self._all)

    def _obey(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                asked = self._asked.get_nowait()
                if asked == "kill":
                    self._stopping = 0
                    self.exit_code = self.exit_code or EXIT_KILLED
                    self._say("ending everything at once")
                    for kept in self._all:
                        self._kill_group(kept)
                elif self._stopping is None:
                    self._stopping = len(self._stages) - 1
                    self._say("stopping")

    def _start_what_is_due(self) -> None:
        if self._stopping is not None:
            return
        now_s = time.monotonic()
        if self._started < len(self._stages) and self._is_ready(self._started - 1):
            for kept in self._stages[self._started]:
                kept.due_s = now_s
            self._started += 1
        for kept in self._all:
            if kept.due_s is not None and kept.due_s <= now_s:
                self._start(kept)

    def _is_ready(self, stage: int) -> bool:
        if stage < 0:
            return True
        return all(
            kept.process is not None and (kept.program.ready is None or kept.program.ready())
            for kept in self._stages[stage]
        )

    def _start(self, kept: _Kept) -> None:
        kept.due_s = None
        kept.began_s = time.monotonic()
        command = [sys.executable, "-I", "-S", str(LEASH), str(os.getpid())]
        process = Popen([*command, *kept.program.command], shell=False, env=dict(kept.program.env))
        kept.process = process
        self._say(f"{kept.program.name} started, process {process.pid}")
        threading.Thread(target=self._follow, args=(kept, process), daemon=True).start()

    def _follow(self, kept: _Kept, process: subprocess.Popen[bytes]) -> None:
        """On a thread for each child: hand its end to the loop, behind its last lines."""
        reader = threading.Thread(target=self._read, args=(kept, process), daemon=True)
        reader.start()
        code = process.wait()
        # Not for ever: a child of the child may hold the pipe open.
        reader.join(timeout=LAST_LINES_S)
        self._happened.put((kept, code))

    def _read(self, kept: _Kept, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                self._happened.put((kept, line.decode("utf-8", "replace").rstrip()))

    def _stop_what_is_due(self) -> None:
        if self._stopping is None:
            return
        while self._stopping > 0 and not any(k.process for k in self._stages[self._stopping]):
            self._stopping -= 1
        now_s = time.monotonic()
        for kept in self._stages[self._stopping]:
            if kept.process is None:
                continue
            if kept.kill_s is None:
                kept.kill_s = now_s + kept.program.stop_s
                kept.process.terminate()
            elif now_s >= kept.kill_s:
                self._say(f"{kept.program.name} did not stop in {kept.program.stop_s} s: killed")
                self._kill_group(kept)
                kept.kill_s = now_s + kept.program.stop_s

    def _kill_group(self, kept: _Kept) -> None:
        # `poll` first: the id of a process that was waited for may be somebody else's by now.
        if kept.process is not None and kept.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(kept.process.pid, signal.SIGKILL)

    def _take_in(self) -> None:
        """Wait a moment for what happens, and take in all of it."""
        with contextlib.suppress(queue.Empty):
            kept, what = self._happened.get(timeout=TICK_S)
            while True:
                if isinstance(what, str):
                    if what:
                        kept.last.append(what)
                        self._tell(kept.program.name, what)
                else:
                    self._on_end(kept, what)
                kept, what = self._happened.get_nowait()

    # Deaths

    def _on_end(self, kept: _Kept, code: int) -> None:
        lived_s = time.monotonic() - kept.began_s
        kept.process = None
        self._say(f"{kept.program.name} ended, {_told(code)}")
        if self._stopping is not None:
            return
        if code == EXIT_SETTINGS:
            self._set_aside(kept)
            return
        kept.deaths = kept.deaths + 1 if lived_s < self._patience.young_s else 1
        if kept.deaths >= self._patience.tries:
            self._fail(
                f"{kept.program.name} ended right after its start {kept.deaths} times in a row, "
                f"{_told(code)}.{_said(kept)}",
                1,
            )
            return
        wait_s = 0.0
        if kept.deaths > 1:
            doubled = self._patience.wait_s * 2 ** (kept.deaths - 2)
            wait_s = min(doubled, self._patience.wait_most_s)
        kept.due_s = time.monotonic() + wait_s

    def _set_aside(self, kept: _Kept) -> None:
        kept.set_aside = True
        name = kept.program.name
        if all(other.set_aside for other in self._stages[kept.stage]):
            self._fail(f"{name} cannot run with its settings.{_said(kept)}", EXIT_SETTINGS)
        else:
            self._say(f"{name} stays down: it cannot run with its settings")

    def _fail(self, line: str, code: int) -> None:
        """Stop everything, because of what the line says."""
        self.failure = line
        self.exit_code = code
        self._stopping = len(self._stages) - 1

    def _say(self, line: str) -> None:
        self._tell(self._own_name, line)

    def _tell(self, name: str, line: str) -> None:
        try:
            self._show(name, line)
        except OSError:
            # Whoever read this is gone (a closed terminal, `| head`): end in order, in silence.
            self._show = lambda _name, _line: None
            self.stop()


def _told(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"


def _said(kept: _Kept) -> str:
    return f" Its last output: {kept.last[-1]}" if kept.last else ""
