"""SQL about accounts: their limits, and how many orders each has open."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, func, insert, select, update

from herder.db.tables import account, policy


@dataclass(frozen=True, slots=True)
class Standing:
    """An account's limits, and where it stands against them.

    Attributes:
        open_orders: orders that are queued, dispatched or running.
        max_open_orders: at most so many; 0 for any number.
        tokens_per_minute: words and tokens that may be ordered in a minute; 0 for any number.
        tokens_until_us: when what was ordered lately will have been paid off at that rate.
    """

    open_orders: int
    max_open_orders: int
    tokens_per_minute: int
    tokens_until_us: int


_LIMITS = (
    account.c.open_orders,
    func.coalesce(account.c.max_open_orders, policy.c.max_open_orders).label("max_open_orders"),
    func.coalesce(account.c.tokens_per_minute, policy.c.tokens_per_minute).label(
        "tokens_per_minute"
    ),
    account.c.tokens_until_us,
)
# The one row of `policy` belongs to every account.
_STANDING = (
    select(*_LIMITS)
    .join_from(account, policy, policy.c.id == 1)
    .where(account.c.name == bindparam("which"))
)
# Locked until the order is counted in: two at once would both find room for one.
_STANDING_LOCKED = _STANDING.with_for_update(of=account)
_LOCK = select(account.c.name).where(account.c.name == bindparam("which")).with_for_update()
_COUNT = (
    update(account)
    .where(account.c.name == bindparam("which"))
    .values(open_orders=account.c.open_orders + bindparam("more"))
)
_ORDERED = (
    update(account)
    .where(account.c.name == bindparam("which"))
    .values(
        open_orders=account.c.open_orders + 1,
        tokens_until_us=bindparam("until_us"),
    )
)


def add_account(connection: Connection, name: str, now_us: int) -> None:
    """Write down a new account."""
    connection.execute(insert(account).values(name=name, created_us=now_us))


def created_us(connection: Connection, name: str) -> int | None:
    """Return the time at which an account was opened, in microseconds since the epoch, or None."""
    query = select(account.c.created_us).where(account.c.name == name)
    return connection.execute(query).scalar_one_or_none()


def names(connection: Connection, after: str = "", limit: int | None = None) -> list[str]:
    """Names of accounts in their order.

    Args:
        connection: a transaction.
        after: only those that come after this one.
        limit: how many at most; None: all.
    """
    query = select(account.c.name).where(account.c.name > after).order_by(account.c.name)
    return list(connection.execute(query.limit(limit)).scalars())


def lock(connection: Connection, name: str) -> None:
    """Let no other submission of this account run beside this one.

    On SQLite the write lock does that already.
    """
    lock_all(connection, [name])


def lock_all(connection: Connection, names: Iterable[str]) -> None:
    """Lock several accounts, always ordered by name; unknown ones are skipped."""
    if connection.dialect.name != "sqlite":
        for name in sorted(set(names)):
            connection.execute(_LOCK, {"which": name})


def standing(connection: Connection, name: str, *, lock: bool = False) -> Standing | None:
    """Return an account's limits and where it stands; None if there is no such account."""
    query = _STANDING_LOCKED if lock else _STANDING
    row = connection.execute(query, {"which": name}).one_or_none()
    return None if row is None else Standing(*row)


def count_in(connection: Connection, name: str, tokens_until_us: int) -> None:
    """Count one more open order of an account."""
    connection.execute(_ORDERED, {"which": name, "until_us": tokens_until_us})


def count_out(connection: Connection, ended: Mapping[str, int]) -> None:
    """Orders of accounts ended: how many, by account. Locks go by name, always."""
    rows = [{"which": name, "more": -count} for name, count in sorted(ended.items())]
    if rows:
        connection.execute(_COUNT, rows)


def set_limits(
    connection: Connection,
    name: str,
    *,
    max_open_orders: int | None,
    tokens_per_minute: int | None,
) -> bool:
    """Give an account limits of its own, None for the policy's; says whether it is there."""
    changed = connection.execute(
        update(account)
        .where(account.c.name == name)
        .values(max_open_orders=max_open_orders, tokens_per_minute=tokens_per_minute)
    )
    return changed.rowcount == 1
