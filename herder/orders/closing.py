"""Orders that end or go back to waiting: gathered in a plan, written in few statements.

The one place where a hold is resolved. Whoever has a reason to end an order (an outcome, a lapse, a
cancellation, a deadline) plans it here, in the transaction in which the reason was looked at.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Literal

from sqlalchemy import Connection

from herder.domain.charging import charge_of
from herder.domain.order import STEPS, Order, State
from herder.messages.inbox import OutgoingMessage, deliver, told_end
from herder.store import accounts as account_sql
from herder.store import api_keys as key_sql
from herder.store import book as book_sql
from herder.store import orders as order_sql
from herder.store.steps import AnswerRow, EndedRow, RequeuedRow, Subject
from herder.webhooks import events as webhooks
from ledger import Ledger
from workers.transport.tasks import LostTask
from workers.wire import AttemptRef, Failure, Outcome

WhyStop = Literal["void", "cancelled", "deadline"]


@dataclass(slots=True)
class ClosingResult:
    """The outcome of a transaction, to be acted on once it is committed.

    Attributes:
        confirmed: (instance, attempt) whose outcome is settled: the worker may forget it.
        stops: (instance, attempt, why) that a worker is to stop; `void` ones count for nothing.
        ended: orders that ended here.
        inboxes: accounts that were sent a message.
        models: models whose slots came free or whose book grew.
        stuck: orders that could neither be ended nor set aside: they stay as they are.
        more: whether there was more to do than one piece of it.
        lost: attempts that lapsed, for those who watch tasks.
    """

    confirmed: list[tuple[str, AttemptRef]] = field(default_factory=list)
    stops: list[tuple[str, AttemptRef, WhyStop]] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    inboxes: set[str] = field(default_factory=set)
    models: set[str] = field(default_factory=set)
    stuck: set[str] = field(default_factory=set)
    more: bool = False
    lost: list[LostTask] = field(default_factory=list)

    @property
    def void(self) -> list[tuple[str, AttemptRef]]:
        """(instance, attempt) whose outcome counts for nothing."""
        return [(instance, held) for instance, held, why in self.stops if why == "void"]

    def add(self, other: ClosingResult) -> None:
        """Act on another transaction's doings as well."""
        self.confirmed += other.confirmed
        self.stops += other.stops
        self.ended += other.ended
        self.inboxes |= other.inboxes
        self.models |= other.models
        self.stuck |= other.stuck
        self.more |= other.more
        self.lost += other.lost

    def note(self, plan: ClosingBatch) -> None:
        """Note what a plan ended, and whom it told."""
        self.ended += plan.ended
        self.inboxes |= {letter.account for letter in plan.letters}


