"""Settles outcomes that workers send, and lapses of those that do not.

An outcome counts if and only if its attempt is the order's current one, still open, and its
worker is the one that it was sent to (`herder.domain.binding`). Settling is idempotent: an outcome
that comes again is confirmed again and changes nothing.

Of an order that was cancelled while it ran, only that counts which readers of its text were given
(`herder.domain.charging`). They note that in Redis before they hand it out, and hand out nothing
once the cancellation is committed: so what is read there after that commit is all there will be.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from redis import RedisError
from sqlalchemy import Connection

from herder.db.database import Database
from herder.domain.binding import judge_attempt
from herder.domain.charging import CALLED_OFF, ENDS, delivered_part, was_cancelled
from herder.domain.order import Order, State
from herder.duties.turns import Turns
from herder.orders.closer import PIECE, Closer
from herder.orders.closing import ClosingBatch, ClosingResult
from herder.orders.lost import lost_task
from herder.orders.silent import SilentWorker
from herder.settings import Settings
from herder.store import book as book_sql
from herder.store import hellos as hello_sql
from herder.store import herd as herd_sql
from herder.store import lapses as lapse_sql
from herder.store import orders as order_sql
from herder.store import signers as signer_sql
from herder.store.steps import RenewedRow
from ledger import Ledger
from workers.transport.delivery import Deliveries, Reach
from workers.transport.event_log import EventLog
from workers.transport.tasks import LostTask
from workers.wire import CLOCK_LEEWAY_S, Failure, Outcome

_log = EventLog("herder.orders.settlement")


@dataclass(frozen=True, slots=True)
class ReceivedOutcome:
    """An outcome whose signature was checked, and who signed it."""

    outcome: Outcome
    instance: str
    kid: str


Attempt = tuple[str, int]


class Settlement:
    """Settles what comes back from workers, and what does not."""

    def __init__(
        self,
        database: Database,
        books: Ledger,
        settings: Settings,
        deliveries: Deliveries,
        *,
        clock_us: Callable[[], int],
        on_lost: Callable[[Sequence[LostTask]], object] | None = None,
    ) -> None:
        """Keep what settling needs.

        Args:
            database: where the orders stand.
            books: the ledger.
            settings: how often an order is tried, and how long a claim may take.
            deliveries: says what readers were given.
            clock_us: the time, in microseconds since the epoch.
            on_lost: is told of attempts that lapsed, once that is committed; neither waits nor
                raises.
        """
        self._database = database
        self._on_lost = on_lost
        self._deliveries = deliveries
        self._closer = Closer(database, books, clock_us=clock_us)
        self._settings = settings
        self._lapses: Turns[Order, int] = Turns(0, lambda order: order.seq, clock_us)

    def settle(self, answers: Sequence[ReceivedOutcome]) -> ClosingResult:
        """Settle all the outcomes that wait, in one transaction as a rule.

        Where it is not known what readers of a cancelled order were given, its outcome is left, and
        comes again.

        Args:
            answers: outcomes as they came, of any number of workers, repeats among them.
        """
        # Whoever stopped for a cancellation was told of it after its commit.
        stopped = [one for one in answers if one.outcome.finish_reason == "cancelled"]
        reached = self._reached(stopped)
        left: dict[Attempt, ReceivedOutcome] = {}
        done = self._closer.close(answers, _order_of, partial(self._settle, reached, left))
        # Cancelled while the worker said that it was done.
        late = [one for one in left.values() if _attempt(one) not in reached]
        if reached := self._reached(late):
            done.add(self._closer.close(late, _order_of, partial(self._settle, reached, {})))
        return done

    def _reached(self, answers: Sequence[ReceivedOutcome]) -> dict[Attempt, Reach]:
        """Return the reach of readers in these outcomes' texts; nothing where Redis is away."""
        attempts = sorted({_attempt(one) for one in answers})
        if not attempts:
            return {}
        try:
            return dict(zip(attempts, self._deliveries.delivered(attempts), strict=True))
        except RedisError as error:
            _log.warning("deliveries_not_read", orders=len(attempts), reason=type(error).__name__)
            return {}

    def _settle(
        self,
        reached: Mapping[Attempt, Reach],
        left: dict[Attempt, ReceivedOutcome],
        connection: Connection,
        answers: Sequence[ReceivedOutcome],
        plan: ClosingBatch,
        done: ClosingResult,
        now_us: int,
    ) -> None:
        named = (one.outcome.order for one in answers)
        orders = order_sql.get_orders(connection, named, lock=True)
        # Only whose it is counts here. What else stands in the rows of its worker and its key was
        # judged when the signature was checked, and decides nothing about the money.
        kids = herd_sql.live_kids(connection, herd_sql.WORKER)
        known = signer_sql.signers(connection, (one.instance for one in answers))
        proven: set[str] = set()
        for answer in answers:
            worker = known.get(answer.instance)
            if answer.kid not in kids or worker is None or worker.kid != answer.kid:
                # Not confirmed: a worker that has yet to announce itself sends it again.
                _log.warning("outcome_of_unknown_worker", instance=answer.instance)
                continue
            order = orders.get(answer.outcome.order)
            verdict = judge_attempt(order, answer.outcome.held, answer.instance)
            if order is None or verdict == "void":
                _log.warning(
                    "outcome_dropped", order=answer.outcome.order, instance=answer.instance
                )
                done.stops.append((answer.instance, answer.outcome.held, "void"))
                continue
            outcome = answer.outcome
            if verdict == "current" and was_cancelled(order) and outcome.result == "completed":
                reach = reached.get(_attempt(answer))
                if reach is None:
                    left[_attempt(answer)] = answer
                    continue
                outcome = delivered_part(order, outcome, reach)
            done.confirmed.append((answer.instance, outcome.held))
            if verdict == "current":
                if not worker.proven:
                    proven.add(answer.instance)
                bound = _bound(order, worker)
                orders[order.id] = self._apply(plan, bound, outcome, now_us)
                done.models.add(order.model)
        for instance in sorted(proven):
            hello_sql.prove(connection, instance)

    def _apply(self, plan: ClosingBatch, order: Order, outcome: Outcome, now_us: int) -> Order:
        """Return the order after an outcome that counts."""
        limits = self._settings
        failure = outcome.failure
        unasked = outcome.finish_reason == "cancelled" and order.call_off is None
        if outcome.result == "completed" and not unasked:
            return plan.end(order, ENDS[outcome.finish_reason or "stop"], now_us, outcome)
        if outcome.result == "failed" and (failure is None or failure.permanent):
            return plan.end(order, State.FAILED, now_us, outcome, failure)
        if order.call_off is not None:
            # It was to stop anyway, and nothing was delivered.
            return plan.end(order, CALLED_OFF[order.call_off], now_us, None)
        if outcome.result == "handed_back":
            # Nothing was wrong with the order: it counts as sent, not as tried.
            order = replace(order, tries=max(0, order.tries - 1))
            if order.dispatches < limits.max_dispatches:
                return plan.requeue(order, "handed_back")
            failure = _too_many_dispatches(order)
        elif failure is None:
            failure = Failure(
                code="stopped_unasked",
                message="Its worker stopped it without being asked to.",
                permanent=False,
            )
        if not failure.permanent and order.tries < limits.max_attempts:
            return plan.requeue(order, "attempt_failed", failure.message)
        return plan.end(order, State.FAILED, now_us, outcome, failure)

    def lapse(self, limit: int = PIECE) -> ClosingResult:
        """Take back what was not claimed, and what fell silent for a lease.

        A worker that left an attempt unclaimed while it had a free slot is sent no other until a
        hello came back from it. Where all of its slots run something the attempt waits for one, as
        long as its message may be obeyed.

        The order goes back to its old place, or fails once it was tried often enough. Its last
        attempt stays open until it is dispatched again: a late answer is still an answer.

        Args:
            limit: orders at most; `more` of the answer says whether there may be more.
        """
        with self._database.read() as connection:
            heard_s = herd_sql.heard_s(connection)
            found = lapse_sql.lapsed(
                connection, heard_s, self._lapses.after, limit, claim_s=self._settings.claim_s
            )
        due = self._lapses.due(found)
        done = self._closer.close(due, lambda one: one.id, self._lapse)
        self._lapses.failed([one for one in due if one.id in done.stuck])
        done.more |= self._lapses.turn(found, limit)
        if self._on_lost is not None:
            self._on_lost(done.lost)
        return done

    def _lapse(
        self,
        connection: Connection,
        found: Sequence[Order],
        plan: ClosingBatch,
        done: ClosingResult,
        now_us: int,
    ) -> None:
        locked = order_sql.get_orders(connection, (one.id for one in found), lock=True)
        heard_s = herd_sql.heard_s(connection)
        silent: dict[str, SilentWorker] = {}
        waiting: list[RenewedRow] = []
        for seen in found:
            order = locked[seen.id]
            if (order.attempt, order.state, order.deadline_heard_s) != (
                seen.attempt,
                seen.state,
                seen.deadline_heard_s,
            ):
                continue  # something came while the lock was waited for
            if order.instance is not None and order.worker is None:
                if order.instance not in silent:
                    silent[order.instance] = SilentWorker.look(connection, order.instance)
                if silent[order.instance].full:
                    if not self._has_expired(order, now_us):
                        waiting.append(RenewedRow(order.seq, heard_s + self._settings.claim_s))
                        continue
                    # It waited for a slot for too long: that counts against nobody.
                    order = replace(order, dispatches=max(0, order.dispatches - 1))
            done.models.add(order.model)
            if order.current is not None:
                looked_at = silent.get(order.instance or "")
                name = order.worker or (looked_at.name if looked_at is not None else None)
                done.lost.append(lost_task(order, order.current, name))
            self._give_up(connection, plan, order, now_us)
            _log.warning("lapsed", order=order.id, attempt=order.attempt, instance=order.instance)
        book_sql.renew(connection, waiting)
        for _, one in sorted(silent.items()):
            if not one.full:
                one.doubt(connection, heard_s)

    def _has_expired(self, order: Order, now_us: int) -> bool:
        """Return whether a worker that takes an attempt's message now refuses it for its age."""
        lives_s = self._settings.claim_s + CLOCK_LEEWAY_S
        return now_us > (order.dispatched_us or 0) + lives_s * 1_000_000

    def _give_up(
        self, connection: Connection, plan: ClosingBatch, order: Order, now_us: int
    ) -> None:
        limits = self._settings
        failure: Failure | None = None
        if order.call_off is not None:
            plan.end(order, CALLED_OFF[order.call_off], now_us, None)
            return
        if order.worker is None and not order_sql.messages_flowed_since_dispatch(
            connection, order.id
        ):
            # Not this order's message was lost, but the broker, or all who read from it.
            order = replace(order, dispatches=max(0, order.dispatches - 1))
        if order.tries >= limits.max_attempts:
            said = f"Workers that fell silent while running it: {order.tries}."
            failure = Failure(code="too_many_attempts", message=said, permanent=True)
        elif order.dispatches >= limits.max_dispatches:
            failure = _too_many_dispatches(order)
        if failure is None:
            plan.requeue(order, "lapsed", still_open=True)
        else:
            plan.end(order, State.FAILED, now_us, None, failure)


def _attempt(answer: ReceivedOutcome) -> Attempt:
    return answer.outcome.order, answer.outcome.attempt


def _order_of(answer: ReceivedOutcome) -> str:
    return answer.outcome.order


def _too_many_dispatches(order: Order) -> Failure:
    return Failure(
        code="too_many_dispatches",
        message=f"It was dispatched {order.dispatches} times and never finished.",
        permanent=True,
    )


def _bound(order: Order, worker: signer_sql.Signer) -> Order:
    """Return the order as it is once its attempt is bound: an outcome may come before the claim."""
    if order.worker is not None:
        return order
    return replace(
        order,
        instance=worker.instance,
        worker=worker.name,
        weights=worker.weights,
        begun=True,
        tries=order.tries + 1,
    )
