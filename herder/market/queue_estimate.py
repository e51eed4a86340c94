"""Estimates of places far down a long book, which is counted little by little.

A place beyond the first thousand is not worth counting for each caller, nor worth a counter that
every submission writes: on PostgreSQL all of them would wait for its row. So herders walk down each
long book beside their other work, a few thousand orders a second by its index alone, best rank
first, and write down how many they passed: some hundred marks. A place is then looked for between
two of them. It is off by less than what lies between them (a hundredth of the book, however many
orders share a rank), and by what came and went since.

Frozen: it changes only where it is wrong. All of it is behind one word of a receipt, "about", that
users see beyond the thousandth place: counting from a mark, thinning and looking between two are
each needed for its bound, and what is finer than that nobody asked for. Without it such places, and
the wait that quotes tell there, would be unknown.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from itertools import pairwise

from herder.db.database import Database
from herder.domain.pricing import RANK_CAP
from herder.store import book as book_sql
from herder.store import models as model_sql
from herder.store import survey as survey_sql
from herder.store.survey import Mark
from herder.types import PLACE_COUNTED

STEP = 2_000
MAX_STEPS = 10
"""The steps of one call: some milliseconds, so that a herder's other work is not held up."""

MAX_MARKS = 256

EVERY_US = 60_000_000
"""The age of a survey at which the book is counted again."""

TOO_OLD_US = 15 * EVERY_US
"""The age at which it is no longer used: no herder has counted since."""

START = Mark(RANK_CAP + 1, 0, 0, 0)
"""The head of the book: nobody ranks so high."""


class QueueSampler:
    """Walks down the long books of all models, one after the other."""

    def __init__(self, database: Database, *, clock_us: Callable[[], int]) -> None:
        self._database = database
        self._clock_us = clock_us
        self._model: str | None = None
        self._marks: list[Mark] = []
        self._began_us = 0
        self._short: list[str] = []

    def step(self) -> bool:
        """Count on for a moment; a survey is written down once its book was counted to the end.

        Several herders may count the same book; whoever ends last is believed.

        Returns:
            Whether there is more to count, of this book or of another.
        """
        if self._model is None:
            self._choose()
        if self._model is None:
            return False
        if self._count(self._model):
            with self._database.write() as connection:
                survey_sql.write(connection, self._model, self._began_us, thinned(self._marks))
            self._model = None
        return True

    def _choose(self) -> None:
        """Take up a model whose book is long, and was not counted lately."""
        now_us = self._clock_us()
        with self._database.read() as connection:
            for model in model_sql.list_models(connection):
                at_us = survey_sql.surveyed_us(connection, model.name)
                count, _ = book_sql.queue_length(connection, model.name)
                if count <= PLACE_COUNTED:
                    if at_us is not None:
                        self._short.append(model.name)
                elif at_us is None or not at_us <= now_us < at_us + EVERY_US:
                    self._model, self._marks, self._began_us = model.name, [START], now_us
                    break
        if self._short:
            self._forget()

    def _forget(self) -> None:
        """Forget what was counted: if these books grew again, it would give wrong places."""
        with self._database.write() as connection:
            for model in self._short:
                survey_sql.forget(connection, model)
        self._short = []

    def _count(self, model: str) -> bool:
        """Return whether the end of the book is reached."""
        with self._database.read() as connection:
            for _ in range(MAX_STEPS):
                reached = survey_sql.count_on(connection, model, self._marks[-1], STEP)
                if reached is None:
                    return True
                self._marks.append(reached)
        return False


def thinned(marks: Sequence[Mark]) -> list[Mark]:
    """Return at most `MAX_MARKS` of the marks, including the first and the last.

    One may go where little lies between its neighbours, however many orders share its rank. Of
    three that stay, more than `apart` orders lie between the first and the last.
    """
    apart = 2 * marks[-1].ahead // (MAX_MARKS - 2)
    kept = [marks[0]]
    for mark, following in pairwise(marks[1:]):
        if following.above - kept[-1].ahead > apart:
            kept.append(mark)
    return [*kept, marks[-1]]


def ahead(marks: Sequence[Mark], rank: int) -> tuple[int, int]:
    """(orders, tokens) before an order of this rank that comes now, as the marks have it.

    Args:
        marks: of a survey, best rank first; the last is the end of the book.
        rank: the order's.
    """
    # The marks of this rank or a higher one come first; the order stands behind them.
    place = bisect_left(marks, True, key=lambda mark: mark.rank < rank)
    before = marks[max(0, place - 1)]
    if place == len(marks):
        return before.ahead, before.tokens
    after = marks[place]
    between = after.above - before.ahead
    passed = between * (before.rank - rank) // (before.rank - after.rank)
    tokens = (after.tokens - before.tokens) * passed // max(1, after.ahead - before.ahead)
    return before.ahead + passed, before.tokens + tokens
