"""The `herd` command as a person types it: a process of its own, in pipes or in a terminal."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import threading
from typing import Any

from tests.support.wait import wait_for

COMMAND = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from herder.cli import main; main()"
)
"""Python ignores Ctrl-C where whoever started it did; the test must not depend on that."""


def typed(
    herd: Any, *words: str, stdin: int = subprocess.DEVNULL, **env: str
) -> subprocess.Popen[str]:
    """A command that has been typed."""
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, *words],
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**herd.env, **env},
        cwd=herd.folder,
    )


def answered(
    herd: Any, *words: str, stdin: str | None = None, **env: str
) -> subprocess.CompletedProcess[str]:
    """A command that has been typed and has ended."""
    child = typed(
        herd, *words, stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE, **env
    )
    out, said = child.communicate(stdin, timeout=120)
    return subprocess.CompletedProcess(words, child.returncode, out, said)


class Terminal:
    """A command that runs in a terminal of its own: what it shows, and a keyboard for it."""

    def __init__(self, herd: Any, *words: str, **env: str) -> None:
        ours, theirs = pty.openpty()
        self._keyboard = ours
        self.shown = ""
        self.process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, *words],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            # Ctrl-C is a signal to the terminal's own processes, which these have to be.
            start_new_session=True,
            env={**herd.env, "TERM": "dumb", "NO_COLOR": "1", "COLUMNS": "200", **env},
            cwd=herd.folder,
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
