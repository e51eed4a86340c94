"""The herd as the herder knows it: from what workers say on the beats' stream, never from settings.

Announcements, beats and claims, and the markers of the listening clock, come in batches and are
written in one transaction. Silence counts only while somebody listens: a marker that was read
adds a second to a clock in the database, and claims and leases run on that clock.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import structlog
from sqlalchemy import Connection

from herder.db.database import Database
from herder.domain.binding import is_too_late, judge_attempt, may_run_s
from herder.domain.order import Order, State
from herder.herd.clocks import tell_of_clock
from herder.herd.trusted_keys import REVOKED
from herder.settings import Settings
from herder.store import book as book_sql
from herder.store import hellos as hello_sql
from herder.store import herd as herd_sql
from herder.store import models as model_sql
from herder.store import orders as order_sql
from herder.store.steps import BoundRow, RenewedRow, Subject
from workers.wire import (
    Announcement,
    AttemptRef,
    Beat,
    Body,
    CancelAttempt,
    Claim,
    Confirm,
    Envelope,
    HelloAnswer,
    Marker,
    Reject,
    WorkerStopped,
)

_log = structlog.get_logger("herder.herd.heartbeats")

MARK_EVERY_US = 1_000_000
CALL_OFF_REASONS: dict[str, Literal["cancelled", "deadline"]] = {
    "cancelled": "cancelled",
    "deadline": "deadline",
}


@dataclass(slots=True)
class HeartbeatResult:
    """The outcome of a batch of beats, to be acted on once it is committed.

    Attributes:
        control: (instance, message) that workers are to hear.
        models: models that gained free slots.
        joined: whether a worker joined, or came back, that is to be sent a hello.
    """

    control: list[tuple[str, Body]] = field(default_factory=list)
    models: set[str] = field(default_factory=set)
    joined: bool = False

    def add(self, other: HeartbeatResult) -> None:
        """Act on another batch's as well."""
        self.control += other.control
        self.models |= other.models
        self.joined |= other.joined


@dataclass(slots=True)
class _Batch:
    """A transaction's view: the orders that are named, as they change, and what to write."""

    now_us: int
    heard_s: int
    orders: dict[str, Order]
    at_us: int = 0
    """The arrival of the current message: orders begin when their claims come, not when read."""
    binds: list[BoundRow] = field(default_factory=list)
    renewals: list[RenewedRow] = field(default_factory=list)
    claimed: list[Subject] = field(default_factory=list)
    proven: dict[str, str] = field(default_factory=dict)
    """Workers that claimed their first attempt, or the first since they were doubted, and their
    models."""


