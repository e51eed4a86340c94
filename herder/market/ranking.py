"""Ranks the waiting orders anew after an operator changed how waiting weighs.

A rank is an order's place of service as one number, and two numbers can be compared only if both
were worked out with the same `aging_s`. A long book is not ranked in one transaction: whoever
submits would wait for it. So the rule is:

- The change is one short transaction. From then on orders are submitted, and bid for, with ranks
  of the new kind, and every model is marked: its book may hold ranks of both kinds.
- Nothing of a marked model is dispatched. All else goes on: submissions, re-bids, cancellations,
  what runs already. So no order is served before a better one, by the old kind of rank or the new.
- All orders that were open at some moment after the change are ranked in pieces, each a transaction
  of its own; then the mark is taken away. Ranking an order twice does no harm.
- The command that made the change does it, and so does every herder, whichever gets there first: if
  the command is killed, or a herder, the others go on, and one that starts begins with it.
- A change while another is being worked off begins from the start, by its number (`rank_epoch`).

Places that are told meanwhile count both kinds of rank and may be wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from sqlalchemy import Connection

from herder.db.database import Database
from herder.domain.pricing import rank
from herder.store import book as book_sql
from herder.store import models as model_sql
from herder.store import survey as survey_sql
from herder.store.steps import RankedRow
from workers.transport.event_log import EventLog

_log = EventLog("herder.market.ranking")

MAX_AT_ONCE = 500
"""Orders that one transaction ranks at most: whoever submits waits for some hundredths of a
second."""

PAUSE_S = 0.01
"""Between two pieces, for those who wait to write."""


@dataclass(slots=True)
class _Book:
    """A book that is being ranked anew.

    Attributes:
        epoch: the change that it is ranked for.
        left: the numbers of the orders that are still to be ranked.
    """

    model: str
    epoch: int
    left: list[int]


class Ranker:
    """Ranks books anew, a piece at a time. One thread at a time."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._book: _Book | None = None
        self.ranked = 0
        """Orders that were ranked, so far."""

    def step(self, limit: int = MAX_AT_ONCE) -> bool:
        """Rank a piece of a book that is to be ranked anew.

        Args:
            limit: how many orders at most.

        Returns:
            Whether there may be more to do.
        """
        if self._book is None:
            self._book = self._next_book()
        book = self._book
        if book is None:
            return False
        # The logarithms take longest: they are taken before the transaction that writes.
        rows = self._ranks(book, book.left[-limit:])
        if rows is None or not self._database.transact(partial(_write, book=book, rows=rows)):
            self._book = None  # another change came, or another herder was faster
            return True
        del book.left[-limit:]
        self.ranked += len(rows)
        if not book.left:
            self._database.transact(lambda connection: _finish(connection, book))
            self._book = None
        return True

    def _ranks(self, book: _Book, seqs: Sequence[int]) -> list[RankedRow] | None:
        """Return the ranks of those orders that are still open.

        None if that change is no longer due.
        """
        with self._database.read() as connection:
            if (book.model, book.epoch) not in model_sql.to_rank(connection):
                return None
            aging_s = model_sql.read_policy(connection)[0].aging_s
            found = book_sql.to_rank(connection, seqs)
        rows = []
        for row in found:
            try:
                place = rank(row.fee, row.needed, aging_s=aging_s, submitted_us=row.submitted_us)
            except (ArithmeticError, ValueError, TypeError) as error:
                # It keeps the rank that it has: the others of its book would never be dispatched.
                _log.error("order_not_ranked", seq=row.seq, reason=type(error).__name__)
            else:
                rows.append(RankedRow(row.seq, row.fee, place))
        return rows

    def _next_book(self) -> _Book | None:
        """Return the next book to rank, seen as of one moment.

        An order cannot slip through between two states.
        """
        with self._database.read() as connection:
            found = model_sql.to_rank(connection)
            if not found:
                return None
            model, epoch = found[0]
            return _Book(model, epoch, book_sql.open_seqs(connection, model))


def _write(connection: Connection, book: _Book, rows: list[RankedRow]) -> bool:
    """Give orders their ranks; False if the book is no longer to be ranked for that change."""
    model_sql.share_policy(connection)
    if (book.model, book.epoch) not in model_sql.to_rank(connection):
        return False
    book_sql.rank_anew(connection, rows)
    return True


def _finish(connection: Connection, book: _Book) -> None:
    """Mark the book as ranked, and forget what was counted of it before."""
    model_sql.mark_ranked(connection, book.model, book.epoch)
    survey_sql.forget(connection, book.model)
