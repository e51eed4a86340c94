"""SQL about the survey: how long each model's book was, and how far down it each rank stood."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, case, delete, func, select

from herder.db.tables import IS_QUEUED, orders, survey
from herder.store.upsert import insert_or


class Mark(NamedTuple):
    """The place of one rank's orders in the book.

    Attributes:
        rank: theirs.
        above: orders of a higher rank.
        ahead: orders of a higher rank or this one: those before whoever comes at this rank next.
        tokens: what those ahead asked for.
    """

    rank: int
    above: int
    ahead: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Survey:
    """A model's book as it was counted, best rank first; the last mark is the end of the book."""

    at_us: int
    marks: tuple[Mark, ...]


_BOOK = (orders.c.model == bindparam("model"), IS_QUEUED)
_BELOW = orders.c.rank < bindparam("below")
_FROM = orders.c.rank >= bindparam("from_rank")
_ABOVE = orders.c.rank > bindparam("from_rank")
_REACH = (
    select(orders.c.rank)
    .where(*_BOOK, _BELOW)
    .order_by(orders.c.rank.desc())
    .limit(1)
    .offset(bindparam("skipped"))
)
_LAST = select(orders.c.rank).where(*_BOOK, _BELOW).order_by(orders.c.rank, orders.c.seq.desc())
_COUNT = select(
    func.coalesce(func.sum(case((_ABOVE, 1), else_=0)), 0),
    func.count(),
    func.coalesce(func.sum(orders.c.tokens), 0),
).where(*_BOOK, _BELOW, _FROM)


def count_on(connection: Connection, model: str, after: Mark, step: int) -> Mark | None:
    """Count the orders of a model that rank below a mark, `step` of them and whoever ranks equal.

    Returns:
        The mark that this reached, or None where nothing ranks below.
    """
    given = {"model": model, "below": after.rank, "skipped": step - 1}
    reached = connection.execute(_REACH, given).scalar_one_or_none()
    if reached is None:
        reached = connection.execute(_LAST.limit(1), given).scalar_one_or_none()
    if reached is None:
        return None
    above, count, tokens = connection.execute(_COUNT, {**given, "from_rank": reached}).one()
    return Mark(
        int(reached), after.ahead + int(above), after.ahead + int(count), after.tokens + int(tokens)
    )


def write(connection: Connection, model: str, at_us: int, marks: Sequence[Mark]) -> None:
    """Keep a survey, in place of the one before; two herders may write a book's first at once."""
    values = {"model": model, "at_us": at_us, "marks": [list(mark) for mark in marks]}
    row = insert_or(connection, survey).values(**values)
    connection.execute(row.on_conflict_do_update(index_elements=[survey.c.model], set_=values))


def forget(connection: Connection, model: str) -> None:
    """Forget a book's survey: once it is short again, it is counted on each call."""
    connection.execute(delete(survey).where(survey.c.model == model))


_READ = select(survey.c.at_us, survey.c.marks).where(survey.c.model == bindparam("model"))
_AT = select(survey.c.at_us).where(survey.c.model == bindparam("model"))


def surveyed_us(connection: Connection, model: str) -> int | None:
    """Return the time at which a model's book was counted last; None if it is not kept."""
    at_us = connection.execute(_AT, {"model": model}).scalar_one_or_none()
    return None if at_us is None else int(at_us)


def read(connection: Connection, model: str) -> Survey | None:
    """Return the survey of a model's book, if one is kept."""
    row = connection.execute(_READ, {"model": model}).one_or_none()
    if row is None:
        return None
    return Survey(row.at_us, tuple(map(Mark._make, row.marks)))
