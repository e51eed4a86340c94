"""The inboxes: what an account's messages are answered by, in the transaction that it tells of.

Each account's messages are numbered, and the number is drawn under the lock of the account's row,
so that they become visible in their order: a reader who goes on after the last one misses none.
The text of an order is not copied here; it is read from the order, and is gone once that forgets.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from herder.db.database import Database
from herder.domain.order import Order, State
from herder.domain.paging import MAX_HTTP_PAGE, require_limit
from herder.errors import AccountNotFound, InvalidRequest, shown
from herder.store import messages as message_sql
from herder.store.messages import NewMessage, Stored
from herder.webhooks.events import queue_messages
from workers.transport.event_log import EventLog

MAX_KEPT = 100_000
"""The number of messages kept per inbox of those that cost little or nothing to send: a newer one
replaces the oldest. Answers to orders stay as long as the orders, so that nobody can push one out
by sending many messages."""

MORE_TRIMMED = 100
"""Messages that one transaction forgets at most beside as many as it delivers: an inbox that is too
long, since it was once kept longer, shrinks little by little."""

MAX_PAGE_CHARS = 4_000_000
"""Of texts on one page, which holds at least one message however long that is."""

HERDER = "herder"
"""The sender of the messages, and the recipient of payments for prompts."""


_log = EventLog("herder.messages.inbox")

UNREADABLE = {
    "From": HERDER,
    "Action": "Unreadable",
    "X-Reason": "This message cannot be read; the herd's log has its number.",
}
"""The tags of a message whose own cannot be read: it keeps no other of its page from being read."""


@dataclass(frozen=True, slots=True)
class OutgoingMessage:
    """A message on its way into an inbox.

    Attributes:
        account: whose inbox.
        tags: all strings; without the text of an order, which is stored with the order.
        in_reply_to: the id of the message that it answers, or None.
        order_id: the order whose end it tells, or None.
    """

    account: str
    tags: dict[str, str]
    in_reply_to: str | None
    order_id: str | None = None


@dataclass(frozen=True, slots=True)
class InboxMessage:
    """A message as the account reads it.

    Attributes:
        number: counts the account's messages; the cursor.
        tags: all strings, `Data` among them.
        text_deleted: `Data` is empty because the text was deleted since.
    """

    number: int
    at_us: int
    in_reply_to: str | None
    order: str | None
    tags: dict[str, str]
    text_deleted: bool


def deliver(connection: Connection, letters: Sequence[OutgoingMessage], now_us: int) -> None:
    """Put messages into inboxes: the one way in, in the transaction that they tell of.

    Webhooks that carry messages are queued here. Accounts' rows are locked by name, as
    everywhere, and have to be before any key's or the ledger's.

    Raises:
        AccountNotFound: no account has that name.
    """
    by_account: dict[str, list[OutgoingMessage]] = {}
    told: list[tuple[str, int, dict[str, Any]]] = []
    for letter in letters:
        by_account.setdefault(letter.account, []).append(letter)
    for name, mine in sorted(by_account.items()):
        last = message_sql.draw_numbers(connection, name, len(mine))
        if last is None:
            raise AccountNotFound(name)
        rows = [
            NewMessage(
                account=name,
                number=number,
                at_us=now_us,
                in_reply_to=letter.in_reply_to,
                order_id=letter.order_id,
                tags={"From": HERDER, **letter.tags},
            )
            for number, letter in enumerate(mine, last - len(mine) + 1)
        ]
        message_sql.insert_messages(connection, rows)
        told += [(name, row.number, _told(row)) for row in rows]
        if last > MAX_KEPT:
            message_sql.trim(connection, name, last - MAX_KEPT, len(mine) + MORE_TRIMMED)
    queue_messages(connection, told, now_us)


def _told(row: NewMessage) -> dict[str, Any]:
    """Return a message as a webhook shows it.

    As the inbox shows it, but for the text of an order.
    """
    return {
        "account": row.account,
        "seq": row.number,
        "in_reply_to": row.in_reply_to,
        "order": row.order_id,
        "tags": row.tags,
    }


def told_end(order: Order) -> OutgoingMessage:
    """Return the message that tells an order's sender of its end.

    `Inference-Response` and `X-Reference` are the original's (its answer had them and the text,
    which is `Data`); an order that did not complete is ours to tell, with what came back.
    """
    assert order.message is not None, "it came by a message"
    done = order.state is State.COMPLETED
    tags = {"Action": "Inference-Response" if done else "Inference-Failed"}
    if order.reference is not None:
        tags["X-Reference"] = order.reference
    if not done:
        tags["X-Reason"] = _why(order)
    tags |= {"Charged": str(order.charged), "Returned": str(order.returned)}
    return OutgoingMessage(order.account, tags, order.message, order.id)


def _why(order: Order) -> str:
    if order.failure is not None:
        return str(order.failure.get("message", "")) or "It failed."
    if order.state is State.CANCELLED:
        return "It was cancelled."
    if order.finish_reason == "deadline" or order.begun:
        return "It ran longer than allowed."
    return "It did not start in time."


def read_inbox(database: Database, account: str, after: int, limit: int) -> list[InboxMessage]:
    """Messages of an account, oldest first, a page at a time.

    Args:
        database: where they stand.
        account: whose.
        after: only those with a higher number.
        limit: how many at most, 1 to `MAX_HTTP_PAGE`. There may be fewer though more are there, if
            their texts are long, but none only if none is there.

    Raises:
        InvalidRequest: the limit or the number is not valid.
    """
    require_limit(limit, MAX_HTTP_PAGE)
    if type(after) is not int or not 0 <= after < 2**62:
        raise InvalidRequest(f"after must be the number of a message, not {shown(after)}.")
    with database.read() as connection:
        found = _bounded(message_sql.page(connection, account, after, limit))
        ids = [one.order_id for one in found if one.order_id is not None]
        texts = message_sql.answers(connection, ids)
    return [_shown(account, one, texts) for one in found]


def _bounded(found: list[Stored]) -> list[Stored]:
    room = MAX_PAGE_CHARS
    for place, one in enumerate(found):
        room -= one.characters or 0
        if room < 0:
            return found[: max(1, place)]
    return found


def _shown(account: str, stored: Stored, texts: dict[str, str]) -> InboxMessage:
    tags, deleted = stored.tags, False
    if tags is None:
        _log.error("message_unreadable", account=account, number=stored.number)
        tags = UNREADABLE
    if stored.order_id is not None:
        deleted = stored.order_id not in texts
        tags = {**tags, "Data": texts.get(stored.order_id, "")}
    return InboxMessage(
        stored.number, stored.at_us, stored.in_reply_to, stored.order_id, tags, deleted
    )


class InboxChanges:
    """Says which inboxes changed since they were last asked for, so that who waits looks again.

    A waiter must register to be woken before reading, and reads again when woken.
    """

    MAX_KNOWN = 10_000

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._known: dict[str, int] = {}

    def changed(self, accounts: Iterable[str]) -> set[str]:
        """Return those of some accounts whose inbox changed, or that were never asked for."""
        with self._database.read() as connection:
            newest = message_sql.newest(connection, accounts)
        with self._lock:
            changed = {name for name, number in newest.items() if self._known.get(name) != number}
            if len(self._known) > self.MAX_KNOWN:
                self._known.clear()
            self._known.update(newest)
        return changed
