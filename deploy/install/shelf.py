"""The folder of built wheels that the virtual environments of one user share.

    ~/.cache/llama-herder/wheels/
        .lock                   one set-up at a time; others wait
        .building-<random>/     where a build is made; moved into place when it is whole
        <key>/                  one folder per build, named by `builds.wheel_key`
            llama_cpp_python-....whl
            build.log
            failed              why it was given up, if it was; the wheel is gone then

Nothing depends on it: who removes it, or a part of it, compiles again at the next need.
"""

from __future__ import annotations

import fcntl
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .progress import Line

POLL_S = 1.0


def default_folder() -> Path:
    """Return where the wheels of this user are kept."""
    return Path.home() / ".cache" / "llama-herder" / "wheels"


class Shelf:
    """The wheels of one folder, and what was learnt about them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def wheel(self, key: str) -> Path | None:
        """Return the wheel kept as `key`, if there is one."""
        return next(iter(sorted((self.folder / key).glob("*.whl"))), None)

    def log(self, key: str) -> Path:
        """Return the log of the build `key`."""
        return self.folder / key / "build.log"

    def failure(self, key: str) -> str | None:
        """Return why the build `key` was given up; None if it was not."""
        try:
            return (self.folder / key / "failed").read_text().strip()
        except FileNotFoundError:
            return None

    def give_up(self, key: str, reason: str) -> None:
        """Remember that the build `key` is no good here, so that nobody builds it again."""
        place = self.folder / key
        place.mkdir(parents=True, exist_ok=True)
        written = place / "failed.new"
        written.write_text(f"{reason}\n")
        written.replace(place / "failed")
        for wheel in place.glob("*.whl"):
            wheel.unlink()

    def keep(self, key: str, wheel: Path) -> Path:
        """Move `wheel`, built in a `workbench`, to its place in one step; returns the place."""
        place = self.folder / key
        place.mkdir(parents=True, exist_ok=True)
        return wheel.replace(place / wheel.name)

    @contextmanager
    def workbench(self) -> Iterator[Path]:
        """Provide a folder to build in, on the same file system; call it under `lock`."""
        for left in self.folder.glob(".building-*"):  # by a build that was killed
            shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=".building-", dir=self.folder) as bench:
            yield Path(bench)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the lock for one set-up at a time; it is released when the process ends."""
        with (self.folder / ".lock").open("a") as held:
            line = None
            while True:
                try:
                    fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    line = line or Line(
                        "Another set-up is at work here; waiting for it", sys.stdout
                    )
                    line.show(None)
                    time.sleep(POLL_S)
            if line:
                line.end("it ended")
            yield


def open_shelf(preferred: Path, instead: Path) -> Shelf:
    """Return the shelf in `preferred`, or in `instead` if that folder cannot be used."""
    try:
        preferred.mkdir(parents=True, exist_ok=True)
        with (preferred / ".lock").open("a") as held:
            fcntl.flock(held, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return Shelf(preferred)
    except OSError:
        instead.mkdir(parents=True, exist_ok=True)
        return Shelf(instead)
    return Shelf(preferred)
