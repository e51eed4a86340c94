"""How orders end and what they are charged: the only code that resolves a hold.

An outcome counts if and only if its attempt is the order's current one, still open, and its
worker is the one that it is bound to, or the first to show up with its nonce. Settling is
idempotent: an outcome that comes again is confirmed again and changes nothing.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import structlog
from sqlalchemy import Connection

from herder.database import Database
from herder.orders import STEPS, Order, State
from herder.pricing import charge
from herder.settings import Settings
from herder.store import book as book_sql
from herder.store import herd as herd_sql
from herder.store import orders as order_sql
from ledger import Ledger
from workers.wire import Failure, Held, Outcome

_log = structlog.get_logger("herder.settlement")

_STATE_OF = {
    "stop": State.COMPLETED,
    "length": State.COMPLETED,
    "deadline": State.EXPIRED,
    "cancelled": State.CANCELLED,
}


@dataclass(frozen=True, slots=True)
class Answer:
    """An outcome whose signature was checked, and who signed it."""

    outcome: Outcome
    instance: str
    kid: str


@dataclass(slots=True)
class Settled:
    """What a settlement did, to be acted on once it is committed.

    Attributes:
        confirmed: (instance, attempt) whose outcome is settled: the worker may forget it.
        void: (instance, attempt) that counts for nothing: the worker is to stop and forget it.
        ended: orders that ended here.
        models: models whose slots came free or whose book grew.
    """

    confirmed: list[tuple[str, Held]] = field(default_factory=list)
    void: list[tuple[str, Held]] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    models: set[str] = field(default_factory=set)


@dataclass(slots=True)
class _Plan:
    """What a transaction will write, gathered so that it is written in few statements."""

    ends: list[dict[str, Any]] = field(default_factory=list)
    answers: list[tuple[str, str]] = field(default_factory=list)
    posts: list[tuple[str, int | None]] = field(default_factory=list)
    voids: list[str] = field(default_factory=list)
    requeues: list[dict[str, Any]] = field(default_factory=list)
    events: dict[str, list[tuple[str, int, str | None, str | None]]] = field(default_factory=dict)

    def note(self, kind: str, order: Order, detail: str | None = None) -> None:
        """An event, to be written with the rest."""
        subject = (order.id, order.attempt, order.instance, detail)
        self.events.setdefault(kind, []).append(subject)


class Settlement:
    """Settles what comes back from workers, and what does not."""

    def __init__(
        self,
        database: Database,
        books: Ledger,
        settings: Settings,
        *,
        clock_us: Callable[[], int],
    ) -> None:
        self._database = database
        self._ledger = books
        self._settings = settings
        self._clock_us = clock_us

    def settle(self, answers: Sequence[Answer]) -> Settled:
        """Settle all the outcomes that wait, in one transaction.

        Args:
            answers: outcomes as they came, of any number of workers, repeats among them.
        """
        done = Settled()
        with self._database.write() as connection:
            now_us = self._clock_us()
            plan = _Plan()
            orders = order_sql.get_orders(connection, (one.outcome.order for one in answers))
            keys = herd_sql.live_keys(connection, herd_sql.WORKER)
            known = {
                instance: herd_sql.get_worker(connection, instance)
                for instance in {one.instance for one in answers}
            }
            for answer in answers:
                worker = known[answer.instance]
                if answer.kid not in keys or worker is None or worker.kid != answer.kid:
                    # Not confirmed: a worker that has yet to announce itself sends it again.
                    _log.warning("outcome_of_unknown_worker", instance=answer.instance)
                    continue
                order = orders.get(answer.outcome.order)
                verdict = judge(order, answer.outcome, answer.instance)
                if order is None or verdict == "void":
                    _log.warning(
                        "outcome_dropped", order=answer.outcome.order, instance=answer.instance
                    )
                    done.void.append((answer.instance, answer.outcome.held))
                    continue
                done.confirmed.append((answer.instance, answer.outcome.held))
                if verdict == "accept":
                    bound = _bound(order, worker)
                    orders[order.id] = self._apply(plan, bound, answer.outcome, now_us)
                    done.models.add(order.model)
            self._write(connection, plan, now_us)
            done.ended = [str(row["id"]) for row in plan.ends]
        return done

    def _apply(self, plan: _Plan, order: Order, outcome: Outcome, now_us: int) -> Order:
        """The order after an outcome that counts."""
        limits = self._settings
        if outcome.result == "completed":
            state = _STATE_OF[outcome.finish_reason or "stop"]
            return _end(plan, order, state, now_us, outcome)
        failure = outcome.failure
        if outcome.result == "handed_back":
            # Nothing was wrong with the order: it counts as sent, not as tried.
            order = replace(order, tries=max(0, order.tries - 1))
            if order.dispatches < limits.max_dispatches:
                return _requeue(plan, order, "handed_back")
            failure = Failure(
                code="too_many_dispatches",
                message=f"It was sent out {order.dispatches} times and never finished.",
                permanent=True,
            )
        if failure is not None and not failure.permanent and order.tries < limits.max_attempts:
            return _requeue(plan, order, "attempt_failed", failure.message)
        return _end(plan, order, State.FAILED, now_us, outcome, failure)

    def lapse(self) -> Settled:
        """Take back what nobody claimed, and what fell silent for a lease.

        The order goes back to its old place, or fails once it was tried often enough. Its last
        attempt stays open until it is dispatched again: a late answer is still an answer.
        """
        done = Settled()
        with self._database.read() as connection:
            heard_s = herd_sql.heard_s(connection)
            if not book_sql.lapsed(connection, heard_s):
                return done
        with self._database.write() as connection:
            now_us = self._clock_us()
            plan = _Plan()
            for order in book_sql.lapsed(connection, herd_sql.heard_s(connection)):
                done.models.add(order.model)
                self._give_up(plan, order, now_us)
                _log.warning(
                    "lapsed", order=order.id, attempt=order.attempt, instance=order.instance
                )
            self._write(connection, plan, now_us)
            done.ended = [str(row["id"]) for row in plan.ends]
        return done

    def _give_up(self, plan: _Plan, order: Order, now_us: int) -> None:
        limits = self._settings
        if order.tries >= limits.max_attempts:
            code, said = "too_many_attempts", f"{order.tries} workers began it and fell silent."
        elif order.dispatches >= limits.max_dispatches:
            code, said = "too_many_dispatches", f"It was sent out {order.dispatches} times."
        else:
            _requeue(plan, order, "lapsed", still_open=True)
            return
        failure = Failure(code=code, message=said, permanent=True)
        _end(plan, order, State.FAILED, now_us, None, failure)

    def _write(self, connection: Connection, plan: _Plan, now_us: int) -> None:
        book_sql.end(connection, plan.ends)
        book_sql.requeue(connection, plan.requeues)
        book_sql.write_answers(connection, plan.answers)
        for kind, subjects in plan.events.items():
            order_sql.add_events(connection, kind, now_us, subjects)
        # The ledger comes last: what it locks, others wait for until the commit.
        self._ledger.post_many(connection, plan.posts)
        self._ledger.void_many(connection, plan.voids)


def judge(order: Order | None, outcome: Outcome, instance: str) -> str:
    """Whether an outcome counts: `accept`, `again` (it did before), or `void`."""
    if (
        order is None
        or order.nonce is None
        or outcome.attempt != order.attempt
        or not hmac.compare_digest(outcome.nonce, order.nonce)
        or order.instance not in (None, instance)
    ):
        return "void"
    if not order.attempt_open:
        return "again" if order.instance == instance else "void"
    return "accept"


def _bound(order: Order, worker: herd_sql.Worker) -> Order:
    """The order as it is once its attempt is bound: an outcome may come before the claim."""
    if order.instance is not None:
        return order
    return replace(
        order,
        instance=worker.instance,
        worker=worker.name,
        weights=worker.weights,
        tries=order.tries + 1,
    )


def _end(
    plan: _Plan,
    order: Order,
    state: State,
    now_us: int,
    outcome: Outcome | None,
    failure: Failure | None = None,
) -> Order:
    """End an order and resolve its hold: the one place where either happens."""
    assert state in STEPS[order.state], f"{order.state} to {state}"
    # A worker cannot have generated more than it was asked for, whatever it says.
    generated = min(outcome.generated, order.tokens) if outcome else 0
    charged = 0
    if state is State.COMPLETED or (state is not State.FAILED and generated > 0):
        whole = order.charge_unused and state is State.COMPLETED
        charged = charge(order.fee, order.needed, order.rates, order.words, generated, whole=whole)
    took_us = outcome.took_ms * 1000 if outcome else 0
    started_us = order.started_us
    if started_us is None and order.instance is not None:
        started_us = max(order.submitted_us, now_us - took_us)
    ended = replace(
        order,
        state=state,
        attempt_open=False,
        started_us=started_us,
        ended_us=now_us,
        finish_reason=outcome.finish_reason if outcome else None,
        prompt_tokens=outcome.prompt_tokens if outcome else 0,
        generated=generated,
        charged=charged,
        returned=order.fee - charged,
        failure=failure.model_dump() if failure else None,
    )
    plan.ends.append(
        {
            "id": order.id,
            "which": order.seq,
            **{f"v_{name}": getattr(ended, name) for name in book_sql.END_COLUMNS},
        }
    )
    if charged:
        plan.posts.append((order.hold_id, charged))
    else:
        plan.voids.append(order.hold_id)
    if outcome and outcome.text:
        plan.answers.append((order.id, outcome.text))
    plan.note(state.value, ended, failure.code if failure else None)
    return ended


def _requeue(
    plan: _Plan, order: Order, why: str, detail: str | None = None, *, still_open: bool = False
) -> Order:
    assert State.QUEUED in STEPS[order.state] or order.state is State.QUEUED
    waiting = replace(order, state=State.QUEUED, attempt_open=still_open)
    plan.requeues.append(
        {"which": order.seq, "still_open": still_open, "tries_now": order.tries}
        | {"who": order.instance, "who_name": order.worker, "who_weights": order.weights}
    )
    plan.note(why, order, detail)
    return waiting


def instances(pairs: Iterable[tuple[str, Held]]) -> dict[str, list[Held]]:
    """Attempts by the worker instance that is to hear of them."""
    by_instance: dict[str, list[Held]] = {}
    for instance, held in pairs:
        by_instance.setdefault(instance, []).append(held)
    return by_instance