@dataclass(slots=True)
class ClosingBatch:
    """The writes of a transaction, gathered so that few statements are needed.

    Attributes:
        ended: the orders that it ends.
        letters: what it tells those who ordered by a message.
        told: these orders as they ended, for whoever is to be told.
    """

    ended: list[str] = field(default_factory=list)
    ends: list[EndedRow] = field(default_factory=list)
    told: list[Order] = field(default_factory=list)
    answers: list[AnswerRow] = field(default_factory=list)
    letters: list[OutgoingMessage] = field(default_factory=list)
    posts: list[tuple[str, int | None]] = field(default_factory=list)
    voids: list[str] = field(default_factory=list)
    requeues: list[RequeuedRow] = field(default_factory=list)
    events: dict[str, list[Subject]] = field(default_factory=dict)
    accounts: Counter[str] = field(default_factory=Counter)
    keys: dict[str, tuple[int, int]] = field(default_factory=dict)

    def note(self, kind: str, order: Order, detail: str | None = None) -> None:
        """Note an event, to be written with the rest."""
        subject = Subject(order.id, order.attempt, order.instance, detail)
        self.events.setdefault(kind, []).append(subject)

    def end(
        self,
        order: Order,
        state: State,
        now_us: int,
        outcome: Outcome | None,
        failure: Failure | None = None,
    ) -> Order:
        """End an order and resolve its hold.

        Args:
            order: as it stands, with the worker that it is bound to.
            state: how it ends.
            now_us: the time.
            outcome: what was delivered, which is charged; None: nothing.
            failure: why, if it failed.
        """
        assert state in STEPS[order.state], f"{order.state} to {state}"
        # A worker cannot have generated more than it was asked for, whatever it says.
        generated = min(outcome.generated, order.tokens) if outcome else 0
        charged = charge_of(order, state, generated)
        took_us = outcome.took_ms * 1000 if outcome else 0
        started_us = order.started_us
        if started_us is None and order.worker is not None:
            started_us = max(order.submitted_us, now_us - took_us)
        ended = replace(
            order,
            state=state,
            attempt_open=False,
            # Who delivered nothing is bound no longer: if it shows up, it is told to stop.
            instance=order.instance if outcome else None,
            started_us=started_us,
            ended_us=now_us,
            finish_reason=outcome.finish_reason if outcome else None,
            prompt_tokens=outcome.prompt_tokens if outcome else 0,
            generated=generated,
            charged=charged,
            returned=order.fee - charged,
            failure=failure.model_dump() if failure else None,
        )
        is_said = outcome is not None and bool(outcome.text or outcome.reasoning_tokens)
        answer = AnswerRow.of(order.id, outcome, generated) if outcome and is_said else None
        return self.close(order, ended, answer, failure.code if failure else None)

    def close(
        self,
        order: Order,
        ended: Order,
        answer: AnswerRow | None = None,
        detail: str | None = None,
    ) -> Order:
        """End an order in a way that is worked out already.

        Args:
            order: as it stands.
            ended: as it stands then: `charged` of its hold is kept, and the rest goes back.
            answer: what it is answered with; what was written before stays where there is none.
            detail: of its event.
        """
        self.ends.append(EndedRow.of(ended))
        self.ended.append(order.id)
        self.told.append(ended)
        self.accounts[order.account] += 1
        if order.api_key is not None:
            held, spent = self.keys.get(order.api_key, (0, 0))
            self.keys[order.api_key] = (held - order.fee, spent + ended.charged)
        if ended.charged:
            self.posts.append((order.hold_id, ended.charged))
        else:
            self.voids.append(order.hold_id)
        if answer is not None:
            self.answers.append(answer)
        if order.message is not None:
            self.letters.append(told_end(ended))
        self.note(ended.state.value, replace(ended, instance=order.instance), detail)
        return ended

    def requeue(
        self,
        order: Order,
        why: str,
        detail: str | None = None,
        *,
        still_open: bool = False,
    ) -> Order:
        """Let an order wait again, in its old place.

        Args:
            order: as it stands; its `tries` and `dispatches` are written as they are here.
            why: the kind of its event.
            detail: of the event.
            still_open: whether a late answer of its attempt still counts.
        """
        assert State.QUEUED in STEPS[order.state] or order.state is State.QUEUED
        self.requeues.append(
            RequeuedRow(
                seq=order.seq,
                still_open=still_open,
                tries=order.tries,
                dispatches=order.dispatches,
                begun=order.begun,
                instance=order.instance,
                worker=order.worker,
                weights=order.weights,
            )
        )
        self.note(why, order, detail)
        return replace(order, state=State.QUEUED, attempt_open=still_open)

    def write(self, connection: Connection, books: Ledger, now_us: int) -> None:
        """Write all of it. Nothing else moves these orders' money."""
        book_sql.end(connection, self.ends)
        book_sql.requeue(connection, self.requeues)
        book_sql.write_answers(connection, self.answers)
        for kind, subjects in self.events.items():
            order_sql.add_events(connection, kind, now_us, subjects)
        account_sql.count_out(connection, self.accounts)
        deliver(connection, self.letters, now_us)
        key_sql.count(connection, self.keys)
        webhooks.queue_ends(connection, self.told, now_us)
        # The ledger comes last: what it locks, others wait for until the commit.
        books.lock_holds(connection, [*(hold for hold, _ in self.posts), *self.voids])
        books.post_many(connection, self.posts)
        books.void_many(connection, self.voids)


def instances(pairs: Iterable[tuple[str, AttemptRef]]) -> dict[str, list[AttemptRef]]:
    """Group attempts by the worker instance that is to hear of them."""
    by_instance: dict[str, list[AttemptRef]] = {}
    for instance, held in pairs:
        by_instance.setdefault(instance, []).append(held)
    return by_instance
