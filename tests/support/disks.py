"""Disks that fill, turn read-only or fail while a herd runs on them."""

from __future__ import annotations

import errno
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

BLOCK = bytes(4096)


class SmallDisk:
    """A disk of a few megabytes, in memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._filler = folder / "filler"

    def fill(self) -> None:
        """Leave no byte on it."""
        with self._filler.open("wb", buffering=0) as file:
            try:
                while file.write(BLOCK):
                    pass
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise

    def free(self) -> None:
        """Make room again."""
        self._filler.unlink(missing_ok=True)

    def set_read_only(self, is_read_only: bool) -> None:
        """Mount it anew; for reading only where nobody has a file of it open for writing."""
        how = "ro" if is_read_only else "rw"
        subprocess.run(["mount", "-o", f"remount,{how}", str(self.folder)], check=True)


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[SmallDisk]:
    """Make one for a block; skips the test where this user may mount none.

    Args:
        folder: where it is to be; made if it is not there.
        megabytes: its size.
    """
    folder.mkdir(parents=True, exist_ok=True)
    options = ["-t", "tmpfs", "-o", f"size={megabytes}m,mode=0755"]
    try:
        made = subprocess.run(["mount", *options, "tmpfs", str(folder)], capture_output=True)
    except FileNotFoundError:
        made = None
    if made is None or made.returncode:
        pytest.skip("this user may not mount a small disk")
    try:
        yield SmallDisk(folder)
    finally:
        # Whoever still has a file open there ends on their own.
        subprocess.run(["umount", "-l", str(folder)], check=True)
        folder.rmdir()


class FailingDisk:
    """No disk lets a process write beyond a file's first bytes: errors other than a lack of room.

    Args:
        pid: of the process.
        limit: in bytes: its log is shorter, and SQLite's write-ahead log is longer.
    """

    def __init__(self, pid: int, limit: int) -> None:
        if not hasattr(resource, "prlimit"):
            pytest.skip("this system sets no limits to processes that run")
        self._pid = pid
        self._limit = limit
        self._before = resource.prlimit(pid, resource.RLIMIT_FSIZE)

    def begin(self) -> None:
        """Fail from now on."""
        resource.prlimit(self._pid, resource.RLIMIT_FSIZE, (self._limit, self._before[1]))

    def end(self) -> None:
        """Work again."""
        resource.prlimit(self._pid, resource.RLIMIT_FSIZE, self._before)
