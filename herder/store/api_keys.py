"""SQL about API keys: who they are, and what was bought with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, Row, and_, bindparam, insert, or_, select, update

from herder.db.tables import api_key


@dataclass(frozen=True, slots=True)
class ApiKey:
    """An API key as it stands; amounts in winston, times in microseconds since the epoch.

    Attributes:
        id: its public part, which names it.
        name: what people call it.
        digest: SHA-256 of its secret part.
        scopes: what it may be used for.
        expires_us: when it ends by itself, or None.
        revoked_us: when somebody ended it, or None.
        max_fee: the highest fee that it may offer, or None.
        spending_limit: the most that it may spend in all, or None.
        held: of the fees of its orders, what is held now.
        charged: what its orders were charged. Refunds do not lower it.
    """

    id: str
    account: str
    name: str
    digest: str
    scopes: tuple[str, ...]
    created_us: int
    expires_us: int | None
    revoked_us: int | None
    max_fee: int | None
    spending_limit: int | None
    held: int
    charged: int

    def lives(self, now_us: int) -> bool:
        """Return whether it opens anything at this time."""
        return self.revoked_us is None and (self.expires_us is None or now_us < self.expires_us)


_BY_ID = select(api_key).where(api_key.c.id == bindparam("which"))
_LOCKED = _BY_ID.with_for_update()
_COUNT = (
    update(api_key)
    .where(api_key.c.id == bindparam("which"))
    .values(
        held=api_key.c.held + bindparam("more_held"),
        charged=api_key.c.charged + bindparam("more_charged"),
    )
)


def _to_key(row: Row[tuple[object, ...]]) -> ApiKey:
    values = dict(row._mapping)
    return ApiKey(**{**values, "scopes": tuple(str(values["scopes"]).split())})


def add(connection: Connection, key: ApiKey) -> None:
    """Write down a new key."""
    connection.execute(
        insert(api_key).values(
            id=key.id,
            account=key.account,
            name=key.name,
            digest=key.digest,
            scopes=" ".join(key.scopes),
            created_us=key.created_us,
            expires_us=key.expires_us,
            max_fee=key.max_fee,
            spending_limit=key.spending_limit,
        )
    )


def get(connection: Connection, key_id: str, *, lock: bool = False) -> ApiKey | None:
    """Return a key by its id.

    Args:
        connection: the transaction.
        key_id: which.
        lock: keep others from changing it until the transaction ends. Keys are locked after
            accounts and before the ledger's.
    """
    row = connection.execute(_LOCKED if lock else _BY_ID, {"which": key_id}).one_or_none()
    return None if row is None else _to_key(row)


def of_account(
    connection: Connection,
    account: str | None,
    *,
    after: ApiKey | None = None,
    limit: int | None = None,
) -> list[ApiKey]:
    """Return the keys of an account, or all of them, oldest first.

    Args:
        connection: a transaction.
        account: whose; None: anybody's.
        after: begin after this one.
        limit: how many at most; None: all.
    """
    query = select(api_key).order_by(api_key.c.created_us, api_key.c.id).limit(limit)
    if account is not None:
        query = query.where(api_key.c.account == account)
    if after is not None:
        same = and_(api_key.c.created_us == after.created_us, api_key.c.id > after.id)
        query = query.where(or_(api_key.c.created_us > after.created_us, same))
    return [_to_key(row) for row in connection.execute(query)]


def revoke(connection: Connection, key_id: str, now_us: int) -> bool:
    """End a key; says whether it lived until now."""
    changed = connection.execute(
        update(api_key)
        .where(api_key.c.id == key_id, api_key.c.revoked_us.is_(None))
        .where(or_(api_key.c.expires_us.is_(None), api_key.c.expires_us > now_us))
        .values(revoked_us=now_us)
    )
    return changed.rowcount == 1


def count(connection: Connection, changes: Mapping[str, tuple[int, int]]) -> None:
    """Change what is held and what was charged, by key. Locks go by id, always."""
    rows = [
        {"which": key_id, "more_held": held, "more_charged": charged}
        for key_id, (held, charged) in sorted(changes.items())
    ]
    if rows:
        connection.execute(_COUNT, rows)