class HeartbeatProcessor:
    """Hears the workers."""

    def __init__(
        self, database: Database, settings: Settings, *, clock_us: Callable[[], int]
    ) -> None:
        self._database = database
        self._settings = settings
        self._clock_us = clock_us

    def hear(self, envelopes: Sequence[Envelope]) -> HeartbeatResult:
        """Take in a batch of messages from the beats' stream, in the order in which they came."""
        if self._all_settled(envelopes):
            return HeartbeatResult()

        def step(connection: Connection) -> HeartbeatResult:
            heard = HeartbeatResult()
            batch = _Batch(
                now_us=self._clock_us(),
                heard_s=herd_sql.heard_s(connection),
                orders=order_sql.get_orders(connection, _named_orders(envelopes), lock=True),
            )
            kids = herd_sql.live_kids(connection, herd_sql.WORKER)
            for envelope in envelopes:
                batch.at_us = min(envelope.at_us or batch.now_us, batch.now_us)
                if isinstance(envelope.body, Marker):
                    # Its key was checked to be a herder's before it came here.
                    # Timed by Redis's clock alone: the herders' own may differ.
                    came_us = envelope.at_us or batch.now_us
                    if herd_sql.hear_mark(connection, envelope.body.number, came_us):
                        batch.heard_s = envelope.body.number
                elif envelope.kid in kids:
                    self._hear_worker(connection, batch, envelope, heard)
                else:
                    self._hear_revoked(connection, envelope, heard)
            book_sql.bind(connection, batch.binds)
            book_sql.renew(connection, batch.renewals)
            order_sql.add_events(connection, "started", batch.now_us, batch.claimed)
            for instance, model in sorted(batch.proven.items()):
                hello_sql.prove(connection, instance)
                heard.models.add(model)
            return heard

        # They were taken from the stream: what others undid here would not come again.
        return self._database.transact(step)

    def _all_settled(self, envelopes: Sequence[Envelope]) -> bool:
        """Return whether there are only claims that their outcomes overtook.

        Then nothing is written.
        """
        claims = [(one.sender, one.body) for one in envelopes if isinstance(one.body, Claim)]
        if len(claims) < len(envelopes):
            return False
        with self._database.read() as connection:
            orders = order_sql.get_orders(connection, _named_orders(envelopes))
        return all(
            judge_attempt(orders.get(held.order), held, sender) == "settled"
            for sender, claim in claims
            for held in claim.held
        )

    def _hear_revoked(
        self, connection: Connection, envelope: Envelope, heard: HeartbeatResult
    ) -> None:
        _log.warning("revoked_key", kid=envelope.kid, instance=envelope.sender)
        worker = herd_sql.get_worker(connection, envelope.sender)
        # Who poses as another instance must not have that one sent away.
        if worker is None or worker.kid == envelope.kid:
            heard.control.append((envelope.sender, Reject(reason=REVOKED)))

    def _hear_worker(
        self, connection: Connection, batch: _Batch, envelope: Envelope, heard: HeartbeatResult
    ) -> None:
        worker = herd_sql.get_worker(connection, envelope.sender)
        if worker is not None and worker.kid != envelope.kid:
            _log.warning("instance_of_another_key", instance=envelope.sender, kid=envelope.kid)
            return
        body = envelope.body
        if isinstance(body, Beat):
            self._hear_beat(connection, batch, envelope, body, worker, heard)
        elif worker is None:
            # Not announced yet, or forgotten: its next beat announces it.
            _log.info("unannounced", instance=envelope.sender)
        elif isinstance(body, Claim):
            for held in body.held:
                self._bind_or_renew(batch, worker, held, heard)
        elif isinstance(body, HelloAnswer):
            self._hear_answer(connection, worker, body, heard)
        elif isinstance(body, WorkerStopped):
            herd_sql.set_worker_state(connection, worker.instance, "gone")
            _log.info("worker_gone", worker=worker.name, instance=worker.instance)

    def _hear_answer(
        self,
        connection: Connection,
        worker: herd_sql.Worker,
        answer: HelloAnswer,
        heard: HeartbeatResult,
    ) -> None:
        if hello_sql.answer_hello(connection, worker.instance, answer.number):
            _log.info("worker_reached", worker=worker.name, instance=worker.instance)
            heard.models.add(worker.model)

    def _hear_beat(
        self,
        connection: Connection,
        batch: _Batch,
        envelope: Envelope,
        beat: Beat,
        worker: herd_sql.Worker | None,
        heard: HeartbeatResult,
    ) -> None:
        announced = beat.worker
        if worker is not None and beat.number <= worker.beat:
            return  # older than what is known: it says nothing of now
        returns = worker is not None and worker.state not in ("alive", "draining")
        if worker is None or _is_another(worker, announced):
            refusal = self._refusal(connection, envelope.sender, announced)
            if refusal is not None:
                _log.warning("worker_refused", worker=announced.name, reason=refusal)
                heard.control.append((envelope.sender, Reject(reason=refusal)))
                return
            self._welcome(connection, announced)
            heard.joined = True
            _log.info(
                "worker_joined",
                worker=announced.name,
                instance=envelope.sender,
                model=announced.model,
                slots=announced.slots,
                context=announced.context,
            )
        known = worker or _as_worker(envelope, announced)
        tell_of_clock(known, announced)
        strays = sum(not self._bind_or_renew(batch, known, held, heard) for held in beat.running)
        for held in beat.unconfirmed:
            self._show_unconfirmed(batch, known, held, heard)
        herd_sql.put_worker(
            connection,
            envelope.sender,
            envelope.kid,
            announced,
            beat=beat.number,
            strays=strays,
            heard_s=batch.heard_s,
            now_us=batch.now_us,
            returns=returns,
        )
        heard.models.add(announced.model)

    def _bind_or_renew(
        self, batch: _Batch, worker: herd_sql.Worker, held: AttemptRef, heard: HeartbeatResult
    ) -> bool:
        """Bind an attempt that a worker has, or renew its lease, or tell the worker to stop it."""
        order = batch.orders.get(held.order)
        verdict = judge_attempt(order, held, worker.instance)
        if verdict == "settled":
            return True  # its outcome overtook this
        if order is None or verdict == "void":
            _log.warning("stray_attempt", order=held.order, instance=worker.instance)
            heard.control.append((worker.instance, CancelAttempt(held=held, reason="void")))
            return False
        if is_too_late(order, batch.at_us):
            # It was to have begun by now: it is about to expire.
            heard.control.append((worker.instance, CancelAttempt(held=held, reason="void")))
            return False
        if order.call_off is not None:
            # Told again with each beat until it answers: the first time may have been lost.
            heard.control.append(
                (worker.instance, CancelAttempt(held=held, reason=CALL_OFF_REASONS[order.call_off]))
            )
        deadline = batch.heard_s + self._settings.lease_s
        if order.state is State.RUNNING:
            batch.renewals.append(RenewedRow(order.seq, deadline))
            return True
        first = order.worker is None
        if not worker.proven:
            batch.proven[worker.instance] = worker.model
        batch.binds.append(
            BoundRow(
                seq=order.seq,
                instance=worker.instance,
                worker=worker.name,
                weights=worker.weights,
                began_us=max(order.dispatched_us or 0, batch.at_us),
                tried=int(first),
                deadline_heard_s=deadline,
                overdue_heard_s=deadline + may_run_s(order),
            )
        )
        batch.claimed.append(Subject(order.id, order.attempt, worker.instance))
        batch.orders[order.id] = replace(
            order,
            state=State.RUNNING,
            instance=worker.instance,
            worker=worker.name,
            begun=True,
        )
        return True

    def _show_unconfirmed(
        self, batch: _Batch, worker: herd_sql.Worker, held: AttemptRef, heard: HeartbeatResult
    ) -> None:
        """Answer a worker whose outcome is unconfirmed: in flight, settled, or void."""
        match judge_attempt(batch.orders.get(held.order), held, worker.instance):
            case "current":
                self._bind_or_renew(batch, worker, held, heard)
            case "settled":
                heard.control.append((worker.instance, Confirm(held=(held,))))
            case "void":
                heard.control.append((worker.instance, CancelAttempt(held=held, reason="void")))

    def _refusal(
        self, connection: Connection, instance: str, announced: Announcement
    ) -> str | None:
        """Return the reason for which a worker may not join.

        Until one herd serves many models, it serves the one that an operator named. The first
        worker does not decide it: one with a typo would have all the right ones sent away.
        """
        _, herds_model, _ = model_sql.read_policy(connection)
        if announced.model != herds_model:
            return (
                f"This herd serves {herds_model}, but the worker announced {announced.model}; set "
                "HERD_MODEL and HERD_MODEL_PATH to the herd's model. If the herd is to serve "
                f"{announced.model}, its operator says so with `herd model set {announced.model} "
                "--default`."
            )
        here = herd_sql.workers_here(connection, announced.model)
        least = min((other.context for other in here if other.instance != instance), default=0)
        if announced.context < least:
            return (
                f"This herd's context is {least} tokens, but the worker announced "
                f"{announced.context}; set HERD_CONTEXT to {least} or more."
            )
        return None

    def _welcome(self, connection: Connection, announced: Announcement) -> None:
        contexts = [other.context for other in herd_sql.workers_here(connection, announced.model)]
        model_sql.set_context(connection, announced.model, min([announced.context, *contexts]))

    def mark(self) -> int | None:
        """Take the right to send the listening clock's next marker; its number, or None."""
        return self._database.transact(
            lambda connection: herd_sql.take_mark(connection, self._clock_us(), MARK_EVERY_US)
        )

    def sweep(self) -> None:
        """Count workers as lost that were silent for a lease of the listening clock."""
        with self._database.read() as connection:
            before = herd_sql.heard_s(connection) - self._settings.lease_s
            silent = any(one.heard_s < before for one in herd_sql.workers_here(connection))
        if silent:
            _log.warning("workers_lost", count=self._database.transact(self._lose_silent))

    def _lose_silent(self, connection: Connection) -> int:
        before = herd_sql.heard_s(connection) - self._settings.lease_s
        return herd_sql.lose_silent(connection, before)


def _is_another(worker: herd_sql.Worker, announced: Announcement) -> bool:
    """Return whether a known worker has to be judged anew.

    It was away, or is no longer what it was.
    """
    return worker.state not in ("alive", "draining") or (worker.model, worker.context) != (
        announced.model,
        announced.context,
    )


def _as_worker(envelope: Envelope, announced: Announcement) -> herd_sql.Worker:
    return herd_sql.Worker(
        instance=envelope.sender,
        kid=envelope.kid,
        name=announced.name,
        model=announced.model,
        slots=announced.slots,
        context=announced.context,
        tokens_per_s=announced.tokens_per_s,
        weights=announced.weights,
        state="alive",
        beat=0,
        strays=0,
        heard_s=0,
        joined_us=0,
        seen_us=0,
    )


def _named_orders(envelopes: Sequence[Envelope]) -> set[str]:
    named: set[str] = set()
    for envelope in envelopes:
        if isinstance(envelope.body, Claim):
            named.update(held.order for held in envelope.body.held)
        elif isinstance(envelope.body, Beat):
            for held in (*envelope.body.running, *envelope.body.unconfirmed):
                named.add(held.order)
    return named
