"""The topics that a program beside the herder waits for: ends of orders, news in inboxes."""

from __future__ import annotations

from collections.abc import Iterable

from herder.db.database import Database
from herder.messages.inbox import InboxChanges
from herder.store import orders as order_sql
from workers.transport.streams import INBOX

MAX_ASKED = 500


def ended_topics(database: Database, news: InboxChanges, topics: Iterable[str]) -> set[str]:
    """Return those of some topics of which there is news.

    Orders that ended or are set aside, inboxes that changed.
    """
    asked = set(topics)
    inboxes = {topic for topic in asked if topic.startswith(INBOX)}
    ids = sorted(asked - inboxes)
    found: set[str] = set()
    if inboxes:
        changed = news.changed(topic.removeprefix(INBOX) for topic in inboxes)
        found |= {f"{INBOX}{account}" for account in changed}
    with database.read() as connection:
        for start in range(0, len(ids), MAX_ASKED):
            found |= order_sql.stopped_of(connection, ids[start : start + MAX_ASKED])
    return found
