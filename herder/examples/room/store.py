"""Messages and members: all SQL of the room, on a SQLite file of its own.

One process has the file. Statements are short and take a mutex; a message is on disk before its
sender is answered.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog

from herder.errors import HerdUnavailable, SetupError
from herder.examples.room.rules import Said
from workers.transport.private_files import close_to_others

_log = structlog.get_logger("herder.examples.room")

APPLICATION_ID = 0x68_52_6F_6D  # hRom: a file of another program is never taken for ours
VERSION = 1
SCHEMA = """
CREATE TABLE member (
    id TEXT PRIMARY KEY,
    room TEXT NOT NULL,
    name TEXT NOT NULL COLLATE NOCASE,
    digest TEXT NOT NULL UNIQUE,
    seen_us INTEGER NOT NULL,
    UNIQUE (room, name)
) STRICT;
CREATE TABLE message (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    room TEXT NOT NULL,
    name TEXT NOT NULL,
    member TEXT NOT NULL,
    text TEXT NOT NULL,
    at_us INTEGER NOT NULL
) STRICT;
CREATE INDEX message_of_room ON message (room, id);
CREATE TABLE forgotten (room TEXT PRIMARY KEY, id INTEGER NOT NULL) STRICT;
"""
_COLUMNS = "id, name, member, text, at_us"


@dataclass(frozen=True, slots=True)
class Member:
    """A member: the holder of a name in a room.

    Attributes:
        id: drawn at joining.
        room: where.
        name: the name.
        seen_us: when it was seen last, in microseconds since the epoch, to the minute.
    """

    id: str
    room: str
    name: str
    seen_us: int


class Store:
    """The file.

    Args:
        path: where it is, or is made.

    Raises:
        SetupError: another room has it, it is something else, or it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._mutex = threading.Lock()
        self._handle = _only_one(path)
        try:
            self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=FULL")
            self._make_tables(path)
        except sqlite3.Error as error:
            raise SetupError(f"The room's file {path} cannot be used ({error}).") from None

    def _make_tables(self, path: Path) -> None:
        found = self._connection.execute("PRAGMA application_id").fetchone()[0]
        version = self._connection.execute("PRAGMA user_version").fetchone()[0]
        if (found, version) == (APPLICATION_ID, VERSION):
            return
        if self._connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
            raise SetupError(
                f"The file {path} was not made by this version's room; choose another file."
            )
        marks = f"PRAGMA application_id={APPLICATION_ID}; PRAGMA user_version={VERSION};"
        self._connection.executescript(f"BEGIN IMMEDIATE; {SCHEMA} {marks} COMMIT;")

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._mutex, _translated():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    # Members

    def join(self, member: Member, digest: str, free_us: int, most: int) -> bool | None:
        """Give a name to somebody, unless another has it.

        Args:
            member: who.
            digest: of the token that will be shown.
            free_us: names whose holders were seen last before this are free.
            most: members that a room may have.

        Returns:
            False if the name is taken, None if the room is full.
        """
        with self._writing() as connection:
            connection.execute("DELETE FROM member WHERE seen_us < ?", (free_us,))
            taken = "SELECT 1 FROM member WHERE room = ? AND name = ?"
            if connection.execute(taken, (member.room, member.name)).fetchone():
                return False
            count = "SELECT count(*) FROM member WHERE room = ?"
            if connection.execute(count, (member.room,)).fetchone()[0] >= most:
                return None
            connection.execute(
                "INSERT INTO member (id, room, name, digest, seen_us) VALUES (?, ?, ?, ?, ?)",
                (member.id, member.room, member.name, digest, member.seen_us),
            )
        return True

    def leave(self, member_id: str) -> None:
        """Free a name."""
        with self._writing() as connection:
            connection.execute("DELETE FROM member WHERE id = ?", (member_id,))

    def seen(self, member_id: str, now_us: int) -> None:
        """Note that somebody is still there."""
        with self._writing() as connection:
            connection.execute("UPDATE member SET seen_us = ? WHERE id = ?", (now_us, member_id))

    def member(self, digest: str) -> Member | None:
        """Return the name whose token has this digest."""
        wanted = "SELECT id, room, name, seen_us FROM member WHERE digest = ?"
        with self._mutex, _translated():
            found = self._connection.execute(wanted, (digest,)).fetchone()
        return Member(*found) if found else None

    def members(self, room: str, free_us: int) -> list[str]:
        """Return the names that are held in a room."""
        wanted = "SELECT name FROM member WHERE room = ? AND seen_us >= ? ORDER BY name"
        with self._mutex, _translated():
            return [row[0] for row in self._connection.execute(wanted, (room, free_us))]

    # Messages

    def add(self, member: Member, text: str, now_us: int, keep: int) -> Said:
        """Keep a message, and forget the oldest beyond `keep` of its room."""
        with self._writing() as connection:
            added = connection.execute(
                "INSERT INTO message (room, name, member, text, at_us) VALUES (?, ?, ?, ?, ?)",
                (member.room, member.name, member.id, text, now_us),
            ).lastrowid
            assert added is not None
            oldest = connection.execute(
                "SELECT id FROM message WHERE room = ? ORDER BY id DESC LIMIT 1 OFFSET ?",
                (member.room, keep),
            ).fetchone()
            if oldest is not None:
                connection.execute(
                    "DELETE FROM message WHERE room = ? AND id <= ?", (member.room, oldest[0])
                )
                connection.execute(
                    "INSERT INTO forgotten (room, id) VALUES (?, ?) "
                    "ON CONFLICT (room) DO UPDATE SET id = excluded.id",
                    (member.room, oldest[0]),
                )
        return Said(added, member.name, member.id, text, now_us)

    def after(self, room: str, after: int, limit: int) -> tuple[list[Said], int]:
        """Return the messages of a room that came after one, oldest first.

        Returns:
            The messages, and the id of the newest of the room that was forgotten (0: none was).
        """
        wanted = f"SELECT {_COLUMNS} FROM message WHERE room = ? AND id > ? ORDER BY id LIMIT ?"  # noqa: S608
        with self._mutex, _translated():
            found = [Said(*row) for row in self._connection.execute(wanted, (room, after, limit))]
            gone = self._connection.execute(
                "SELECT id FROM forgotten WHERE room = ?", (room,)
            ).fetchone()
        return found, int(gone[0]) if gone else 0

    def last(self, room: str, limit: int) -> list[Said]:
        """Return the last messages of a room, oldest first."""
        wanted = f"SELECT {_COLUMNS} FROM message WHERE room = ? ORDER BY id DESC LIMIT ?"  # noqa: S608
        with self._mutex, _translated():
            found = self._connection.execute(wanted, (room, limit)).fetchall()
        return [Said(*row) for row in reversed(found)]

    def count(self, room: str) -> int:
        """Return the number of a room's messages that are kept."""
        wanted = "SELECT count(*) FROM message WHERE room = ?"
        with self._mutex, _translated():
            return int(self._connection.execute(wanted, (room,)).fetchone()[0])

    def close(self) -> None:
        """Give the file back."""
        with self._mutex:
            self._connection.close()
            os.close(self._handle)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        # Nothing was said in it: SQLite quotes no values.
        _log.warning("room_file_failed", reason=str(error))
        raise HerdUnavailable("The room cannot use its file now; try again.") from error


def _only_one(path: Path) -> int:
    """Hold the file for this process: who writes elsewhere would wake nobody that waits here."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # The database too: only its owner may read what was said.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        close_to_others(*(Path(f"{path}{end}") for end in ("", "-wal", "-shm", ".lock")))
        handle = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise SetupError(
            f"The room's file {path} cannot be written to ({error.strerror}); choose another with "
            "--file."
        ) from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise SetupError(
            f"Another room already uses {path}; choose another file with --file."
        ) from None
    return handle
