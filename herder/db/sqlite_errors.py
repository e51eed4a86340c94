"""Understands what SQLite and its disk say: as an error of ours, with what to do about it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from herder.errors import HerdError, HerdUnavailable, SetupError

MIN_FREE_BYTES = 64 * 1024
"""Bytes below which a disk counts as full: SQLite needs as much to open a database."""

FULL = "The disk of the database is full; make room there and try again."
READ_ONLY = (
    "The disk of the database is read-only; look at this machine's log, and mount it anew for "
    "writing."
)
FAILING = "The disk of the database answers with errors; look at this machine's log."


class _Disk(HerdUnavailable):
    """The disk does not take what is written; nothing of it is the order's fault."""

    told_callers = "The herd's database is out of reach; try again."


class DiskFailed(_Disk):
    """The disk failed: if that was in a commit, it may have happened."""


def meaning(reason: str, path: str | None) -> HerdError | None:
    """Return the herd's error for SQLite's words; None: what was asked cannot be done.

    Args:
        reason: SQLite's words.
        path: of the database's file; None where it is in memory.
    """
    if "no such table" in reason or "no such column" in reason:
        return SetupError(
            "The database has no tables of this version; `herd init` brings it up to date."
        )
    if "not a database" in reason or "malformed" in reason:
        return SetupError("The database file is damaged, or is not a database.")
    if "locked" in reason or "busy" in reason:
        return HerdUnavailable("The database is busy; try again.")
    if "is full" in reason:
        return _Disk(FULL)
    if "I/O error" in reason:
        return DiskFailed(_trouble(path) or FAILING)
    # SQLite says these two of a disk that is full or read-only, too.
    if "unable to open" in reason:
        if path is not None and Path(path).exists():
            return _of_disk(path) or SetupError(
                f"This user cannot open the database {path}; use the user that made it."
            )
        return SetupError("The database cannot be opened; `herd init` creates it.")
    if "readonly" in reason:
        return _of_disk(path) or SetupError(
            "This user cannot write to the database; use the user that made it."
        )
    return None


def not_locked(database: Path, error: OSError) -> HerdError:
    """Return the error of a lock file, by which processes take turns, that cannot be had."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return _Disk(FULL)
    if error.errno == errno.EROFS:
        return _Disk(READ_ONLY)
    return SetupError(
        f"The database folder {database.parent} cannot be written to ({error.strerror}); "
        "`herd init` creates it."
    )


def _of_disk(path: str | None) -> HerdError | None:
    said = _trouble(path)
    return None if said is None else _Disk(said)


def _trouble(path: str | None) -> str | None:
    """Return the trouble with the disk that a file is on, as far as can be seen."""
    if path is None:
        return None
    try:
        disk = os.statvfs(Path(path).parent)
    except OSError:
        return None
    if disk.f_flag & os.ST_RDONLY:
        return READ_ONLY
    return FULL if disk.f_bavail * disk.f_frsize < MIN_FREE_BYTES else None
