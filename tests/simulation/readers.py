"""Clients who read an order's text while it runs, with the library's own parts, step by step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from sqlalchemy.exc import OperationalError

from herder.domain.charging import was_cancelled
from herder.domain.order import Order
from herder.errors import HerdUnavailable
from herder.orders.reader import FOLLOW_MS, OrderReader, TextLine, may_hand_out, readable_attempt
from herder.orders.watcher import CompletionWatcher
from tests.simulation.clockwork import Broken, Process, Thread
from tests.simulation.herder import Room
from tests.simulation.shadow import Shadow
from tests.simulation.truth import Truth
from workers.transport.streams import Streams

APART_US = 30_000
IDLE_APART_US = FOLLOW_MS * 1000
"""The most between two looks of who finds nothing new."""


@dataclass
class Reading:
    """One reader of one order; `shown` is the text of `line.attempt` that it was given."""

    process: Process
    order_id: str
    line: TextLine
    shown: str = ""
    leaves: bool = False
    """Whether it hangs up in the middle."""
    idle_us: int = APART_US
    """It looks again within this time; longer each time that there is nothing new."""


class Readers:
    """All of them. Whoever is cancelled, and by whom, is `owners`' affair."""

    def __init__(
        self, room: Room, truth: Truth, shadow: Shadow, cancel: Callable[[str, str], None]
    ) -> None:
        """Prepare for readers; `cancel` has an account cancel an order in a moment."""
        self._cancel = cancel
        self._room = room
        self._time = room.time
        self._truth = truth
        self._shadow = shadow
        self._orders = OrderReader(
            room.database, cast("Streams", room.redis), cast("CompletionWatcher", None)
        )

    def read(self, process: Process, order_id: str) -> None:
        """Begin to read an order."""
        line = TextLine(cast("Streams", self._room.redis), order_id, self._time.new_nonce())
        leaves = self._time.rng.random() < 0.4
        self._time.count("an order's text is read along")
        self._look(Reading(process, order_id, line, leaves=leaves))

    def _soon(self, reading: Reading, do: str, *more: object, within_us: int = APART_US) -> None:
        delay_us = self._time.rng.randint(100, within_us)
        step = getattr(self, do)
        self._time.after(delay_us, Thread(reading.process), lambda: step(reading, *more))

    def _look_later(self, reading: Reading) -> None:
        self._soon(reading, "_look", within_us=reading.idle_us)
        reading.idle_us = min(2 * reading.idle_us, IDLE_APART_US)

    def _stand(self, reading: Reading) -> Order | None:
        try:
            return self._orders.order(reading.order_id)
        except (HerdUnavailable, OperationalError):
            return None

    def _look(self, reading: Reading, *_: object) -> None:
        """See whether there may be more, then read what is new, and note it."""
        order = self._stand(reading)
        if order is None:
            self._look_later(reading)
            return
        attempt = readable_attempt(order)
        if order.state.stopped or (attempt != reading.line.attempt and reading.shown):
            reading.line.leave(has_ended=order.state.ended)
            return
        self._soon(reading, "_look" if was_cancelled(order) else "_read", order, attempt)

    def _read(self, reading: Reading, order: Order, attempt: int) -> None:
        piece = reading.line.read(order, attempt, len(reading.shown))
        if piece and piece.text:
            reading.idle_us = APART_US
            self._soon(reading, "_hand_out", attempt, piece.text)
        else:
            self._look_later(reading)

    def _hand_out(self, reading: Reading, attempt: int, text: str) -> None:
        """Give it to whoever reads, unless the order was cancelled meanwhile."""
        order = self._stand(reading)
        if order is None:
            self._soon(reading, "_hand_out", attempt, text)
            return
        if may_hand_out(order, attempt):
            reading.line.gave()
            if not reading.shown and self._time.chance(self._time.weather.reads_and_cancels):
                self._cancel(reading.process.machine, reading.order_id)
            reading.shown += text
            self._truth.give(reading.order_id, attempt, reading.shown)
            row = self._shadow.by_id[reading.order_id]
            if row.state == "cancelled" and row.attempt == attempt:
                raise Broken("unpaid", f"order {row.seq} was cancelled, and is read on")
        if reading.leaves and self._time.rng.random() < 0.1:
            self._time.count("a reader hangs up")
            reading.line.leave(has_ended=False)
            return
        self._soon(reading, "_look")
