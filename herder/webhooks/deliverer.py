"""Delivers: claims what is due, has it sent, writes down what came of it.

On threads of its own, so that no receiver, however slow, holds up a settlement. Any number of
herders share the work: a claim is a row's `claim` and a time until which nobody else takes it, and
what a herder that was killed had claimed is due again after that. A message may so be sent twice,
under the same id, and is never lost.
"""

from __future__ import annotations

import random
import secrets
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import structlog
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from herder.db.database import Database
from herder.errors import HerdUnavailable, SetupError
from herder.store import claims as claim_sql
from herder.store import deliveries as delivery_sql
from herder.store import webhooks as webhook_sql
from herder.store.claims import FinishedRow, Places
from herder.store.deliveries import Delivery
from herder.store.webhooks import Endpoint
from herder.webhooks.messages import Unreadable, WebhookRequest, data_of, make_request
from herder.webhooks.schedule import (
    DISABLE_AFTER_S,
    RETRIES_S,
    UNREADABLE,
    Reply,
    Verdict,
    judge,
)
from herder.webhooks.sending import WebhookSender
from herder.webhooks.signing import Sealer
from workers.transport.loops import Loop
from workers.transport.reasons import reason_of

_log = structlog.get_logger("herder.webhooks")

POLL_S = 0.5
"""The pause between looks for due deliveries: one look into an index."""
GATHER_S = 0.02
"""The time for which replies are collected into one write: each commit delays settlements."""
CLAIM_SPARE_S = 15
"""A claim outlives the longest try by this: by the writing of its reply, and clocks that differ."""
MAX_FORGOTTEN = 500
DELIVER = "webhooks"
"""The thread's name, and that under which its failures are counted."""
RETRY_S = (0.1, 1.0)
STOP_S = 3.0
"""The time that a herder that stops waits for the tries under way."""


@dataclass(frozen=True, slots=True)
class DeliveryLimits:
    """The limits of a deliverer.

    Attributes:
        at_once: messages under way at most.
        each: for one endpoint: one that is slow holds up no other.
        timeout_s: the longest that a try takes.
        retries_s: seconds between tries.
        keep_s: how long what is delivered or given up is kept; 0: for ever.
    """

    at_once: int = 16
    each: int = 8
    timeout_s: int = 15
    retries_s: tuple[int, ...] = RETRIES_S
    keep_s: int = 30 * 86_400


@dataclass(frozen=True, slots=True)
class _Claimed:
    delivery: Delivery
    endpoint: Endpoint
    claim: str
    request: WebhookRequest | Reply


