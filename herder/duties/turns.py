"""Rows that a duty finds again and again, since they can be neither done nor set aside.

A duty takes the first rows that are due. One that stays due, whatever is tried, is among them each
time, and enough of them would be all that is ever found. So a duty walks through what is due from
a cursor on, and begins anew at the end; and what was tried in vain is tried less and less often.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

MAX_REMEMBERED = 10_000
"""Rows whose tries are remembered; those beyond are tried each time that they are found."""

MAX_WAIT_US = 60_000_000
"""The longest wait before a row is tried again."""

Row = TypeVar("Row")
Cursor = TypeVar("Cursor", bound=object)


class Turns(Generic[Row, Cursor]):
    """The walk of one duty through what is due. One thread at a time.

    Args:
        first: the cursor that stands before every row.
        cursor_of: a row's own, in the order in which rows are found; no two share one.
        clock_us: the time, in microseconds since the epoch.

    Attributes:
        after: only rows after this cursor are to be looked for.
    """

    def __init__(
        self, first: Cursor, cursor_of: Callable[[Row], Cursor], clock_us: Callable[[], int]
    ) -> None:
        self.after = first
        self._first = first
        self._cursor_of = cursor_of
        self._clock_us = clock_us
        self._tries: dict[Cursor, tuple[int, int]] = {}
        """The number of tries in vain of a row, and the time of the last."""
        self._found: set[Cursor] = set()

    def due(self, rows: Sequence[Row]) -> list[Row]:
        """Return those of the rows that are to be tried now; notes that they are here still."""
        cursors = [self._cursor_of(row) for row in rows]
        self._found.update(one for one in cursors if one in self._tries)
        now_us = self._clock_us()
        return [row for row, one in zip(rows, cursors, strict=True) if self._is_due(one, now_us)]

    def _is_due(self, cursor: Cursor, now_us: int) -> bool:
        tries, tried_us = self._tries.get(cursor, (0, 0))
        if tries < 2:
            return True  # what was in the way may have passed
        wait_us = min(MAX_WAIT_US, 1_000_000 << min(tries - 2, 16))
        return not tried_us <= now_us < tried_us + wait_us  # a clock may be set back

    def failed(self, rows: Sequence[Row]) -> None:
        """Note rows that were tried in vain: they are to wait, longer each time."""
        now_us = self._clock_us()
        for row in rows:
            cursor = self._cursor_of(row)
            if cursor in self._tries or len(self._tries) < MAX_REMEMBERED:
                tries, _ = self._tries.get(cursor, (0, 0))
                self._tries[cursor] = (tries + 1, now_us)
                self._found.add(cursor)

    def turn(self, rows: Sequence[Row], limit: int) -> bool:
        """Go on behind the rows that were found; at the end, begin anew.

        Args:
            rows: all that were found, whether or not they were tried.
            limit: how many were looked for.

        Returns:
            Whether there may be more behind them.
        """
        if len(rows) >= limit:
            self.after = self._cursor_of(rows[-1])
            return True
        self.after = self._first
        # What was not found again on the whole way is done.
        self._tries = {one: last for one, last in self._tries.items() if one in self._found}
        self._found.clear()
        return False
