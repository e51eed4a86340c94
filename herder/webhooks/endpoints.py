"""Where accounts are told: endpoints made, changed and looked at; messages sent anew."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection

from herder.database import Database
from herder.errors import AccountNotFound, InvalidRequest, InvalidWebhook, WebhookNotFound, shown
from herder.store import accounts as account_sql
from herder.store import deliveries as delivery_sql
from herder.store import webhooks as webhook_sql
from herder.store.deliveries import Delivery
from herder.store.webhooks import Endpoint
from herder.submission import parse_account
from herder.webhooks.addresses import Rules
from herder.webhooks.events import ORDER_TYPES, TEST_TYPE, TYPES, queue_for
from herder.webhooks.signing import Sealer, new_secret

MAX_ENDPOINTS = 10
"""Of one account: each of its orders is written down once for each of them."""

MAX_PAGE = 100
AT_ONCE = 500
"""Messages that one transaction changes at most, so that no other waits long for the lock."""

STATES = ("pending", "delivered", "dead")


class Webhooks:
    """What an account's own programs, and the `herd` command, do with webhooks."""

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
            InvalidWebhook: the address or a type is none, or the account has too many.
            AccountNotFound: there is no such account.
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
            if len(webhook_sql.endpoints(connection, account)) >= MAX_ENDPOINTS:
                raise InvalidWebhook(
                    f"Account {account!r} has {MAX_ENDPOINTS} webhooks, which is the most; "
                    f"delete one first."
                )
            webhook_sql.add_endpoint(connection, endpoint)

        self._database.transact(step)
        return endpoint, secret

    def list(self, account: str | None = None) -> list[Endpoint]:
        """The endpoints of an account, or all of them, oldest first."""
        with self._database.read() as connection:
            return webhook_sql.endpoints(connection, account)

    def get(self, which: str, *, account: str | None = None) -> Endpoint:
        """An endpoint.

        Args:
            which: its id.
            account: whose it has to be; None: anybody's.

        Raises:
            WebhookNotFound: there is none, or it is another account's.
        """
        with self._database.read() as connection:
            return self._get(connection, which, account)

    def _get(
        self, connection: Connection, which: str, account: str | None, *, lock: bool = False
    ) -> Endpoint:
        found = webhook_sql.get_endpoint(connection, which, lock=lock)
        if found is None or (account is not None and found.account != account):
            raise WebhookNotFound(which)
        return found

    def rotate(self, which: str, *, account: str | None = None) -> tuple[Endpoint, str]:
        """Give an endpoint another secret; the one before signs beside it for a while.

        Returns:
            The endpoint, and its new secret, which is shown here and never again. Rotated again
            within that while, the oldest of the three secrets signs no more.

        Raises:
            WebhookNotFound: as `get`.
        """
        secret = new_secret(self._draw)

        def step(connection: Connection) -> Endpoint:
            had = self._get(connection, which, account, lock=True)
            # What another key sealed, this one cannot open, nor any herder that has only this one.
            keeps = had.sealed_by == self._sealer.kid and self._overlap_us > 0
            values: dict[str, Any] = {
                "secret": self._sealer.seal(secret, which),
                "sealed_by": self._sealer.kid,
                "old_secret": had.secret if keeps else None,
                "old_until_us": self._clock_us() + self._overlap_us if keeps else None,
            }
            webhook_sql.change_endpoint(connection, which, values)
            return replace(had, **values)

        return self._database.transact(step), secret

    def disable(self, which: str, *, account: str | None = None) -> Endpoint:
        """Send nothing there any more, until it is enabled: what ends meanwhile is not queued.

        Raises:
            WebhookNotFound: as `get`.
        """
        return self._change(which, account, {"enabled": False, "why": "asked"})

    def enable(self, which: str, *, account: str | None = None) -> Endpoint:
        """Send there again.

        Raises:
            WebhookNotFound: as `get`.
        """
        values = {"enabled": True, "why": None, "failing_since_us": None}
        return self._change(which, account, values)

    def _change(self, which: str, account: str | None, values: dict[str, Any]) -> Endpoint:
        def step(connection: Connection) -> Endpoint:
            found = self._get(connection, which, account, lock=True)
            webhook_sql.change_endpoint(connection, which, values)
            return replace(found, **values)

        return self._database.transact(step)

    def delete(self, which: str, *, account: str | None = None) -> Endpoint:
        """Forget an endpoint, and all that was to be sent there.

        Raises:
            WebhookNotFound: as `get`.
        """

        def step(connection: Connection) -> Endpoint:
            found = self._get(connection, which, account, lock=True)
            webhook_sql.delete_endpoint(connection, which)
            return found

        deleted = self._database.transact(step)
        while True:
            with self._database.read() as connection:
                found = delivery_sql.of_endpoint(connection, which, AT_ONCE)
            if not found:
                return deleted

            def forget(connection: Connection, found: list[int] = found) -> None:
                delivery_sql.forget(connection, found)

            self._database.transact(forget)

    # Messages

    def test(self, which: str, *, account: str | None = None) -> str:
        """Have a message of type `webhook.test` sent; its id.

        Raises:
            WebhookNotFound: as `get`.
            InvalidWebhook: the endpoint is disabled.
        """
        subject = self._new_hex(8)

        def step(connection: Connection) -> str:
            found = self._get(connection, which, account)
            if not found.enabled:
                raise InvalidWebhook(f"Webhook {which} is disabled; enable it first.")
            data = {"webhook": which, "account": found.account}
            return queue_for(connection, which, TEST_TYPE, data, subject, self._clock_us())

        return self._database.transact(step)

    def deliveries(
        self,
        which: str,
        *,
        account: str | None = None,
        state: str | None = None,
        before: str | None = None,
        limit: int = MAX_PAGE,
    ) -> Sequence[Delivery]:
        """Messages to an endpoint, the newest first, a page at a time.

        Args:
            which: the endpoint.
            account: whose it has to be; None: anybody's.
            state: only those that are `pending`, `delivered` or `dead`.
            before: only those queued before this message: the last one of the page before.
            limit: how many at most, 1 to `MAX_PAGE`.

        Raises:
            WebhookNotFound: as `get`, and of the message `before`.
            InvalidRequest: there is no such state, or the limit is out of its range.
        """
        if state is not None and state not in STATES:
            raise InvalidRequest(f"A state is {', '.join(STATES)}; not {shown(state)!r}.")
        if type(limit) is not int or not 1 <= limit <= MAX_PAGE:
            raise InvalidRequest(f"limit must be 1 to {MAX_PAGE}, not {shown(limit)}.")
        with self._database.read() as connection:
            self._get(connection, which, account)
            seq = None if before is None else self._of(connection, which, before).seq
            return delivery_sql.deliveries(
                connection, which, state=state, before_seq=seq, limit=limit
            )

    def delivery(self, which: str, message: str, *, account: str | None = None) -> Delivery:
        """A message to an endpoint.

        Raises:
            WebhookNotFound: as `get`, and of the message.
        """
        with self._database.read() as connection:
            self._get(connection, which, account)
            return self._of(connection, which, message)

    def _of(self, connection: Connection, which: str, message: str) -> Delivery:
        found = delivery_sql.get_delivery(connection, message)
        if found is None or found.endpoint != which:
            raise WebhookNotFound(message)
        return found

    def counts(self, which: str) -> dict[str, int]:
        """How many messages to an endpoint are pending, delivered and dead."""
        with self._database.read() as connection:
            found = delivery_sql.counts(connection, which)
        return {state: found.get(state, 0) for state in STATES}

    def replay(
        self,
        which: str,
        *,
        account: str | None = None,
        message: str | None = None,
        since_us: int | None = None,
        until_us: int | None = None,
        delivered: bool = False,
    ) -> int:
        """Have messages sent anew, under the ids that they had.

        Args:
            which: the endpoint.
            account: whose it has to be; None: anybody's.
            message: only this one, whatever became of it; None: all that are dead.
            since_us: only those of events since then, in microseconds since the epoch.
            until_us: only those of events before.
            delivered: also those that were delivered.

        Returns:
            How many.

        Raises:
            WebhookNotFound: as `get`, and of the message.
            InvalidWebhook: the endpoint is disabled.
        """
        with self._database.read() as connection:
            endpoint = self._get(connection, which, account)
            one = None if message is None else self._of(connection, which, message)
        if not endpoint.enabled:
            raise InvalidWebhook(f"Webhook {which} is disabled; enable it first.")
        if one is not None:
            return self._replay([one.seq])
        states = ("dead", "delivered") if delivered else ("dead",)
        replayed = after = 0
        while True:
            with self._database.read() as connection:
                found = delivery_sql.ended_of(
                    connection,
                    which,
                    states,
                    since_us=since_us,
                    until_us=until_us,
                    after_seq=after,
                    limit=AT_ONCE,
                )
            if not found:
                return replayed
            replayed += self._replay(found)
            after = found[-1]

    def _replay(self, seqs: Sequence[int]) -> int:
        def step(connection: Connection) -> int:
            return delivery_sql.replay(connection, seqs, self._clock_us())

        return self._database.transact(step)


def _parse_types(types: Iterable[str] | None) -> tuple[str, ...]:
    if types is None:
        return ORDER_TYPES
    given = set(types)
    wanted = tuple(one for one in TYPES if one in given)
    if not wanted or given - set(TYPES):
        raise InvalidWebhook(f"A webhook listens to some of {', '.join(TYPES)}.")
    return wanted
