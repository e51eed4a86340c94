"""SQL about hellos: which workers the broker's messages reach."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Connection, bindparam, select, update

from herder.db.tables import worker

_DUE = (
    select(worker.c.instance, worker.c.name, worker.c.hello, worker.c.hellos_sent)
    .where(
        worker.c.state == "alive",
        worker.c.answered < worker.c.hello,
        worker.c.hello_heard_s <= bindparam("heard_s"),
    )
    .order_by(worker.c.instance)
    .limit(bindparam("limit"))
)
_SENT = (
    update(worker)
    .where(
        worker.c.instance == bindparam("which"),
        worker.c.hello == bindparam("number"),
        worker.c.hellos_sent == bindparam("sent"),
    )
    .values(hellos_sent=bindparam("now_sent"), hello_heard_s=bindparam("next_heard_s"))
)
_ANSWERED = (
    update(worker)
    .where(
        worker.c.instance == bindparam("which"),
        worker.c.hello == bindparam("number"),
        worker.c.answered < bindparam("number"),
    )
    .values(answered=bindparam("number"), hellos_sent=0)
)
_DOUBT = (
    update(worker)
    .where(
        worker.c.instance == bindparam("which"),
        worker.c.state == "alive",
        worker.c.answered == worker.c.hello,
    )
    .values(
        hello=worker.c.hello + 1,
        hellos_sent=0,
        hello_heard_s=bindparam("next_heard_s"),
        unclaimed=worker.c.unclaimed + 1,
        proven=False,
    )
)
_PROVEN = (
    update(worker)
    .where(worker.c.instance == bindparam("which"), worker.c.proven.is_(False))
    .values(proven=True, unclaimed=0)
)


class DueHello(NamedTuple):
    """A hello that is due to a worker instance; `sent` is how often it was sent before."""

    instance: str
    name: str
    number: int
    sent: int


def due_hellos(connection: Connection, heard_s: int, limit: int) -> list[DueHello]:
    """Return the hellos that are due on the listening clock."""
    rows = connection.execute(_DUE, {"heard_s": heard_s, "limit": limit})
    return [DueHello._make(row) for row in rows]


def take_hello(
    connection: Connection, due: DueHello, next_heard_s: int, *, now_sent: int | None = None
) -> bool:
    """Take the right to send a hello; False where another herder sends it, or it was answered.

    Args:
        connection: a transaction that writes.
        due: as it was found.
        next_heard_s: when it is due again, if it is not answered.
        now_sent: how often it was sent from now on; once more, unless it is said.
    """
    values = {
        "which": due.instance,
        "number": due.number,
        "sent": due.sent,
        "now_sent": due.sent + 1 if now_sent is None else now_sent,
        "next_heard_s": next_heard_s,
    }
    return connection.execute(_SENT, values).rowcount == 1


def answer_hello(connection: Connection, instance: str, number: int) -> bool:
    """Note that a hello came back; False for an old one, and one that came back before."""
    values = {"which": instance, "number": number}
    return connection.execute(_ANSWERED, values).rowcount == 1


def doubt(connection: Connection, instance: str, next_heard_s: int) -> bool:
    """Note that a worker left an attempt unclaimed: it gets none until a hello came back.

    Args:
        connection: a transaction that writes.
        instance: the worker.
        next_heard_s: when that hello is due, on the listening clock.

    Returns:
        Whether nobody doubted it before.
    """
    values = {"which": instance, "next_heard_s": next_heard_s}
    return connection.execute(_DOUBT, values).rowcount == 1


def prove(connection: Connection, instance: str) -> None:
    """Note that a worker claimed, or ended, an attempt: all of its slots count."""
    connection.execute(_PROVEN, {"which": instance})
