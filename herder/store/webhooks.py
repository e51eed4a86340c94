"""SQL about webhooks: where accounts are told. What they are told: `herder.store.deliveries`."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Row, bindparam, delete, insert, select, true, update

from herder.db.tables import webhook_endpoint


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A webhook of an account; times in microseconds since the epoch.

    Attributes:
        types: the events that it is told of.
        include_text: whether it is told an order's text as well.
        enabled: whether anything is sent there.
        why: why not: `asked`, `gone` (it answered 410) or `failing`.
        failing_since_us: when a message to it was given up, and none delivered since.
        secret: sealed, as are all of them.
        old_secret: the one before, which signs as well until `old_until_us`.
        sealed_by: the `kid` of the herder's key that opens them.
    """

    id: str
    account: str
    url: str
    types: tuple[str, ...]
    include_text: bool
    enabled: bool
    why: str | None
    failing_since_us: int | None
    created_us: int
    secret: str = field(repr=False)
    old_secret: str | None = field(repr=False)
    old_until_us: int | None
    sealed_by: str


_ENDPOINT = select(webhook_endpoint).where(webhook_endpoint.c.id == bindparam("which"))
_LISTENERS = select(
    webhook_endpoint.c.id, webhook_endpoint.c.account, webhook_endpoint.c.types
).where(
    webhook_endpoint.c.account.in_(bindparam("accounts", expanding=True)),
    webhook_endpoint.c.enabled == true(),
)


def to_endpoint(row: Row[Any]) -> Endpoint:
    """Return a row of `webhook_endpoint` as the endpoint that it is."""
    values = dict(row._mapping)
    return Endpoint(**{**values, "types": tuple(str(values["types"]).split())})


def add_endpoint(connection: Connection, endpoint: Endpoint) -> None:
    """Write down a new endpoint."""
    values = {name: getattr(endpoint, name) for name in webhook_endpoint.c.keys()}  # noqa: SIM118
    connection.execute(
        insert(webhook_endpoint).values({**values, "types": " ".join(endpoint.types)})
    )


def get_endpoint(connection: Connection, which: str, *, lock: bool = False) -> Endpoint | None:
    """Return an endpoint by its id.

    Args:
        connection: the transaction.
        which: its id.
        lock: keep others from changing it until the transaction ends.
    """
    query = _ENDPOINT.with_for_update() if lock else _ENDPOINT
    row = connection.execute(query, {"which": which}).one_or_none()
    return None if row is None else to_endpoint(row)


def endpoints(connection: Connection, account: str | None) -> list[Endpoint]:
    """Return the endpoints of an account, or all of them, oldest first."""
    query = select(webhook_endpoint).order_by(webhook_endpoint.c.created_us, webhook_endpoint.c.id)
    if account is not None:
        query = query.where(webhook_endpoint.c.account == account)
    return [to_endpoint(row) for row in connection.execute(query)]


def listeners(
    connection: Connection, accounts: Iterable[str]
) -> dict[str, list[tuple[str, tuple[str, ...]]]]:
    """(endpoint, types) of what listens, by account: one statement, whoever listens."""
    found: dict[str, list[tuple[str, tuple[str, ...]]]] = {}
    for row in connection.execute(_LISTENERS, {"accounts": sorted(accounts)}):
        found.setdefault(row.account, []).append((row.id, tuple(row.types.split())))
    return found


def replace_secret(connection: Connection, changed: Endpoint) -> None:
    """Write down an endpoint's secrets, and which key opens them."""
    _change(
        connection,
        changed.id,
        {
            "secret": changed.secret,
            "sealed_by": changed.sealed_by,
            "old_secret": changed.old_secret,
            "old_until_us": changed.old_until_us,
        },
    )


def disable_endpoint(connection: Connection, which: str, why: str) -> None:
    """Send nothing to an endpoint any more; `why` as of `Endpoint`."""
    _change(connection, which, {"enabled": False, "why": why})


def enable_endpoint(connection: Connection, which: str) -> None:
    """Send to an endpoint again, as if it had never failed."""
    _change(connection, which, {"enabled": True, "why": None, "failing_since_us": None})


def _change(connection: Connection, which: str, columns: dict[str, object]) -> None:
    connection.execute(
        update(webhook_endpoint).where(webhook_endpoint.c.id == which).values(columns)
    )


def delete_endpoint(connection: Connection, which: str) -> None:
    """Forget an endpoint. Its deliveries are forgotten apart, little by little."""
    connection.execute(delete(webhook_endpoint).where(webhook_endpoint.c.id == which))


def mark_reached(connection: Connection, which: Collection[str]) -> None:
    """Messages reached these endpoints: they fail no more."""
    connection.execute(
        update(webhook_endpoint)
        .where(
            webhook_endpoint.c.id.in_(sorted(which)),
            webhook_endpoint.c.failing_since_us.is_not(None),
        )
        .values(failing_since_us=None)
    )


def mark_failing(connection: Connection, which: Collection[str], now_us: int, long_us: int) -> None:
    """Messages to these endpoints were given up; one that has failed for so long is disabled."""
    mine = webhook_endpoint.c.id.in_(sorted(which))
    since = webhook_endpoint.c.failing_since_us
    connection.execute(
        update(webhook_endpoint).where(mine, since.is_(None)).values(failing_since_us=now_us)
    )
    connection.execute(
        update(webhook_endpoint)
        .where(mine, since <= now_us - long_us, webhook_endpoint.c.enabled == true())
        .values(enabled=False, why="failing")
    )
