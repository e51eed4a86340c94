"""Keeps files that hold prompts, money or keys to their owner: 0600, whatever the umask says."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

OTHERS = stat.S_IRWXG | stat.S_IRWXO


def make_private(path: Path) -> None:
    """Make an empty file that only its owner may read, unless it is there.

    Without opening it where that can be: whoever closes a file of SQLite lets go of the locks that
    its process holds on it. A folder that is missing, or may not be written to, is for whoever
    opens the file to complain of.
    """
    mode = stat.S_IRUSR | stat.S_IWUSR
    try:
        os.mknod(path, mode | stat.S_IFREG)
    except PermissionError:  # of systems where only root may; or of the folder
        with suppress(OSError):
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode))
    except OSError:
        pass


def close_to_others(*paths: Path) -> None:
    """Take from files whatever others may do with them; those of other users stay as they are."""
    for path in paths:
        with suppress(OSError):
            mode = stat.S_IMODE(path.stat().st_mode)
            if mode & OTHERS:
                path.chmod(mode & ~OTHERS)


def open_mode(folder: Path) -> str | None:
    """Return the mode of a folder that others may use, such as `0755`; None where they may not."""
    try:
        mode = stat.S_IMODE(folder.stat().st_mode)
    except OSError:
        return None
    return f"{mode:04o}" if mode & OTHERS else None
