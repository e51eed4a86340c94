"""API keys: how a program elsewhere proves which account it buys for, and how much it may.

A key reads `herd_<id>_<secret>`. The secret is 256 bits from the system's randomness, shown once
and kept as its SHA-256: guessing it is hopeless, so that a slow hash would only cost time. A key
is looked up for each call, so that revoking one takes effect at once.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Iterable
from dataclasses import replace

from sqlalchemy import Connection

from herder.db.database import Database
from herder.domain.parsing import parse_account
from herder.domain.pricing import parse_fee
from herder.errors import (
    AccountNotFound,
    ApiKeyLimitReached,
    ApiKeyNotFound,
    Forbidden,
    InvalidRequest,
    Unauthorized,
    shown,
)
from herder.store import accounts as account_sql
from herder.store import api_keys as key_sql
from herder.store.api_keys import ApiKey

SCOPES = ("buy", "read", "operate")
"""The uses of a key: to submit and change orders; to see its account's orders and money;
to manage accounts, keys and workers of the herd."""

MAX_NAME_CHARS = 100
MAX_EXPIRY_S = 10 * 366 * 86_400
_ID = re.compile(r"[0-9a-f]{16}")
_SHAPE = re.compile(r"herd_([0-9a-f]{16})_([A-Za-z0-9_-]{43})")
_NOBODY = hashlib.sha256(b"").hexdigest()


def digest_of(secret: str) -> str:
    """Return the digest that is stored in place of a secret."""
    return hashlib.sha256(secret.encode()).hexdigest()


def named_id(text: str) -> str:
    """Return the id that the text of a key bears, whether or not there is such a key.

    Empty if none.
    """
    parts = _SHAPE.fullmatch(text)
    return "" if parts is None else parts[1]


class ApiKeys:
    """Makes, ends and recognises API keys."""

    def __init__(
        self,
        database: Database,
        *,
        clock_us: Callable[[], int],
        new_hex: Callable[[int], str] = secrets.token_hex,
        new_secret: Callable[[int], str] = secrets.token_urlsafe,
    ) -> None:
        self._database = database
        self._clock_us = clock_us
        self._new_hex = new_hex
        self._new_secret = new_secret

    def create(
        self,
        account: str,
        *,
        name: str = "",
        scopes: Iterable[str] = ("buy", "read"),
        expires_s: int | None = None,
        max_fee: int | None = None,
        spending_limit: int | None = None,
    ) -> tuple[ApiKey, str]:
        """Make a key for an account.

        Args:
            account: who pays for what is bought with it.
            name: what people call it.
            scopes: some of `SCOPES`.
            expires_s: seconds after which it opens nothing any more; None: never.
            max_fee: the highest fee in winston that it may offer; None: any.
            spending_limit: the most winston that it may spend in all; None: any.

        Returns:
            The key, and its text, which is shown here and never again.

        Raises:
            AccountNotFound: no account has that name.
            InvalidRequest: another argument is not valid.
        """
        parse_account(account)
        wanted = tuple(scope for scope in SCOPES if scope in set(scopes))
        if not wanted or set(scopes) - set(SCOPES):
            raise InvalidRequest(f"scopes must be some of {', '.join(SCOPES)}.")
        if len(name) > MAX_NAME_CHARS or not name.isprintable():
            raise InvalidRequest(
                f"A key's name must be at most {MAX_NAME_CHARS} printable characters."
            )
        if expires_s is not None and (
            type(expires_s) is not int or not 1 <= expires_s <= MAX_EXPIRY_S
        ):
            raise InvalidRequest(
                f"expires_s must be a whole number of seconds from 1 to {MAX_EXPIRY_S}, "
                f"not {shown(expires_s)}."
            )
        for what, amount in (("max_fee", max_fee), ("spending_limit", spending_limit)):
            if amount is not None:
                parse_fee(amount, what)
        now_us = self._clock_us()
        secret = self._new_secret(32)
        key = ApiKey(
            id=self._new_hex(8),
            account=account,
            name=name,
            digest=digest_of(secret),
            scopes=wanted,
            created_us=now_us,
            expires_us=None if expires_s is None else now_us + expires_s * 1_000_000,
            revoked_us=None,
            max_fee=max_fee,
            spending_limit=spending_limit,
            held=0,
            charged=0,
        )

        def step(connection: Connection) -> None:
            if account_sql.standing(connection, account) is None:
                raise AccountNotFound(account)
            # There already where a commit was lost on its way: its secret is shown all the same.
            if key_sql.get(connection, key.id) != key:
                key_sql.add(connection, key)

        self._database.settle(step)
        return key, f"herd_{key.id}_{secret}"

    def list(
        self, account: str | None = None, *, after: str | None = None, limit: int | None = None
    ) -> list[ApiKey]:
        """Return the keys of an account, or all of them, oldest first.

        Args:
            account: whose; None: anybody's.
            after: begin after this one: the last one of the page before.
            limit: how many at most; None: all.

        Raises:
            ApiKeyNotFound: there is no key `after`.
        """
        with self._database.read() as connection:
            last = None if after is None else key_sql.get(connection, after)
            if after is not None and last is None:
                raise ApiKeyNotFound(after)
            return key_sql.of_account(connection, account, after=last, limit=limit)

    def revoke(self, key_id: str, *, account: str | None = None) -> ApiKey:
        """End a key, at once and for good; one that has ended stays as it is.

        Args:
            key_id: the key's id.
            account: whose it has to be; None: anybody's.

        Raises:
            ApiKeyNotFound: there is no such key, or it is another account's.
        """
        if not _ID.fullmatch(key_id):
            raise ApiKeyNotFound(key_id)

        def step(connection: Connection) -> ApiKey:
            found = key_sql.get(connection, key_id, lock=True)
            if found is None or (account is not None and found.account != account):
                raise ApiKeyNotFound(key_id)
            now_us = self._clock_us()
            if key_sql.revoke(connection, key_id, now_us):
                found = replace(found, revoked_us=now_us)
            return found

        return self._database.settle(step)

    def recognise(self, text: str) -> ApiKey:
        """Return the key that a caller shows.

        Raises:
            Unauthorized: the key is not valid, has expired or was revoked.
        """
        parts = _SHAPE.fullmatch(text)
        found = None
        if parts is not None:
            with self._database.read() as connection:
                found = key_sql.get(connection, parts[1])
        # Compared whether or not it was found: the time taken says nothing about which ids exist.
        given = digest_of(parts[2]) if parts is not None else _NOBODY
        same = hmac.compare_digest(given, found.digest if found is not None else _NOBODY)
        if found is None or parts is None or not same:
            raise Unauthorized("This is not an API key of this herd; ask its operator for one.")
        if found.revoked_us is not None:
            raise Unauthorized(f"API key {found.id} was revoked.")
        if not found.lives(self._clock_us()):
            raise Unauthorized(f"API key {found.id} has expired.")
        return found

    def require_live(self, key: ApiKey) -> None:
        """Look again at a key that was recognised, on behalf of a line that is held for long.

        Raises:
            Unauthorized: it was revoked since, or has expired.
        """
        with self._database.read() as connection:
            found = key_sql.get(connection, key.id)
        if found is None or not found.lives(self._clock_us()):
            raise Unauthorized(f"API key {key.id} is no longer valid.")


def require(key: ApiKey, scope: str) -> ApiKey:
    """Return the key, if it may be used so.

    Raises:
        Forbidden: it lacks the scope.
    """
    if scope not in key.scopes:
        raise Forbidden(key.id, scope)
    return key


def count_in(connection: Connection, key_id: str | None, fee: int, more: int, now_us: int) -> None:
    """Hold an order's fee against its key, in the transaction that holds the money.

    Args:
        connection: the transaction.
        key_id: the key; None for an order that none was used for.
        fee: the order's whole fee in winston.
        more: what of it is held anew: all of it, or what a new bid adds.
        now_us: the time.

    Raises:
        Unauthorized: it was revoked or has expired.
        ApiKeyLimitReached: the fee is above what it may offer, or it would spend more than it may.
    """
    if key_id is not None:
        _require_room(connection, key_id, fee, more, now_us)
        key_sql.count(connection, {key_id: (more, 0)})


def spend(connection: Connection, key_id: str | None, amount: int, now_us: int) -> None:
    """Count a transfer against its key, in the transaction that moves the money.

    It is bounded as a fee is: `max_fee` is the most that the key may give away at once.

    Raises:
        Unauthorized: it was revoked or has expired.
        ApiKeyLimitReached: the amount is above what it may offer or spend.
    """
    if key_id is not None:
        _require_room(connection, key_id, amount, amount, now_us)
        key_sql.count(connection, {key_id: (0, amount)})


def _require_room(connection: Connection, key_id: str, fee: int, more: int, now_us: int) -> None:
    key = key_sql.get(connection, key_id, lock=True)
    if key is None or not key.lives(now_us):
        raise Unauthorized(f"API key {key_id} is no longer valid.")
    if key.max_fee is not None and fee > key.max_fee:
        raise ApiKeyLimitReached(
            f"The fee of {fee} winston is above {key.max_fee}, the most that API key {key.id} may "
            "offer.",
            fee=fee,
            max_fee=key.max_fee,
        )
    if key.spending_limit is not None and key.held + key.charged + more > key.spending_limit:
        left = max(0, key.spending_limit - key.held - key.charged)
        raise ApiKeyLimitReached(
            f"API key {key.id} may spend {key.spending_limit} winston, of which {left} are left; "
            f"this order takes {more}.",
            left=left,
            required=more,
            spending_limit=key.spending_limit,
        )
