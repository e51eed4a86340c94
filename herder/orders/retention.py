"""Forgetting: prompts and texts of ended orders are deleted; receipts and transfers stay.

The text of an order is nowhere else, so that a message which tells of its end has lost it too.
Messages as old go with the texts; those of one order stay, without its text.
"""

from __future__ import annotations

from functools import partial

from herder.db.database import Database
from herder.errors import InvalidRequest
from herder.store import messages as message_sql
from herder.store import orders as order_sql

AT_ONCE = 500
"""Texts that one transaction deletes at most, so that no other waits long for the lock."""

DAY_US = 86_400_000_000
MOST_DAYS = 36_500


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
    if days is not None and (type(days) is not int or not 0 <= days <= MOST_DAYS):
        raise InvalidRequest(
            f"older_than_days must be a whole number from 0 to {MOST_DAYS}, not {str(days)[:40]}."
        )
    before_us = None if days is None else now_us - days * DAY_US
    deleted = 0
    while found := _forget_texts(database, before_us, account, order_id, AT_ONCE):
        deleted += found
    while order_id is None and _forget_messages(database, before_us, account, AT_ONCE):
        pass
    return deleted


def forget_old(database: Database, now_us: int, days: int, limit: int) -> bool:
    """Delete some of the texts and messages that are so many days old: a herder's duty.

    Args:
        database: where they stand.
        now_us: the time, in microseconds since the epoch.
        days: how long they are kept.
        limit: how many at most.

    Returns:
        Whether there may be more.
    """
    before_us = now_us - days * DAY_US
    if _forget_texts(database, before_us, None, None, limit):
        return True
    return _forget_messages(database, before_us, None, limit) > 0


def _forget_texts(
    database: Database,
    before_us: int | None,
    account: str | None,
    order_id: str | None,
    limit: int,
) -> int:
    with database.read() as connection:
        found = order_sql.ended_with_text(
            connection, before_us=before_us, account=account, order_id=order_id, limit=limit
        )
    if found:
        database.transact(partial(order_sql.delete_texts, ids=found))
    return len(found)


def _forget_messages(
    database: Database, before_us: int | None, account: str | None, limit: int
) -> int:
    """After the texts: the answer of an order that ended only now stays with its text."""
    with database.read() as connection:
        found = message_sql.forgettable(connection, before_us=before_us, name=account, limit=limit)
    if found:
        database.transact(partial(message_sql.delete_messages, found=found))
    return len(found)
