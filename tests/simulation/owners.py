"""What clients do about the orders that they have: cancel, bid again, purge, meddle."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, cast

from redis import RedisError
from sqlalchemy.exc import OperationalError

from herder.accounts.accounts import open_ledger
from herder.db.outages import CommitUnknown
from herder.domain.order import Order, State
from herder.errors import (
    HerdUnavailable,
    InsufficientBalance,
    OrderEnded,
    OrderNotFound,
    OrderNotWaiting,
    RebidTooLow,
    RefundRefused,
    ResultTimeout,
)
from herder.orders.reader import OrderReader
from herder.orders.retention import purge
from herder.orders.watcher import CompletionWatcher
from tests.simulation.clockwork import Broken, Process
from tests.simulation.herder import Room
from tests.simulation.keys import HERDER_KEY
from tests.simulation.readers import Readers
from tests.simulation.shadow import RUNNING, WAITING, Row, Shadow
from tests.simulation.truth import Truth
from workers.transport.streams import Streams
from workers.wire import AttemptRef, CancelAttempt, control_stream, seal

ACCOUNTS = ("ada", "bob", "cy", "poor")
LIMITED = "cy"
"""The account that may not have or order as much as it likes."""
RICH, POOR = 10**9, 400


class Soon(Protocol):
    """Has a program of an account's owner do something."""

    def __call__(self, mean_us: float, account: str, do: Callable[[Process], None]) -> None:
        """After about so long."""