class Deliverer:
    """One herder's part in the deliveries."""

    def __init__(
        self,
        database: Database,
        sealer: Sealer,
        sender: WebhookSender,
        limits: DeliveryLimits,
        *,
        clock_us: Callable[[], int],
        rng: random.Random | None = None,
        new_claim: Callable[[], str] = lambda: secrets.token_hex(8),
    ) -> None:
        self._database = database
        self._sealer = sealer
        self._sender = sender
        self._limits = limits
        self._clock_us = clock_us
        self._rng = rng or random.SystemRandom()
        self._new_claim = new_claim
        self._changed = threading.Condition()
        self._replies: list[tuple[_Claimed, Reply]] = []
        self._under_way: Counter[str] = Counter()
        self._stopping = threading.Event()
        self._loop: Loop | None = None

    @property
    def under_way(self) -> int:
        """Messages that are being sent, or whose reply is not written down yet."""
        return self._under_way.total()

    def step(self, wait_s: float) -> bool:
        """Write down what came back, and send what is due; False if there was neither.

        Args:
            wait_s: how long to wait for a reply, first.
        """
        with self._changed:
            if wait_s > 0:
                self._changed.wait_for(self._has_news, wait_s)
            if self._replies and self.under_way > len(self._replies) and wait_s > 0:
                self._changed.wait_for(self._stopping.is_set, GATHER_S)
            replies, self._replies = self._replies, []
        try:
            claimed = self._exchange(replies)
        except BaseException:
            with self._changed:
                self._replies = replies + self._replies
            raise
        self._under_way.subtract(done.endpoint.id for done, _ in replies)
        self._under_way.update(one.endpoint.id for one in claimed)
        self._under_way = +self._under_way  # without those that have nothing left
        for one in claimed:
            self._send(one)
        return bool(replies or claimed)

    def _has_news(self) -> bool:
        return bool(self._replies) or self._stopping.is_set()

    def _send(self, one: _Claimed) -> None:
        def done(reply: Reply) -> None:
            with self._changed:
                self._replies.append((one, reply))
                self._changed.notify()

        if isinstance(one.request, Reply):
            done(one.request)
        else:
            self._sender.send(one.request, done)

    def _exchange(self, replies: list[tuple[_Claimed, Reply]]) -> list[_Claimed]:
        """Write replies and read claims in one transaction; none where there is neither.

        What is claimed is read after that: one that cannot be read stops no other.
        """
        places = self._places(replies)
        if not replies:
            if places.free <= 0:
                return []
            with self._database.read() as connection:
                if not claim_sql.is_due(connection, self._clock_us(), places):
                    return []

        by = self._new_claim()

        def step(connection: Connection) -> list[int]:
            now_us = self._clock_us()
            if replies:
                self._write_down(connection, replies, now_us)
            if places.free <= 0:
                return []
            until_us = now_us + (self._limits.timeout_s + CLAIM_SPARE_S) * 1_000_000
            return claim_sql.claim(connection, now_us, places, until_us=until_us, by=by)

        seqs = self._database.transact(step)
        return self._read_claimed(by, seqs) if seqs else []

    def _places(self, replies: list[tuple[_Claimed, Reply]]) -> Places:
        """Return the places for messages that may be sent once these replies are written down."""
        under_way = Counter(self._under_way)
        under_way.subtract(done.endpoint.id for done, _ in replies)
        free = 0 if self._stopping.is_set() else self._limits.at_once - under_way.total()
        each = self._limits.each
        rooms = {one: each - count for one, count in under_way.items() if count > 0}
        return Places(self._sealer.kid, free, rooms, each)

    def _read_claimed(self, by: str, seqs: Sequence[int]) -> list[_Claimed]:
        now_us = self._clock_us()
        with self._database.read() as connection:
            return [
                _Claimed(one, endpoint, by, self._prepare(connection, one, endpoint, now_us))
                for one, endpoint in claim_sql.claimed(connection, seqs)
            ]

    def _prepare(
        self, connection: Connection, one: Delivery, endpoint: Endpoint, now_us: int
    ) -> WebhookRequest | Reply:
        """Return the message to send; or, where it cannot be sent, the outcome."""
        try:
            data = data_of(connection, one, endpoint)
            return make_request(one, endpoint, data, self._sealer, now_us)
        except SetupError as error:
            _log.error("webhook_secret_unreadable", endpoint=endpoint.id, reason=error.message)
            return Reply(None, "secret_unreadable")
        except Unreadable:
            _log.error("webhook_unreadable", message=one.id, endpoint=endpoint.id, type=one.type)
        except SQLAlchemyError:
            raise  # the database's trouble is no message's
        except Exception:  # noqa: BLE001 (logged with its trace, and shown with the message)
            _log.exception("webhook_unreadable", message=one.id, endpoint=endpoint.id)
        return Reply(None, UNREADABLE)

    def _write_down(
        self, connection: Connection, replies: list[tuple[_Claimed, Reply]], now_us: int
    ) -> None:
        rows = []
        reached: set[str] = set()
        given_up: set[str] = set()
        gone: set[str] = set()
        for done, reply in replies:
            one = done.delivery
            verdict = judge(
                reply, one.failures, now_us, rng=self._rng, retries_s=self._limits.retries_s
            )
            if verdict.state == "delivered":
                reached.add(one.endpoint)
            elif reply.gone:
                gone.add(one.endpoint)
            elif verdict.state == "dead" and not reply.hopeless:
                given_up.add(one.endpoint)
            rows.append(
                FinishedRow(
                    seq=one.seq,
                    claim=done.claim,
                    state=verdict.state,
                    due_us=verdict.due_us,
                    failures=verdict.failures,
                    tried_us=now_us,
                    status=reply.status,
                    trouble=reply.trouble,
                )
            )
            self._tell(done, reply, verdict)
        claim_sql.finish(connection, rows)
        if reached:
            webhook_sql.mark_reached(connection, reached)
        if given_up - reached:
            webhook_sql.mark_failing(
                connection, given_up - reached, now_us, DISABLE_AFTER_S * 1_000_000
            )
        for endpoint in sorted(gone):
            webhook_sql.disable_endpoint(connection, endpoint, "gone")

    def _tell(self, done: _Claimed, reply: Reply, verdict: Verdict) -> None:
        """Log a failure, without address and content, which are the account's."""
        if verdict.state == "delivered":
            return
        _log.warning(
            "webhook_given_up" if verdict.state == "dead" else "webhook_failed",
            message=done.delivery.id,
            endpoint=done.endpoint.id,
            status=reply.status,
            trouble=reply.trouble,
            failures=verdict.failures,
        )

    def forget(self, limit: int = MAX_FORGOTTEN) -> bool:
        """Delete what was delivered or given up, and kept long enough.

        Args:
            limit: how much of it at most, in one transaction.

        Returns:
            Whether there may be more.
        """
        if self._limits.keep_s == 0:
            return False
        before_us = self._clock_us() - self._limits.keep_s * 1_000_000
        with self._database.read() as connection:
            found = delivery_sql.old(connection, before_us, limit)
        if found:
            self._database.transact(partial(delivery_sql.forget_ended, seqs=found))
        return len(found) == limit

    # Life

    def start(self, failed: Callable[[str], object]) -> None:
        """Deliver, on a thread.

        Args:
            failed: counts a failure under a name.
        """
        self._loop = Loop(
            DELIVER,
            lambda: self.step(POLL_S),
            outages=(HerdUnavailable, SetupError),
            retry_s=RETRY_S,
            on_failure=lambda _error: failed(DELIVER),
            log=_log,
        )
        self._loop.start()

    def stop(self) -> None:
        """End: tries under way get a moment, and what is left is due again after its claim."""
        with self._changed:
            self._stopping.set()
            self._changed.notify_all()
        if self._loop is not None:
            self._loop.stop(10)
            with self._changed:
                self._changed.wait_for(lambda: len(self._replies) == self.under_way, STOP_S)
        self._sender.close()
        if self._loop is not None and self._loop.alive:
            return  # it waits for the database; so would this
        try:
            self.step(0)
        except (HerdUnavailable, OSError) as error:
            _log.warning("out_of_reach", step="webhooks", reason=reason_of(error))
