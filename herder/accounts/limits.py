"""The limits of accounts: open orders, and tokens per minute."""

from __future__ import annotations

from sqlalchemy import Connection

from herder.errors import AccountNotFound, InvalidRequest, RateLimited
from herder.store import accounts as account_sql

_MINUTE_US = 60_000_000


def admit(connection: Connection, account: str, asked: int, now_us: int) -> None:
    """Count an order against its account's limits.

    Tokens a minute are a leaky bucket that holds a minute (GCRA, ITU-T I.371): what was ordered
    is paid off at the limit's rate, and an order is refused that would not be within a minute.

    Args:
        connection: the transaction that takes the order.
        account: who pays.
        asked: words and tokens of the order.
        now_us: the time in microseconds since the epoch.

    Raises:
        AccountNotFound: no account has that name.
        RateLimited: it has as much open, or ordered lately, as it may.
        InvalidRequest: the order alone is more than a minute's.
    """
    known = account_sql.standing(connection, account, lock=True)
    if known is None:
        raise AccountNotFound(account)
    if 0 < known.max_open_orders <= known.open_orders:
        raise RateLimited(
            f"Account {account!r} has {known.open_orders} open orders and may have at "
            f"most {known.max_open_orders}; try again when one has ended.",
            retry_after_s=1,
            open_orders=known.open_orders,
            max_open_orders=known.max_open_orders,
        )
    until_us = known.tokens_until_us
    if known.tokens_per_minute > 0:
        until_us = max(until_us, now_us) + asked * _MINUTE_US // known.tokens_per_minute
        if asked > known.tokens_per_minute:
            raise InvalidRequest(
                f"This order has {asked} words and tokens, and account {account!r} may "
                f"order {known.tokens_per_minute} a minute; ask for fewer.",
                asked=asked,
                tokens_per_minute=known.tokens_per_minute,
            )
        if until_us > now_us + _MINUTE_US:
            wait_s = -(-(until_us - now_us - _MINUTE_US) // 1_000_000)
            raise RateLimited(
                f"Account {account!r} may order {known.tokens_per_minute} words and "
                f"tokens a minute; try again in {wait_s} s.",
                retry_after_s=wait_s,
                tokens_per_minute=known.tokens_per_minute,
            )
    account_sql.count_in(connection, account, until_us)
