"""Deliveries to endpoints: listed, and sent again."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence

from sqlalchemy import Connection

from herder.db.database import Database
from herder.domain.paging import MAX_HTTP_PAGE, Page, page_of, require_limit
from herder.errors import InvalidRequest, InvalidWebhook, WebhookNotFound, shown
from herder.store import deliveries as delivery_sql
from herder.store import webhooks as webhook_sql
from herder.store.deliveries import Delivery
from herder.store.webhooks import Endpoint
from herder.webhooks.events import TEST_TYPE, queue_for

MAX_AT_ONCE = 500
"""Messages that one transaction changes at most, so that no other waits long for the lock."""

STATES = ("pending", "delivered", "dead")


def endpoint_of(
    connection: Connection, which: str, account: str | None, *, lock: bool = False
) -> Endpoint:
    """Return an endpoint, within a transaction.

    Args:
        connection: the transaction.
        which: its id.
        account: whose it has to be; None: anybody's.
        lock: keep others from changing it until the transaction ends.

    Raises:
        WebhookNotFound: there is no such webhook, or it is another account's.
    """
    found = webhook_sql.get_endpoint(connection, which, lock=lock)
    if found is None or (account is not None and found.account != account):
        raise WebhookNotFound(which)
    return found


class Deliveries:
    """The messages of endpoints."""

    def __init__(
        self,
        database: Database,
        *,
        clock_us: Callable[[], int],
        new_hex: Callable[[int], str] = secrets.token_hex,
    ) -> None:
        self._database = database
        self._clock_us = clock_us
        self._new_hex = new_hex

    def test(self, which: str, *, account: str | None = None) -> str:
        """Have a message of type `webhook.test` sent; its id.

        Raises:
            WebhookNotFound: as `endpoint_of`.
            InvalidWebhook: the endpoint is disabled.
        """
        subject = self._new_hex(8)

        def step(connection: Connection) -> str:
            found = endpoint_of(connection, which, account)
            if not found.enabled:
                raise InvalidWebhook(f"Webhook {which} is disabled; enable it first.")
            data = {"webhook": which, "account": found.account}
            return queue_for(connection, which, TEST_TYPE, data, subject, self._clock_us())

        return self._database.settle(step)

    def page(
        self,
        which: str,
        *,
        account: str | None = None,
        state: str | None = None,
        before: str | None = None,
        limit: int = MAX_HTTP_PAGE,
    ) -> Page[Delivery, str]:
        """Messages to an endpoint, the newest first, a page at a time.

        Args:
            which: the endpoint.
            account: whose it has to be; None: anybody's.
            state: only those that are `pending`, `delivered` or `dead`.
            before: only those queued before this message: the last one of the page before.
            limit: how many at most, 1 to `MAX_HTTP_PAGE`.

        Raises:
            WebhookNotFound: as `endpoint_of`, and of the message `before`.
            InvalidRequest: there is no such state, or the limit is out of its range.
        """
        if state is not None and state not in STATES:
            raise InvalidRequest(f"state must be one of {', '.join(STATES)}, not {shown(state)!r}.")
        require_limit(limit, MAX_HTTP_PAGE)
        with self._database.read() as connection:
            endpoint_of(connection, which, account)
            seq = None if before is None else self._of(connection, which, before).seq
            found = delivery_sql.deliveries(
                connection, which, state=state, before_seq=seq, limit=limit + 1
            )
        return page_of(found, limit, lambda one: one.id)

    def get(self, which: str, message: str, *, account: str | None = None) -> Delivery:
        """Return a message to an endpoint.

        Raises:
            WebhookNotFound: as `endpoint_of`, and of the message.
        """
        with self._database.read() as connection:
            endpoint_of(connection, which, account)
            return self._of(connection, which, message)

    def _of(self, connection: Connection, which: str, message: str) -> Delivery:
        found = delivery_sql.get_delivery(connection, message)
        if found is None or found.endpoint != which:
            raise WebhookNotFound(message)
        return found

    def counts(self, which: str) -> dict[str, int]:
        """Return the number of messages to an endpoint that are pending, delivered and dead."""
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
            WebhookNotFound: as `endpoint_of`, and of the message.
            InvalidWebhook: the endpoint is disabled.
        """
        with self._database.read() as connection:
            endpoint = endpoint_of(connection, which, account)
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
                    limit=MAX_AT_ONCE,
                )
            if not found:
                return replayed
            replayed += self._replay(found)
            after = found[-1]

    def _replay(self, seqs: Sequence[int]) -> int:
        most = 0

        def step(connection: Connection) -> int:
            nonlocal most
            # Where it was committed, and nobody heard of it, they are pending by now.
            most = max(most, delivery_sql.replay(connection, seqs, self._clock_us()))
            return most

        return self._database.settle(step)
