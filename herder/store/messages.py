"""SQL about messages: the inboxes of accounts, and the keys that messages came with."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import (
    Connection,
    Text,
    bindparam,
    cast,
    delete,
    exists,
    func,
    insert,
    select,
    update,
)

from herder.db.tables import account, message, message_key, order_text


@dataclass(frozen=True, slots=True)
class Stored:
    """A message in an inbox.

    Attributes:
        number: counts the account's messages, from 1.
        in_reply_to: the id of the message that it answers, or None.
        order_id: the order whose end it tells, or None.
        tags: None where they cannot be read.
        characters: of that order's text, or None where there is none, or it was deleted.
    """

    number: int
    at_us: int
    in_reply_to: str | None
    order_id: str | None
    tags: dict[str, str] | None
    characters: int | None


class NewMessage(NamedTuple):
    """A message that comes into an inbox; the fields are columns, and as `Stored` has them."""

    account: str
    number: int
    at_us: int
    in_reply_to: str | None
    order_id: str | None
    tags: dict[str, str]


@dataclass(frozen=True, slots=True)
class Keyed:
    """The outcome of a message that came with an idempotency key."""

    fingerprint: str
    message: str
    order_id: str | None


_DRAW = (
    update(account)
    .where(account.c.name == bindparam("which"))
    .values(messages=account.c.messages + bindparam("more"))
    .returning(account.c.messages)
)
_INSERT = insert(message)
_TRIM = delete(message).where(
    message.c.account == bindparam("which"),
    message.c.number.in_(
        select(message.c.number)
        .where(
            message.c.account == bindparam("which"),
            message.c.number <= bindparam("upto"),
            message.c.order_id.is_(None),
        )
        .order_by(message.c.number)
        .limit(bindparam("limit"))
    ),
)
_PAGE = (
    select(
        message.c.number,
        message.c.at_us,
        message.c.in_reply_to,
        message.c.order_id,
        # As text: one that is no JSON would keep the page from being read.
        cast(message.c.tags, Text).label("tags"),
        func.length(func.coalesce(order_text.c.answer, "")).label("characters"),
        order_text.c.order_id.label("has_text"),
    )
    .join_from(message, order_text, order_text.c.order_id == message.c.order_id, isouter=True)
    .where(message.c.account == bindparam("which"), message.c.number > bindparam("after"))
    .order_by(message.c.number)
    .limit(bindparam("limit"))
)
_ANSWERS = select(order_text.c.order_id, order_text.c.answer).where(
    order_text.c.order_id.in_(bindparam("ids", expanding=True))
)
_NEWEST = select(account.c.name, account.c.messages).where(
    account.c.name.in_(bindparam("names", expanding=True))
)
_BY_KEY = select(message_key.c.fingerprint, message_key.c.message, message_key.c.order_id).where(
    message_key.c.account == bindparam("which"),
    message_key.c.idempotency_key == bindparam("key"),
)


def draw_numbers(connection: Connection, name: str, count: int) -> int | None:
    """Numbers for messages to an account: the last of `count`; None if there is no such account.

    The account's row stays locked until the transaction ends, and whoever comes after draws higher
    ones: so numbers become visible in their order.
    """
    last = connection.execute(_DRAW, {"which": name, "more": count}).scalar_one_or_none()
    return None if last is None else int(last)


def insert_messages(connection: Connection, rows: Sequence[NewMessage]) -> None:
    """Put messages into inboxes, under numbers that were drawn for them."""
    connection.execute(_INSERT, [row._asdict() for row in rows])


def trim(connection: Connection, name: str, upto: int, limit: int) -> None:
    """Delete an account's oldest messages up to a number, but for the answers of its orders."""
    connection.execute(_TRIM, {"which": name, "upto": upto, "limit": limit})


def page(connection: Connection, name: str, after: int, limit: int) -> list[Stored]:
    """Messages of an account after a number, oldest first; without the texts of orders."""
    rows = connection.execute(_PAGE, {"which": name, "after": after, "limit": limit})
    return [
        Stored(
            number=row.number,
            at_us=row.at_us,
            in_reply_to=row.in_reply_to,
            order_id=row.order_id,
            tags=_tags_of(row.tags),
            characters=None if row.has_text is None else int(row.characters),
        )
        for row in rows
    ]


def _tags_of(stored: object) -> dict[str, str] | None:
    """Return a message's tags; None if they cannot be read."""
    try:
        found = json.loads(str(stored))
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        return None
    return found


def answers(connection: Connection, order_ids: Iterable[str]) -> dict[str, str]:
    """Return the texts that orders ended with, by order; those that were deleted are left out."""
    wanted = sorted(order_ids)
    if not wanted:
        return {}
    rows = connection.execute(_ANSWERS, {"ids": wanted})
    return {row.order_id: str(row.answer or "") for row in rows}


def newest(connection: Connection, names: Iterable[str]) -> dict[str, int]:
    """Return the number of the newest message of accounts, by name."""
    wanted = sorted(set(names))
    if not wanted:
        return {}
    return {row.name: int(row.messages) for row in connection.execute(_NEWEST, {"names": wanted})}


def is_answered(connection: Connection, name: str, to: str) -> bool:
    """Return whether an inbox has an answer to a message.

    Reads all of the inbox, and is rarely called.

    Args:
        connection: a transaction.
        name: the account.
        to: the id of the message.
    """
    answered = select(message.c.number).where(
        message.c.account == name, message.c.in_reply_to == to
    )
    return connection.execute(answered.limit(1)).first() is not None


def find_key(connection: Connection, name: str, key: str) -> Keyed | None:
    """Return the message that an account sent under an idempotency key."""
    row = connection.execute(_BY_KEY, {"which": name, "key": key}).one_or_none()
    return None if row is None else Keyed(*row)


def add_key(
    connection: Connection,
    name: str,
    key: str,
    found: Keyed,
    now_us: int,
) -> None:
    """Note what an account sent under an idempotency key. Its row is locked."""
    connection.execute(
        insert(message_key).values(
            account=name,
            idempotency_key=key,
            fingerprint=found.fingerprint,
            message=found.message,
            order_id=found.order_id,
            created_us=now_us,
        )
    )


_FORGETTABLE = select(message.c.account, message.c.number).where(
    ~exists().where(order_text.c.order_id == message.c.order_id)
)


def forgettable(
    connection: Connection, *, before_us: int | None, name: str | None, limit: int
) -> list[tuple[str, int]]:
    """(account, number) of messages that go with the texts of their time.

    Args:
        connection: a transaction.
        before_us: only those that came before; None for any.
        name: only this account's.
        limit: how many at most. None is among them whose order still has its text.
    """
    query = _FORGETTABLE.limit(limit)
    if before_us is not None:
        query = query.where(message.c.at_us < before_us)
    if name is not None:
        query = query.where(message.c.account == name)
    return [(row.account, row.number) for row in connection.execute(query)]


_DELETE = delete(message).where(
    message.c.account == bindparam("which"), message.c.number == bindparam("at")
)


def delete_messages(connection: Connection, found: Iterable[tuple[str, int]]) -> None:
    """Forget messages."""
    rows = [{"which": name, "at": number} for name, number in sorted(found)]
    if rows:
        connection.execute(_DELETE, rows)
