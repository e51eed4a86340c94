"""The `herd` command as a person types it: a process of its own, in pipes or in a terminal."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import threading
from contextlib import suppress
from typing import IO, Any

from tests.support.fork_server import COMMAND, Process, start_with
from tests.support.wait import wait_for


class Piped:
    """A command in pipes, as `subprocess.Popen` shows one."""

    def __init__(self, process: Process, stdin: IO[str] | None, out: IO[str], err: IO[str]) -> None:
        self.process = process
        self.stdin = stdin
        self.stdout = out
        self.stderr = err

    def poll(self) -> int | None:
        return self.process.poll()

    def wait(self, timeout: float | None = None) -> int:
        return self.process.wait(timeout)

    def send_signal(self, sig: int) -> None:
        self.process.send_signal(sig)

    def kill(self) -> None:
        self.process.kill()

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def returncode(self) -> int | None:
        return self.process.poll()

    def communicate(
        self, given: str | None = None, timeout: float | None = None
    ) -> tuple[str, str]:
        """Give it what it reads, and wait for its end; what it wrote since."""
        wrote = ["", ""]

        def read(place: int, stream: IO[str]) -> None:
            with stream:
                wrote[place] = stream.read()

        streams = enumerate((self.stdout, self.stderr))
        reading = [threading.Thread(target=read, args=one, daemon=True) for one in streams]
        for one in reading:
            one.start()
        if self.stdin is not None:
            with suppress(BrokenPipeError):
                self.stdin.write(given or "")
            with suppress(BrokenPipeError):
                self.stdin.close()
        self.wait(timeout)
        for one in reading:
            one.join(timeout)
        return wrote[0], wrote[1]


def typed(herd: Any, *words: str, stdin: int = subprocess.DEVNULL, **env: str) -> Piped:
    """A command that has been typed."""
    out, their_out = os.pipe()
    err, their_err = os.pipe()
    if stdin == subprocess.PIPE:
        theirs, ours = os.pipe()
        keyboard = open(ours, "w")  # noqa: SIM115
    else:
        theirs, keyboard = os.open(os.devnull, os.O_RDONLY), None
    streams = (theirs, their_out, their_err)
    environment = {**herd.env, **env}
    process = start_with(streams, ["-c", COMMAND, *words], env=environment, cwd=herd.folder)
    for stream in streams:
        os.close(stream)
    return Piped(process, keyboard, open(out), open(err))


def answered(
    herd: Any, *words: str, stdin: str | None = None, **env: str
) -> subprocess.CompletedProcess[str]:
    """A command that has been typed and has ended."""
    child = typed(
        herd, *words, stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE, **env
    )
    out, said = child.communicate(stdin, timeout=120)
    return subprocess.CompletedProcess(words, child.wait(), out, said)


class Terminal:
    """A command that runs in a terminal of its own: what it shows, and a keyboard for it."""

    def __init__(self, herd: Any, *words: str, **env: str) -> None:
        ours, theirs = pty.openpty()
        self._keyboard = ours
        self.shown = ""
        self.process = start_with(
            (theirs, theirs, theirs),
            ["-c", COMMAND, *words],
            env={**herd.env, "TERM": "dumb", "NO_COLOR": "1", "COLUMNS": "200", **env},
            cwd=herd.folder,
            # Ctrl-C is a signal to the terminal's own processes, which these have to be.
            new_session=True,
        )
        os.close(theirs)
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    def _read(self) -> None:
        while True:
            try:
                more = os.read(self._keyboard, 4096)
            except OSError:  # the last process of the terminal is gone
                return
            if not more:
                return
            self.shown += more.decode(errors="replace")

    def says(self, words: str, after: int = 0) -> int:
        """Wait until it shows these words; where they end."""

        def said() -> bool:
            if words in self.shown[after:]:
                return True
            assert self.process.poll() is None or self._reading.is_alive(), self.shown
            return False

        wait_for(said, f"the terminal shows {words!r}")
        return self.shown.index(words, after) + len(words)

    def type(self, text: str) -> None:
        """Keys."""
        os.write(self._keyboard, text.encode())

    def interrupt(self) -> None:
        """Ctrl-C."""
        self.process.send_signal(signal.SIGINT)

    def ended(self) -> int:
        """Wait for its end; its exit code."""
        code = self.process.wait(timeout=120)
        self._reading.join(timeout=60)
        return code

    def close(self) -> None:
        """End it, whatever became of it."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._reading.join(timeout=60)
        os.close(self._keyboard)
