"""SQL about recurring grants: who is given how much, and which period comes next."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import Connection, Row, and_, bindparam, func, or_, select, update

from herder.db.tables import grants
from herder.store.upsert import insert_or


@dataclass(frozen=True, slots=True)
class Grant:
    """A recurring grant as it stands; times in microseconds since the epoch.

    Attributes:
        amount: winston for each period.
        every: how long a period is: one of `Every`, unless another version wrote the row.
        note: the operator's own words; they stand in the statement.
        first_us: when its first period begins.
        next_us: when the period begins that is to be posted next.
        periods: how many were posted.
        ended_us: when it ended, or None.
        failure: why it could not be posted. With `ended_us` that ended it; without, it is set
            aside, and tried again from time to time.
    """

    id: str
    account: str
    amount: int
    every: str
    note: str
    created_us: int
    first_us: int
    next_us: int
    periods: int
    ended_us: int | None
    failure: str | None


_BY_ID = select(grants).where(grants.c.id == bindparam("which"))
_LOCKED = _BY_ID.with_for_update()
_BEGUN = select(grants.c.id, grants.c.next_us).where(
    grants.c.ended_us.is_(None), grants.c.next_us <= bindparam("now_us")
)
_DUE = (
    _BEGUN.where(
        grants.c.failure.is_(None),
        grants.c.next_us >= bindparam("after_us"),
        or_(grants.c.next_us > bindparam("after_us"), grants.c.id > bindparam("after")),
    )
    .order_by(grants.c.next_us, grants.c.id)
    .limit(bindparam("limit"))
)
_ASIDE = (
    _BEGUN.where(grants.c.failure.is_not(None), grants.c.id > bindparam("after"))
    .order_by(grants.c.id)
    .limit(bindparam("limit"))
)
_IS_ASIDE = and_(grants.c.ended_us.is_(None), grants.c.failure.is_not(None))
_ALL_ASIDE = select(grants).where(_IS_ASIDE).order_by(grants.c.id).limit(bindparam("limit"))
_COUNT_ASIDE = select(func.count()).select_from(grants).where(_IS_ASIDE)
_LOCK_BY_IDS = (
    select(grants)
    .where(grants.c.id.in_(bindparam("ids", expanding=True)))
    .order_by(grants.c.id)
    .with_for_update()
)
_ADVANCE = (
    update(grants)
    .where(grants.c.id == bindparam("which"))
    .values(
        next_us=bindparam("following_us"),
        periods=grants.c.periods + bindparam("more"),
        failure=None,
    )
)
_END = (
    update(grants)
    .where(grants.c.id == bindparam("which"), grants.c.ended_us.is_(None))
    .values(ended_us=bindparam("now_us"), failure=bindparam("why"))
)
_SET_ASIDE = (
    update(grants)
    .where(grants.c.id == bindparam("which"), grants.c.ended_us.is_(None))
    .values(failure=bindparam("why"))
)


def _to_grant(row: Row[tuple[object, ...]]) -> Grant:
    return Grant(**row._mapping)


def add(connection: Connection, grant: Grant) -> bool:
    """Write down a new grant; False if one of its id was there."""
    row = insert_or(connection, grants).values(
        id=grant.id,
        account=grant.account,
        amount=grant.amount,
        every=str(grant.every),
        note=grant.note,
        created_us=grant.created_us,
        first_us=grant.first_us,
        next_us=grant.next_us,
    )
    # Not by the count of rows: the driver of PostgreSQL does not tell that of an insert.
    new = row.on_conflict_do_nothing(index_elements=["id"]).returning(grants.c.id)
    return connection.execute(new).one_or_none() is not None


def get(connection: Connection, grant_id: str, *, lock: bool = False) -> Grant | None:
    """Return a grant by its id; `lock` keeps others from posting or ending it meanwhile."""
    row = connection.execute(_LOCKED if lock else _BY_ID, {"which": grant_id}).one_or_none()
    return None if row is None else _to_grant(row)


def page(
    connection: Connection, *, account: str | None, after: Grant | None, limit: int | None
) -> list[Grant]:
    """Grants of an account, or all of them, oldest first.

    Args:
        connection: a transaction.
        account: whose; None: anybody's.
        after: begin after this one.
        limit: how many at most; None: all.
    """
    query = select(grants).order_by(grants.c.created_us, grants.c.id).limit(limit)
    if account is not None:
        query = query.where(grants.c.account == account)
    if after is not None:
        same = and_(grants.c.created_us == after.created_us, grants.c.id > after.id)
        query = query.where(or_(grants.c.created_us > after.created_us, same))
    return [_to_grant(row) for row in connection.execute(query)]


class Due(NamedTuple):
    """A grant that is due: when its next period begins, and its id."""

    next_us: int
    id: str


def due(connection: Connection, now_us: int, after: Due, limit: int) -> list[Due]:
    """Grants that a period has begun for which was not posted, the longest overdue first.

    Without those that are set aside.

    Args:
        connection: a transaction.
        now_us: the time.
        after: the grant behind which to begin.
        limit: how many at most.
    """
    values = {"now_us": now_us, "after_us": after.next_us, "after": after.id, "limit": limit}
    return [Due(row.next_us, row.id) for row in connection.execute(_DUE, values)]


def aside(connection: Connection, now_us: int, after: str, limit: int) -> list[str]:
    """Grants that are due and set aside, by id, from after one of them on."""
    rows = connection.execute(_ASIDE, {"now_us": now_us, "after": after, "limit": limit})
    return [str(grant_id) for grant_id in rows.scalars()]


def all_aside(connection: Connection, limit: int) -> list[Grant]:
    """Return the grants that are set aside, by id, due or not."""
    return [_to_grant(row) for row in connection.execute(_ALL_ASIDE, {"limit": limit})]


def count_aside(connection: Connection) -> int:
    """Return the number of grants that are set aside."""
    return int(connection.execute(_COUNT_ASIDE).scalar_one())


def lock(connection: Connection, ids: Iterable[str]) -> list[Grant]:
    """Grants as they stand, kept from others until the transaction ends. Locks go by id."""
    rows = connection.execute(_LOCK_BY_IDS, {"ids": sorted(ids)})
    return [_to_grant(row) for row in rows]


def advance(connection: Connection, rows: Sequence[tuple[str, int, int]]) -> None:
    """Periods were posted: (grant, when the following one begins, how many) each."""
    if rows:
        connection.execute(
            _ADVANCE,
            [
                {"which": grant_id, "following_us": following_us, "more": more}
                for grant_id, following_us, more in rows
            ],
        )


def end(connection: Connection, grant_id: str, now_us: int, why: str | None = None) -> None:
    """Post nothing more of a grant; one that has ended stays as it is."""
    connection.execute(_END, {"which": grant_id, "now_us": now_us, "why": why})


def set_aside(connection: Connection, grant_id: str, why: str) -> None:
    """Leave a grant out until it can be posted; one that has ended stays as it is."""
    connection.execute(_SET_ASIDE, {"which": grant_id, "why": why})