class Owners:
    """Those whose orders they are."""

    def __init__(
        self,
        room: Room,
        truth: Truth,
        shadow: Shadow,
        soon: Soon,
        set_rates: Callable[[Process], None],
    ) -> None:
        self._room = room
        self._time = room.time
        self._truth = truth
        self._shadow = shadow
        self._soon = soon
        self._set_rates = set_rates
        self._readers = Readers(
            room,
            truth,
            shadow,
            lambda who, order_id: soon(20_000, who, lambda p: self._cancel(p, order_id)),
        )

    def plan(self, order: Order, account: str) -> None:
        """Draw what its owner will do about an order."""
        rng = self._time.rng
        if rng.random() < 0.3:
            self._soon(50_000, account, lambda p: self._readers.read(p, order.id))
        if rng.random() < 0.15:
            self._soon(1_500_000, account, lambda p: self._cancel(p, order.id))
        if rng.random() < 0.15:
            self._soon(300_000, account, lambda p: self._cancel_once_it_runs(p, order.id))
        if rng.random() < 0.15:
            fee = max(1, order.fee + rng.randint(-3, order.fee))
            self._soon(800_000, account, lambda p: self._rebid(p, order.id, fee))
        if rng.random() < 0.3:
            self._time.count("an order's end is waited for")
            self._soon(100_000, account, lambda p: self._wait(p, order.id))
        if rng.random() < 0.05:
            self._soon(6_000_000, account, lambda p: self._refund(p, order.id))
        if rng.random() < 0.03:
            self._soon(4_000_000, account, self._purge)
        if rng.random() < 0.03:
            other = rng.choice([name for name in ACCOUNTS if name != account])
            self._soon(400_000, other, lambda p: self._meddle(p, order.id))
        if rng.random() < 0.03:
            self._soon(1_000_000, account, self._set_rates)

    def _intake(self, process: Process) -> Any:
        books = open_ledger(process.clock_us)
        return self._room.parts.intake(self._room.database, books, clock_us=process.clock_us)

    def _cancellation(self, process: Process) -> Any:
        return self._room.parts.cancellation(
            self._room.database,
            open_ledger(process.clock_us),
            self._room.settings,
            self._room.redis,
            clock_us=process.clock_us,
        )

    def _wait(self, process: Process, order_id: str) -> None:
        """Look for an order's end, as who waits does each second, whatever else he is told."""
        database, redis = self._room.database, self._room.redis
        answers = OrderReader(database, cast("Streams", redis), cast("CompletionWatcher", None))
        try:
            result = answers.result(order_id, 0)
        except ResultTimeout:
            self._soon(1_000_000, process.machine, lambda p: self._wait(p, order_id))
            return
        except OrderEnded as error:
            result = error.result
        row = self._shadow.by_id[order_id]
        told, charged = result.receipt.state, result.receipt.charged
        if (told, charged) != (row.state, row.charged):
            raise Broken("told", f"order {row.seq} is {row.state} and its client was told {told}")

    def give_up(self, account: str, order_id: str) -> None:
        """Cancel an order that there may be, as `herder.local` does when its caller has no key."""
        self._truth.called_off.add(order_id)
        self._soon(100_000, account, lambda p: self._give_up(p, order_id))

    def _give_up(self, process: Process, order_id: str) -> None:
        try:
            order = self._cancellation(process).cancel(order_id)
        except OrderNotFound:
            if order_id in self._shadow.by_id:
                raise Broken("one_order", f"{order_id[:8]} is there and was not found") from None
        except (HerdUnavailable, OperationalError):
            self._soon(500_000, process.machine, lambda p: self._give_up(p, order_id))
        else:
            self._stop(process, order)

    def _cancel(self, process: Process, order_id: str) -> None:
        before = self._shadow.by_id[order_id]
        self._truth.called_off.add(order_id)
        try:
            order = self._cancellation(process).cancel(order_id, account=process.machine)
        except (HerdUnavailable, OperationalError):
            self._soon(500_000, process.machine, lambda p: self._cancel(p, order_id))
            return
        self._time.note(f"cancels order {order.seq}: {order.state}")
        # Others may have gone on before it was taken again.
        undone = self._time.troubled
        if before.open:
            how = "waits" if before.state in WAITING else "runs"
            self._time.count(f"an order is cancelled while it {how}")
        attempt = (order_id, order.attempt)
        is_read = order.state is State.DISPATCHED and attempt in self._truth.noted
        unclaimed = before.state == "dispatched" and order.attempt == before.attempt
        free = unclaimed and order.state is State.CANCELLED and not undone
        if free and self._truth.given.get(attempt):
            raise Broken("unpaid", f"order {order.seq} was read, and cancelled for nothing")
        ends = before.state in WAITING and not is_read
        if ends and order.state is not State.CANCELLED and not undone:
            raise Broken("cancel", f"order {order.seq} waited and was not cancelled at once")
        if not order.state.ended and self._shadow.by_id[order_id].call_off is None:
            raise Broken("cancel", f"order {order.seq} was to stop and runs on")
        self._stop(process, order)

    def _cancel_once_it_runs(self, process: Process, order_id: str) -> None:
        row = self._shadow.by_id[order_id]
        if row.state == RUNNING:
            self._cancel(process, order_id)
        elif row.open:
            self._soon(300_000, process.machine, lambda p: self._cancel_once_it_runs(p, order_id))

    def _stop(self, process: Process, order: Order) -> None:
        """Tell the worker that has it, as whoever calls `cancel` does."""
        if order.state.ended or not order.instance or not order.nonce:
            return
        held = AttemptRef(order=order.id, attempt=order.attempt, nonce=order.nonce)
        token = seal(
            CancelAttempt(held=held, reason="cancelled"),
            HERDER_KEY,
            sender="herder",
            audience=control_stream(order.instance),
            now_s=process.clock_us() // 1_000_000,
        )
        try:
            self._room.redis.add_controls([(order.instance, token)])
        except RedisError:
            self._time.note("the worker was not told")

    def _rebid(self, process: Process, order_id: str, fee: int) -> None:
        before = self._shadow.by_id[order_id]
        commits = self._shadow.commits
        try:
            self._intake(process).rebid(order_id, fee, account=process.machine)
        except CommitUnknown:
            # The same fee again changes nothing.
            self._soon(500_000, process.machine, lambda p: self._rebid(p, order_id, fee))
            return
        except (HerdUnavailable, OperationalError) as error:
            self._keeps_fee(before, error)
            return
        except (RebidTooLow, OrderNotWaiting, InsufficientBalance) as error:
            self._time.note(f"is refused: {error.code}")
            self._time.count("a new bid is refused")
            self._keeps_fee(before, error)
            if self._time.troubled:
                return  # it may have been undone, and others have gone on before it was taken again
            if self._shadow.commits != commits:
                raise Broken("refused", f"{error.code}, and it left a trace") from None
            if isinstance(error, RebidTooLow) and fee > before.fee:
                raise Broken("rebid", f"{fee} is above {before.fee}") from None
            if isinstance(error, OrderNotWaiting) and before.state == "queued":
                raise Broken("rebid", f"order {before.seq} did wait") from None
            return
        self._time.count("a new bid is taken")
        if fee < before.fee or (fee == before.fee and before.holds == 1):
            raise Broken("rebid", f"{fee} was taken in place of {before.fee}")

    def _keeps_fee(self, before: Row, error: Exception) -> None:
        """Whose bid was not taken offers what he offered: nobody else bids for his order."""
        now = self._shadow.by_id[before.id]
        if (now.fee, now.holds) != (before.fee, before.holds):
            raise Broken("one_bid", f"order {now.seq} offers {now.fee} after {error!r}")

    def _refund(self, process: Process, order_id: str) -> None:
        row = self._shadow.by_id[order_id]
        amount = max(1, row.charged // 2) if self._time.rng.random() < 0.5 else None
        try:
            self._intake(process).refund(
                order_id, amount, "the operator's", refund_id=self._time.new_id()
            )
        except (RefundRefused, HerdUnavailable, OperationalError):
            return
        self._time.count("the operator refunds")

    def _purge(self, process: Process) -> None:
        """Delete the texts of the account's ended orders; the rules look at which they are."""
        try:
            if purge(self._room.database, process.clock_us(), account=process.machine):
                self._time.count("texts are purged")
        except (HerdUnavailable, OperationalError):
            self._time.note("nothing was purged")

    def _meddle(self, process: Process, order_id: str) -> None:
        """Another account's owner cancels it, and bids for it: there is no such order."""
        self._time.count("another's order is asked for")
        intake, cancellation = self._intake(process), self._cancellation(process)
        for meddle in (
            lambda: cancellation.cancel(order_id, account=process.machine),
            lambda: intake.rebid(order_id, RICH, account=process.machine),
        ):
            try:
                meddle()
            except (OrderNotFound, HerdUnavailable, OperationalError):
                continue
            raise Broken("others", f"{process.machine} meddled with {order_id[:8]}")
