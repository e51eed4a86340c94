"""Runs a long command, keeps all that it says in a log, and shows that it goes on."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

from .errors import StepFailed

FIRST_LINE_S = 3.0
QUIET_LINE_S = 15.0
"""Seconds to the first line and between two, where the output is no terminal. What is done sooner
has its last line only."""

TAIL_LINES = 30

Detail = Callable[[str], str | None]
"""What a line of the command's output says about how far it is; None if nothing."""

_NINJA = re.compile(r"^\s*(\[\d+/\d+\]) ")
_PIP = re.compile(
    r"^\s*(Collecting [\w.\-\[\]]+|Building wheel for [\w.\-]+|Installing \w+ packages)"
)


def ninja_detail(line: str) -> str | None:
    """Return the count of targets done, `[57/83]`, that ninja puts in front of each."""
    found = _NINJA.match(line)
    return found.group(1) if found else None


def pip_detail(line: str) -> str | None:
    """Return what pip is at: `Collecting numpy`."""
    found = _PIP.match(line)
    return found.group(1) if found else None


def elapsed(seconds: float) -> str:
    """Seconds as `0:07`, `12:34`, `1:02:03`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Line:
    """A line about work that goes on: redrawn in place on a terminal, elsewhere repeated."""

    def __init__(
        self, title: str, out: IO[str], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._title = title
        self._out = out
        self._clock = clock
        self._began_s = clock()
        self._in_place = out.isatty()
        self._next_s = self._began_s + FIRST_LINE_S

    def show(self, detail: str | None) -> None:
        """Show the time since the start and `detail`; without a terminal, if it is time again."""
        now_s = self._clock()
        text = "  ".join(filter(None, [self._title, detail, elapsed(now_s - self._began_s)]))
        if self._in_place:
            width = shutil.get_terminal_size().columns - 1
            self._out.write(f"\r\x1b[2K{text[:width]}")
        elif now_s >= self._next_s:
            self._out.write(f"{text}\n")
            self._next_s = now_s + QUIET_LINE_S
        else:
            return
        self._out.flush()

    def end(self, word: str) -> None:
        """Print the last word about it: `done`, `failed`."""
        start = "\r\x1b[2K" if self._in_place else ""
        took = elapsed(self._clock() - self._began_s)
        self._out.write(f"{start}{self._title}: {word} after {took}\n")
        self._out.flush()


def run(
    title: str,
    command: Sequence[str],
    log: Path,
    *,
    detail: Detail = lambda _: None,
    environ: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> None:
    """Run `command` with its output appended to `log`, and a line that shows how far it is.

    Raises:
        StepFailed: it ended with another exit status than 0. The end of the log is in the error.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    line = Line(title, sys.stdout)
    latest: list[str | None] = [None]
    with log.open("a", errors="replace") as kept:
        kept.write(f"$ {' '.join(command)}\n")
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=environ,
            cwd=folder,
            start_new_session=True,  # so that it can be ended with all that it started
        )

        def read() -> None:
            assert process.stdout is not None
            for text in process.stdout:
                kept.write(text)
                latest[0] = detail(text) or latest[0]

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        try:
            while reader.is_alive():
                line.show(latest[0])
                reader.join(timeout=1.0)
            status = process.wait()
        except BaseException:  # Ctrl-C above all: nothing may go on compiling behind the prompt
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()
            line.end("stopped")
            raise
    line.end("done" if status == 0 else "failed")
    if status != 0:
        lines = log.read_text(errors="replace").splitlines()
        raise StepFailed(title, status, log, "\n".join(lines[-TAIL_LINES:]))
