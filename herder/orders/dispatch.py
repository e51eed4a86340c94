"""Dispatch: the best orders go to the slots that are free, and what they say goes out.

Each attempt is sent to one worker, and nobody else may claim it (`placement` chooses which). One
short transaction per model under one lock (on SQLite the write lock is that lock): count the free
slots, take the best orders, give each a worker, an attempt and a nonce, note them in the outbox;
commit; then publish. At each dispatch no better order, committed before it began, stays waiting.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import structlog
from pydantic import ValidationError
from sqlalchemy import Connection

from herder.db.database import Database
from herder.domain.order import Order, State
from herder.domain.pricing import priority
from herder.domain.receipts import decimal_text
from herder.duties.turns import Turns
from herder.orders.closer import Closer
from herder.orders.closing import ClosingBatch, ClosingResult
from herder.orders.placement import place, room
from herder.settings import Settings
from herder.store import book as book_sql
from herder.store import herd as herd_sql
from herder.store import models as model_sql
from herder.store import orders as order_sql
from herder.store import outbox as outbox_sql
from herder.store.outbox import Outgoing
from herder.store.steps import DispatchedRow, Subject
from ledger import Ledger
from workers.transport.reasons import reason_of
from workers.transport.tasks import NewTask, Publisher
from workers.wire import (
    INFER_TASK,
    INFERENCE_QUEUE,
    MAX_RUN_LIMIT_S,
    Failure,
    InferenceJob,
    PrivateKey,
    WireError,
    attempt_id,
    seal,
    worker_queue,
)

_log = structlog.get_logger("herder.orders.dispatch")

MAX_AT_ONCE = 100
"""Orders that one transaction sends out at most, so that no other waits long for the lock."""

MAX_FORGOTTEN = 1000

OUTBOX_GRACE_US = 5_000_000
"""The age at which the sweep assumes that an outbox row was never published."""

RUN_LIMIT_FACTOR = 10
MIN_RUN_LIMIT_S = 60
SLOWEST_TOKENS_PER_S = 1
"""Assumed for the run limit of a herd that has measured nothing."""


Unsendable = tuple[Order, Failure]
"""An order that cannot be put into a message, and what its buyer is told."""


@dataclass(slots=True)
class Dispatched:
    """The outcome of a dispatch, to be acted on.

    Attributes:
        free: whether slots stayed free: then the next submission should be told of at once.
        settled: the orders that ended, as they cannot be sent to anybody.
    """

    free: bool = False
    settled: ClosingResult = field(default_factory=ClosingResult)


class Dispatcher:
    """Sends the best orders to free slots."""

    def __init__(
        self,
        database: Database,
        books: Ledger,
        settings: Settings,
        key: PrivateKey,
        publisher: Publisher,
        *,
        clock_us: Callable[[], int],
        new_nonce: Callable[[], str] = secrets.token_urlsafe,
    ) -> None:
        self._database = database
        self._closer = Closer(database, books, clock_us=clock_us)
        self._settings = settings
        self._key = key
        self._publisher = publisher
        self._clock_us = clock_us
        self._new_nonce = new_nonce
        self._lock = threading.Lock()
        self._published: set[int] = set()
        self._unsent: Turns[Outgoing, int] = Turns(0, lambda message: message.row, clock_us)

    def dispatch(self, model: str, done: Dispatched | None = None) -> Dispatched:
        """Fill the free slots of a model.

        Args:
            model: its name.
            done: is given what was done, and has it also where something later raises.
        """
        done = Dispatched() if done is None else done
        while True:
            messages, free = self._take(model)
            unsendable = self._publish(messages)
            if unsendable:
                # They end at once, and the slots that they were given go to the next best.
                done.settled.add(self._give_up(unsendable))
            elif len(messages) < MAX_AT_ONCE:
                done.free = free > len(messages)
                return done

    def _take(self, model: str) -> tuple[list[Outgoing], int]:
        # An empty book is no reason to wait for the write lock.
        with self._database.read() as connection:
            if not book_sql.anything_waits(connection, model):
                return [], self._room(*_standing(connection, model))
        published = self._some_published()

        def step(connection: Connection) -> tuple[list[Outgoing], int]:
            if not model_sql.lock_dispatch(connection, model):
                return [], 0  # its book is being ranked anew
            workers, unclaimed = _standing(connection, model)
            free = self._room(workers, unclaimed)
            now_us = self._clock_us()
            most = min(free, MAX_AT_ONCE)
            chosen = book_sql.best(connection, model, most, now_us) if free else []
            if not chosen:
                return [], free
            places = place(workers, len(chosen), self._settings.lookahead)
            deadline = herd_sql.heard_s(connection) + self._settings.claim_s
            rows = [
                DispatchedRow(
                    seq=order.seq,
                    instance=instance,
                    nonce=self._new_nonce(),
                    run_limit_s=min(
                        order.run_limit_s or run_limit_s(order.tokens, workers), MAX_RUN_LIMIT_S
                    ),
                    dispatched_us=now_us,
                    deadline_heard_s=deadline,
                )
                for order, instance in zip(chosen, places, strict=True)
            ]
            book_sql.dispatch(connection, rows)
            attempts = [(order.id, order.attempt + 1) for order in chosen]
            outbox_sql.add(connection, attempts, now_us)
            # An order that needs nothing has no multiplier: it fails, when its message is made.
            priced = [order for order in chosen if order.needed > 0]
            if priced:
                last = priced[-1]
                model_sql.set_last_multiplier(connection, model, last.fee, last.needed, now_us)
            order_sql.add_events(
                connection,
                "dispatched",
                now_us,
                [
                    Subject(order_id, attempt, instance)
                    for (order_id, attempt), instance in zip(attempts, places, strict=True)
                ],
            )
            outbox_sql.clear(connection, published)
            return outbox_sql.of_orders(connection, [order.id for order in chosen]), free

        messages, free = self._database.transact(step)
        if messages:
            self._forget_published(published)
        return messages, free

    def _room(self, workers: Sequence[herd_sql.Worker], unclaimed: int) -> int:
        """Orders that may go out now: free slots, less what earlier herders sent to anybody."""
        lookahead = self._settings.lookahead
        return max(0, sum(room(worker, lookahead) for worker in workers) - unclaimed)

    def _publish(self, messages: Sequence[Outgoing]) -> list[Unsendable]:
        """Send messages that were committed; what fails stays in the outbox for the sweep.

        Returns:
            The orders that cannot be put into a message, now or later: they hold up no others.
        """
        tasks: dict[int, NewTask] = {}
        unsendable: list[Unsendable] = []
        for message in messages:
            try:
                request = order_sql.StoredRequest.from_text(message.stored)
                tasks[message.row] = self._task(message.order, request)
            except (WireError, ValueError, TypeError, ArithmeticError) as error:
                failure = _unsendable(error)
                _log.error("job_not_made", order=message.order.id, reason=failure.code)
                unsendable.append((message.order, failure))
        if not tasks:
            return unsendable
        try:
            self._publisher.publish_many(list(tasks.values()))
        except OSError as error:
            _log.warning("broker_out_of_reach", waiting=len(tasks), reason=reason_of(error))
            return unsendable
        with self._lock:
            self._published.update(tasks)
        return unsendable

    def _give_up(self, unsendable: Sequence[Unsendable]) -> ClosingResult:
        """End orders that cannot be sent to anybody: all of their money goes back."""

        def step(
            connection: Connection,
            rows: Sequence[Unsendable],
            plan: ClosingBatch,
            done: ClosingResult,
            now_us: int,
        ) -> None:
            locked = order_sql.get_orders(connection, (order.id for order, _ in rows), lock=True)
            for seen, failure in rows:
                order = locked[seen.id]
                if (order.attempt, order.state) == (seen.attempt, State.DISPATCHED):
                    plan.end(order, State.FAILED, now_us, None, failure)
                    done.models.add(order.model)

        return self._closer.close(unsendable, lambda one: one[0].id, step)

    def _task(self, order: Order, request: order_sql.StoredRequest) -> NewTask:
        job = job_of(order, request)
        queue = INFERENCE_QUEUE if order.instance is None else worker_queue(order.instance)
        token = seal(
            job,
            self._key,
            sender="herder",
            audience=queue,
            now_s=self._clock_us() // 1_000_000,
            ttl_s=self._settings.claim_s,
        )
        return NewTask(
            queue,
            INFER_TASK,
            token,
            attempt_id(job.held),
            job.label,
            priority(order.fee, order.needed),
        )

    def _some_published(self) -> list[int]:
        """Outbox rows that were published, to be cleared within a transaction that commits anyway.

        Should it not commit, or two threads clear the same ones: no harm is done.
        """
        with self._lock:
            return sorted(self._published)[:MAX_FORGOTTEN]

    def _forget_published(self, cleared: Sequence[int]) -> None:
        with self._lock:
            self._published.difference_update(cleared)

    def sweep(self, limit: int = MAX_AT_ONCE) -> ClosingResult:
        """Publish what some herder committed and did not publish, and tidy the outbox.

        A message that goes out twice does no harm: its attempt is bound to one worker.

        Args:
            limit: messages at most; `more` of the answer says whether there may be more.

        Returns:
            The orders that ended, as they cannot be sent to anybody.
        """
        with self._database.read() as connection:
            until_us = self._clock_us() - OUTBOX_GRACE_US
            after = self._unsent.after
            left = outbox_sql.pending(connection, until_us=until_us, after=after, limit=limit)
            with self._lock:
                published = set(self._published)
            tidy = bool(published) or outbox_sql.is_old(connection, until_us)
        due = [one for one in self._unsent.due(left) if one.row not in published]
        unsendable = self._publish(due)
        done = self._give_up(unsendable)
        hopeless = {order.id for order, _ in unsendable}
        with self._lock:
            unsent = [one for one in due if one.row not in self._published]
        self._unsent.failed([one for one in unsent if one.order.id in done.stuck])
        if len(unsent) <= len(hopeless):
            done.more |= self._unsent.turn(left, limit)
        # Else the broker is away: it is not asked again at once, and then from here on.
        if tidy:
            cleared = self._some_published()

            def step(connection: Connection) -> int:
                outbox_sql.clear(connection, cleared)
                return outbox_sql.sweep(connection, MAX_FORGOTTEN)

            done.more |= self._database.transact(step) == MAX_FORGOTTEN
            self._forget_published(cleared)
        return done

    def models(self) -> list[str]:
        """Return every model, for the sweep that stands behind lost events."""
        with self._database.read() as connection:
            return [model.name for model in model_sql.list_models(connection)]


def _standing(connection: Connection, model: str) -> tuple[list[herd_sql.Worker], int]:
    """Return the workers of a model, and how many of its orders are out with nobody yet."""
    # In this order: what is claimed between the two looks is counted twice, and not never.
    unclaimed = herd_sql.unclaimed(connection, model)
    return herd_sql.workers_here(connection, model), unclaimed


def run_limit_s(tokens: int, workers: Sequence[herd_sql.Worker]) -> int:
    """Return the longest run of an attempt in seconds, where the client gave none.

    Ten times what the tokens take on the slowest worker with all its slots busy, at least a
    minute, and at most `MAX_RUN_LIMIT_S`, which is all that a message can say.
    """
    speeds = [worker.tokens_per_s for worker in workers if worker.tokens_per_s > 0]
    speed = min(speeds, default=SLOWEST_TOKENS_PER_S)
    wanted = max(MIN_RUN_LIMIT_S, -(-RUN_LIMIT_FACTOR * tokens // speed))
    return min(wanted, MAX_RUN_LIMIT_S)


def _unsendable(error: Exception) -> Failure:
    """Return the sentence for the buyer of an order that does not fit into a message."""
    if isinstance(error, order_sql.UnreadableRequest) and error.field is None:
        code, said = "unreadable_request", "What it asks cannot be read by this herd any more."
    elif isinstance(error, order_sql.UnreadableRequest):
        code, said = "unreadable_request", f"Its {error.field} is not one that this herd takes."
    elif isinstance(error, ValidationError):
        named = order_sql.field_of(error) or "request"
        code, said = "not_sendable", f"Its {named} is beyond what can be sent to a worker."
    else:
        code, said = "not_sendable", "It is larger than what can be sent to a worker."
    return Failure(code=code, message=said, permanent=True)


def job_of(order: Order, request: order_sql.StoredRequest) -> InferenceJob:
    """Return the message about an order that was dispatched."""
    assert order.nonce is not None
    return InferenceJob(
        order=order.id,
        attempt=order.attempt,
        nonce=order.nonce,
        rank=order.rank,
        model=order.model,
        multiplier=decimal_text(order.multiplier, 3),
        prompt=request.prompt.text,
        messages=request.prompt.messages,
        raw=request.prompt.raw,
        special=request.prompt.special,
        continues=request.prompt.continues,
        template_args=dict(request.prompt.template_args),
        tokens=order.tokens,
        fit_tokens=request.fit_tokens,
        stop=request.stop,
        sampling=request.sampling,
        run_limit_s=min(order.run_limit_s or MIN_RUN_LIMIT_S, MAX_RUN_LIMIT_S),
        splits_reasoning=not request.prompt.raw,
    )
