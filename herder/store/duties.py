"""SQL of the background duties: who has one that needs one herder only, and what they counted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, or_, select, update

from herder.db.tables import duty
from herder.store.upsert import insert_or

_FREE = (
    # A time that no clock of today could have written is another clock's fault, and holds nobody.
    or_(
        duty.c.due_us <= bindparam("now_us"),
        duty.c.due_us > bindparam("farthest_us"),
    ),
    or_(
        duty.c.holder.is_(None),
        duty.c.holder == bindparam("me"),
        duty.c.until_us < bindparam("now_us"),
        duty.c.until_us > bindparam("farthest_us"),
    ),
)
_IS_FREE = select(duty.c.name, *(condition.label(None) for condition in _FREE)).where(
    duty.c.name == bindparam("which")
)
_TAKE = (
    update(duty)
    .where(duty.c.name == bindparam("which"), *_FREE)
    .values(holder=bindparam("me"), until_us=bindparam("until"))
)
_KEEP = (
    update(duty)
    .where(duty.c.name == bindparam("which"), duty.c.holder == bindparam("me"))
    .values(until_us=bindparam("until"))
)
_GIVE_BACK = (
    update(duty)
    .where(duty.c.name == bindparam("which"), duty.c.holder == bindparam("me"))
    .values(holder=None, until_us=0)
)
_DONE = _GIVE_BACK.values(due_us=bindparam("due"))
_COUNTED = select(
    duty.c.name, duty.c.runs, duty.c.failures, duty.c.overruns, duty.c.busy_us
).order_by(duty.c.name)


class Counts(NamedTuple):
    """The counts of a duty, over all herders.

    Attributes:
        runs: batches that were done.
        failures: batches that failed, or of which something was left out.
        overruns: batches that took longer than they may.
        busy_us: the time that all batches took, in microseconds.
    """

    runs: int = 0
    failures: int = 0
    overruns: int = 0
    busy_us: int = 0

    def plus(self, other: Counts) -> Counts:
        """Both together."""
        return Counts(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


def is_free(connection: Connection, name: str, me: str, now_us: int, farthest_us: int) -> bool:
    """Return whether `take` would succeed now: a look that takes no lock."""
    row = connection.execute(
        _IS_FREE,
        {"which": name, "me": me, "now_us": now_us, "farthest_us": farthest_us},
    ).one_or_none()
    return row is None or bool(row[1] and row[2])


def take(
    connection: Connection, name: str, me: str, now_us: int, until_us: int, farthest_us: int
) -> bool:
    """Take a duty that is due and that nobody else has.

    Args:
        connection: of a transaction that writes.
        name: the duty's.
        me: the herder.
        now_us: the time, in microseconds since the epoch.
        until_us: when it is free again, should this herder not come back.
        farthest_us: the latest time that it can be due or taken until, if all clocks are right.
    """
    insert = insert_or(connection, duty).values(name=name).on_conflict_do_nothing()
    connection.execute(insert)
    values = {
        "which": name,
        "me": me,
        "now_us": now_us,
        "until": until_us,
        "farthest_us": farthest_us,
    }
    return connection.execute(_TAKE, values).rowcount == 1


def keep(connection: Connection, name: str, me: str, until_us: int) -> bool:
    """Have a duty for longer; False if another herder took it meanwhile."""
    values = {"which": name, "me": me, "until": until_us}
    return connection.execute(_KEEP, values).rowcount == 1


def give_back(connection: Connection, name: str, me: str) -> None:
    """Let another herder try what is still due."""
    connection.execute(_GIVE_BACK, {"which": name, "me": me})


def done(connection: Connection, name: str, me: str, due_us: int) -> None:
    """Mark it as done until then, unless another herder took it in the meantime."""
    connection.execute(_DONE, {"which": name, "me": me, "due": due_us})


def add_counts(connection: Connection, counts: Mapping[str, Counts]) -> None:
    """Add what a herder counted; in one order, so that two herders do not wait for each other."""
    insert = insert_or(connection, duty)
    more = {column: duty.c[column] + insert.excluded[column] for column in Counts._fields}
    connection.execute(
        insert.on_conflict_do_update(index_elements=[duty.c.name], set_=more),
        [{"name": name, **counts[name]._asdict()} for name in sorted(counts)],
    )


def counted(connection: Connection) -> dict[str, Counts]:
    """Return the counts of all herders since the herd began, by duty."""
    return {row.name: Counts(*row[1:]) for row in connection.execute(_COUNTED)}
