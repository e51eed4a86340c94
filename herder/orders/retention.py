"""Forgetting: prompts and texts of ended orders are deleted; receipts and transfers stay.

The text of an order is nowhere else, so that a message which tells of its end has lost it too.
Messages as old go with the texts; those of one order stay, without its text.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import takewhile
from typing import NamedTuple

from herder.db.database import Database
from herder.errors import InvalidRequest
from herder.store import messages as message_sql
from herder.store import orders as order_sql

MAX_AT_ONCE = 500
"""Texts that one transaction deletes at most, so that no other waits long for the lock."""

DAY_US = 86_400_000_000
MAX_DAYS = 36_500


def purge(
    database: Database,
    now_us: int,
    *,
    older_than_days: int | None = None,
    account: str | None = None,
    order_id: str | None = None,
) -> int:
    """Delete the prompts and texts of ended orders, and messages that came as long ago.

    Args:
        database: where they stand.
        now_us: the time, in microseconds since the epoch.
        older_than_days: only of orders that ended so many days ago.
        account: only of this account's.
        order_id: only of this one.

    Returns:
        Of how many orders.

    Raises:
        InvalidRequest: nothing says which, or the days are not valid.
    """
    if older_than_days is None and account is None and order_id is None:
        raise InvalidRequest("Say which texts to delete: by age, account or order.")
    days = older_than_days
    if days is not None and (type(days) is not int or not 0 <= days <= MAX_DAYS):
        raise InvalidRequest(
            f"older_than_days must be a whole number from 0 to {MAX_DAYS}, not {str(days)[:40]}."
        )
    before_us = None if days is None else now_us - days * DAY_US
    if order_id is not None:
        return _forget_one(database, before_us, account, order_id)
    deleted, after = 0, 0
    while True:
        piece = _forget_texts(database, after, before_us, account, MAX_AT_ONCE)
        deleted += len(piece.gone)
        if len(piece.old) < MAX_AT_ONCE:
            break
        after = piece.old[-1].seq
    while _forget_messages(database, before_us, account, MAX_AT_ONCE):
        pass
    return deleted


class OldTexts:
    """Deletes the texts and messages that are so many days old: a herder's duty.

    It walks all orders by their numbers, so many at a time, and a text that is gone is passed over
    once: the next walk begins with the first order that keeps its text. So where nothing is old,
    little is read. A walk stops at the first order that is too young to have ended so long ago.

    Args:
        database: where they stand.
        days: how long they are kept.
        clock_us: the time, in microseconds since the epoch.
    """

    def __init__(self, database: Database, days: int, *, clock_us: Callable[[], int]) -> None:
        self._database = database
        self._days = days
        self._clock_us = clock_us
        self._after = 0
        self._kept: int | None = None

    def step(self, limit: int) -> bool:
        """Look at some orders, or messages once all orders were looked at.

        Args:
            limit: how many at most.

        Returns:
            Whether there may be more.
        """
        before_us = self._clock_us() - self._days * DAY_US
        old, gone = _forget_texts(self._database, self._after, before_us, None, limit)
        if self._kept is None:
            kept = set(gone)
            self._kept = next((one.seq for one in old if one.has_text and one.id not in kept), None)
        if old:
            self._after = old[-1].seq
        if len(old) == limit:
            return True
        if self._kept is not None:
            self._after, self._kept = self._kept - 1, None
        return _forget_messages(self._database, before_us, None, limit) > 0


class _Piece(NamedTuple):
    """Orders that were looked at and are old enough, and the ids of those whose text is gone."""

    old: list[order_sql.TextOf]
    gone: list[str]


def _forget_texts(
    database: Database, after: int, before_us: int | None, account: str | None, limit: int
) -> _Piece:
    """Look at so many orders by number, from after one of them on, and forget what is old."""
    with database.read() as connection:
        found = order_sql.texts_after(connection, after, limit, account=account)
    if before_us is None:
        old = found
    else:
        old = list(takewhile(lambda one: one.submitted_us < before_us, found))
    gone = [
        one.id
        for one in old
        if one.has_text
        and one.ended_us is not None
        and (before_us is None or one.ended_us < before_us)
    ]
    if gone:
        database.transact(partial(order_sql.delete_texts, ids=gone))
    return _Piece(old, gone)


def _forget_one(
    database: Database, before_us: int | None, account: str | None, order_id: str
) -> int:
    """Forget the text of one order, if it is this account's and old enough; how many that were."""
    with database.read() as connection:
        order = order_sql.get_order(connection, order_id)
        has_text = order_sql.get_answer(connection, order_id) is not None
    if order is None or not has_text or order.ended_us is None:
        return 0
    if account not in (None, order.account) or order.ended_us >= (before_us or order.ended_us + 1):
        return 0
    database.transact(partial(order_sql.delete_texts, ids=[order_id]))
    return 1


def _forget_messages(
    database: Database, before_us: int | None, account: str | None, limit: int
) -> int:
    """After the texts: the answer of an order that ended only now stays with its text."""
    with database.read() as connection:
        found = message_sql.forgettable(connection, before_us=before_us, name=account, limit=limit)
    if found:
        database.transact(partial(message_sql.delete_messages, found=found))
    return len(found)
