"""The means of an order's payer, read so that nobody spends them meanwhile."""

from __future__ import annotations

from sqlalchemy import Connection

from herder.accounts.accounts import client_account, money_errors
from herder.domain.fitting import Means
from herder.domain.pricing import MAX_WINSTON
from herder.store import accounts as account_sql
from herder.store import api_keys as key_sql
from ledger import Ledger


def lock_means(
    connection: Connection, books: Ledger, account: str, api_key: str | None
) -> Means | None:
    """Lock an account and the key that it is used by, in the order of all locks, and read them.

    Args:
        connection: the transaction that takes the order, which locks nothing later that comes
            before: neither policy, orders nor workers.
        books: the ledger.
        account: who pays.
        api_key: the id of the key that the order is bought with, if there is one.

    Returns:
        The means; None where there is no such account.

    Raises:
        HerdUnavailable: others hold one of them for too long.
    """
    standing = account_sql.standing(connection, account, lock=True)
    if standing is None:
        return None
    key = None if api_key is None else key_sql.get(connection, api_key, lock=True)
    payer = client_account(account)
    with money_errors(account):
        books.lock_accounts(connection, [payer])
        available = books.get_balance(connection, payer).available
    max_fee = MAX_WINSTON
    if key is not None:
        max_fee = max_fee if key.max_fee is None else key.max_fee
        if key.spending_limit is not None:
            available = min(available, max(0, key.spending_limit - key.held - key.charged))
    return Means(
        available=available,
        max_fee=max_fee,
        tokens_per_minute=standing.tokens_per_minute,
        tokens_until_us=standing.tokens_until_us,
    )
