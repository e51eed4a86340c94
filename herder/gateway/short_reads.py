"""Short reads of the database, from the event loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from anyio.to_thread import run_sync

from herder.db.database import Database, short_reads

Found = TypeVar("Found")


async def look(database: Database, read: Callable[[], Found]) -> Found:
    """Take a short read: some rows by their keys, a place in the book.

    Where the database answers at once it is taken here: it needs a tenth of a millisecond, and to
    hand it to a thread and back needs several times that, all of it under the same interpreter
    lock. What reads many rows, or writes, goes to a thread (`anyio.to_thread`), and takes none of
    the connections that are used here: this must not wait on the event loop for one.

    Args:
        database: what is read.
        read: the read, with transactions of its own.
    """

    def short() -> Found:
        with short_reads():
            return read()

    return short() if database.reads_at_once else await run_sync(short)
