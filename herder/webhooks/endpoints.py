"""Webhook endpoints of accounts: created, changed and listed."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from dataclasses import replace

from sqlalchemy import Connection

from herder.db.database import Database
from herder.domain.parsing import parse_account
from herder.errors import AccountNotFound, InvalidWebhook
from herder.store import accounts as account_sql
from herder.store import deliveries as delivery_sql
from herder.store import webhooks as webhook_sql
from herder.store.webhooks import Endpoint
from herder.webhooks.addresses import Rules
from herder.webhooks.deliveries import MAX_AT_ONCE, Deliveries, endpoint_of
from herder.webhooks.events import ORDER_TYPES, TYPES
from herder.webhooks.signing import Sealer, new_secret

MAX_ENDPOINTS = 10
"""Of one account: each of its orders is written down once for each of them."""


class Webhooks:
    """Webhooks, as an account's programs and the `herd` command use them.

    `deliveries` is the same for what is sent.
    """

    def __init__(
        self,
        database: Database,
        sealer: Sealer,
        rules: Rules,
        *,
        overlap_s: int,
        clock_us: Callable[[], int],
        new_hex: Callable[[int], str] = secrets.token_hex,
        draw: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self._database = database
        self._sealer = sealer
        self._rules = rules
        self._overlap_us = overlap_s * 1_000_000
        self._clock_us = clock_us
        self._new_hex = new_hex
        self._draw = draw
        self.deliveries = Deliveries(database, clock_us=clock_us, new_hex=new_hex)

    # Endpoints

    def create(
        self,
        account: str,
        url: str,
        *,
        types: Iterable[str] | None = None,
        include_text: bool = False,
    ) -> tuple[Endpoint, str]:
        """Have an account told at an address from now on.

        Args:
            account: whose orders.
            url: where to: `https://host[:port]/path`.
            types: some of `TYPES`; None for the ends of orders.
            include_text: whether it is told the text of an order as well.

        Returns:
            The endpoint, and its secret, which is shown here and never again.

        Raises:
            InvalidWebhook: the address or a type is not valid, or the account has too many.
            AccountNotFound: no account has that name.
        """
        parse_account(account)
        self._rules.parse(url)
        wanted = _parse_types(types)
        which = f"we_{self._new_hex(8)}"
        secret = new_secret(self._draw)
        endpoint = Endpoint(
            id=which,
            account=account,
            url=url,
            types=wanted,
            include_text=bool(include_text),
            enabled=True,
            why=None,
            failing_since_us=None,
            created_us=self._clock_us(),
            secret=self._sealer.seal(secret, which),
            old_secret=None,
            old_until_us=None,
            sealed_by=self._sealer.kid,
        )

        def step(connection: Connection) -> None:
            if account_sql.standing(connection, account, lock=True) is None:
                raise AccountNotFound(account)
            if webhook_sql.get_endpoint(connection, which) == endpoint:
                return  # it was committed, and nobody heard of it
            if len(webhook_sql.endpoints(connection, account)) >= MAX_ENDPOINTS:
                raise InvalidWebhook(
                    f"Account {account!r} already has {MAX_ENDPOINTS} webhooks, the most allowed; "
                    "delete one first."
                )
            webhook_sql.add_endpoint(connection, endpoint)

        self._database.settle(step)
        return endpoint, secret

    def list(self, account: str | None = None) -> list[Endpoint]:
        """Return the endpoints of an account, or all of them, oldest first."""
        with self._database.read() as connection:
            return webhook_sql.endpoints(connection, account)

    def get(self, which: str, *, account: str | None = None) -> Endpoint:
        """Return an endpoint.

        Args:
            which: its id.
            account: whose it has to be; None: anybody's.

        Raises:
            WebhookNotFound: there is no such webhook, or it is another account's.
        """
        with self._database.read() as connection:
            return endpoint_of(connection, which, account)

    def rotate(self, which: str, *, account: str | None = None) -> tuple[Endpoint, str]:
        """Give an endpoint another secret; the one before signs beside it for a while.

        Returns:
            The endpoint, and its new secret, which is shown here and never again. Rotated again
            within that while, the oldest of the three secrets signs no more.

        Raises:
            WebhookNotFound: as `get`.
        """
        secret = new_secret(self._draw)
        sealed = self._sealer.seal(secret, which)

        def step(connection: Connection) -> Endpoint:
            had = endpoint_of(connection, which, account, lock=True)
            if had.secret == sealed:
                return had  # it was committed, and nobody heard of it
            # What another key sealed, this one cannot open, nor any herder that has only this one.
            keeps = had.sealed_by == self._sealer.kid and self._overlap_us > 0
            changed = replace(
                had,
                secret=sealed,
                sealed_by=self._sealer.kid,
                old_secret=had.secret if keeps else None,
                old_until_us=self._clock_us() + self._overlap_us if keeps else None,
            )
            webhook_sql.replace_secret(connection, changed)
            return changed

        return self._database.settle(step), secret

    def disable(self, which: str, *, account: str | None = None) -> Endpoint:
        """Send nothing there any more, until it is enabled: what ends meanwhile is not queued.

        Raises:
            WebhookNotFound: as `get`.
        """

        def step(connection: Connection) -> Endpoint:
            found = endpoint_of(connection, which, account, lock=True)
            webhook_sql.disable_endpoint(connection, which, "asked")
            return replace(found, enabled=False, why="asked")

        return self._database.settle(step)

    def enable(self, which: str, *, account: str | None = None) -> Endpoint:
        """Send there again.

        Raises:
            WebhookNotFound: as `get`.
        """

        def step(connection: Connection) -> Endpoint:
            found = endpoint_of(connection, which, account, lock=True)
            webhook_sql.enable_endpoint(connection, which)
            return replace(found, enabled=True, why=None, failing_since_us=None)

        return self._database.settle(step)

    def delete(self, which: str, *, account: str | None = None) -> Endpoint:
        """Forget an endpoint, and all that was to be sent there.

        Raises:
            WebhookNotFound: as `get`.
        """
        seen: Endpoint | None = None

        def step(connection: Connection) -> Endpoint:
            nonlocal seen
            if seen is not None and webhook_sql.get_endpoint(connection, which) is None:
                return seen  # it was committed, and nobody heard of it
            seen = endpoint_of(connection, which, account, lock=True)
            webhook_sql.delete_endpoint(connection, which)
            return seen

        deleted = self._database.settle(step)
        while True:
            with self._database.read() as connection:
                found = delivery_sql.of_endpoint(connection, which, MAX_AT_ONCE)
            if not found:
                return deleted

            def forget(connection: Connection, found: list[int] = found) -> None:
                delivery_sql.forget(connection, found)

            self._database.settle(forget)


def _parse_types(types: Iterable[str] | None) -> tuple[str, ...]:
    if types is None:
        return ORDER_TYPES
    given = set(types)
    wanted = tuple(one for one in TYPES if one in given)
    if not wanted or given - set(TYPES):
        raise InvalidWebhook(f"events must be some of {', '.join(TYPES)}.")
    return wanted
