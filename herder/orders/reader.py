"""Reads orders: their state, their answer, and their text while it is generated."""

from __future__ import annotations

import time
from collections.abc import Iterator

from redis import RedisError

from herder.db.database import Database
from herder.db.outages import giving_up, ride_out
from herder.domain.order import Order, State
from herder.domain.receipts import result_of
from herder.errors import HerdUnavailable, OrderNotFound, ResultTimeout, StreamRestarted
from herder.interface import raise_if_not_completed
from herder.orders.watcher import CompletionWatcher
from herder.store import orders as order_sql
from herder.types import Result
from workers.transport.event_log import EventLog
from workers.transport.streams import Streams

_log = EventLog("herder.orders.reader", lowered=True)

FOLLOW_MS = 1000
"""The time that a reader waits for text before it looks into the database again."""


class OrderReader:
    """Reads orders of one herd. Safe among threads.

    Args:
        database: where they stand.
        streams: their texts while they run.
        watcher: tells of their ends.
    """

    def __init__(self, database: Database, streams: Streams, watcher: CompletionWatcher) -> None:
        self._database = database
        self._streams = streams
        self._watcher = watcher

    def order(self, order_id: str, *, account: str | None = None) -> Order:
        """Return an order, as it stands now.

        Args:
            order_id: the order.
            account: whose it has to be; None: anybody's.

        Raises:
            OrderNotFound: there is no such order, or it is another account's.
        """
        with self._database.read() as connection:
            order = order_sql.get_order(connection, order_id)
        if order is None or (account is not None and order.account != account):
            raise OrderNotFound(order_id)
        return order

    def result(self, order_id: str, timeout_s: float | None) -> Result:
        """Wait for an order's end; a database that is away, or hangs, is asked until it answers.

        Args:
            order_id: the order.
            timeout_s: how long, in seconds; None: as long as it takes.

        Raises:
            ResultTimeout: it did not end in time; it goes on.
            OrderFailed, OrderCancelled, OrderExpired: it ended otherwise; `result` of the error
                holds the partial text and the receipt.
            OrderSetAside: an operator has to decide how it ends.
            OrderNotFound: there is no such order.
        """
        until_s = None if timeout_s is None else time.monotonic() + timeout_s
        state = "unknown"
        while True:
            try:
                result = ride_out(lambda: self.answer(order_id), until_s=until_s)
            except HerdUnavailable as error:
                raise ResultTimeout(order_id, state, f"{timeout_s:g}") from error
            state = result.receipt.state
            if State(state).stopped:
                break
            left_s = None if until_s is None else until_s - time.monotonic()
            if left_s is not None and left_s <= 0:
                raise ResultTimeout(order_id, state, f"{timeout_s:g}")
            with giving_up(until_s):
                self._watcher.wait(order_id, left_s)
        raise_if_not_completed(result)
        return result

    def answer(self, order_id: str) -> Result:
        """Return an order's answer so far, however it ended."""
        with self._database.read() as connection:
            order = order_sql.get_order(connection, order_id)
            if order is None:
                raise OrderNotFound(order_id)
            return result_of(order, order_sql.get_answer(connection, order_id))

    def stream(self, order_id: str) -> Iterator[str]:
        """Yield an order's text as it is generated, from its beginning, however late one joins.

        While the database is away, the text of what runs goes on; its end is waited for.

        Raises:
            StreamRestarted: text was shown of an attempt that was lost, or that the final answer
                differs from.
            OrderFailed, OrderCancelled, OrderExpired: at its end, if it ended so.
            OrderSetAside: an operator has to decide how it ends.
        """
        shown = ""
        reading, after = 0, "0"
        while True:
            if reading:
                try:
                    order = self.order(order_id)
                except HerdUnavailable as error:
                    # What runs goes on without the database, and its text comes by Redis.
                    _log.info("order_not_read", order=order_id, reason=type(error).__name__)
            else:
                order = ride_out(lambda: self.order(order_id))
            if order.state.stopped:
                break
            attempt = readable_attempt(order)
            if attempt != reading:
                if shown:
                    raise StreamRestarted(order_id, len(shown))
                reading, after = attempt, "0"
            after, text, ended = self._follow(order_id, attempt, after, len(shown))
            if text:
                shown += text
                yield text
            if ended:
                # All of the text is out; its settlement follows within moments.
                self._watcher.wait(order_id, FOLLOW_MS / 1000)
        result = ride_out(lambda: self.answer(order_id))
        if not State(result.receipt.state).ended:
            raise_if_not_completed(result)
        if not result.text.startswith(shown):
            raise StreamRestarted(order_id, len(shown))
        if len(result.text) > len(shown):
            yield result.text[len(shown) :]
        raise_if_not_completed(result)

    def _follow(self, order_id: str, attempt: int, after: str, shown: int) -> tuple[str, str, bool]:
        """(where to go on, new text, whether that was all) of an attempt's stream."""
        try:
            pieces = self._streams.read_text(order_id, attempt, after, block_ms=FOLLOW_MS)
        except RedisError as error:
            _log.info("text_not_read", order=order_id, reason=type(error).__name__)
            self._watcher.wait(order_id, FOLLOW_MS / 1000)
            return after, "", False
        text = ""
        for piece in pieces:
            after = piece.id
            have = shown + len(text)
            if piece.offset > have:
                continue  # a piece was dropped on the way: the stored text fills the gap
            text += piece.text[have - piece.offset :]
            if piece.end:
                return after, text, True
        return after, text, False


def readable_attempt(order: Order) -> int:
    """Return the attempt whose text there is, or will be first."""
    if order.state is State.QUEUED and not order.attempt_open:
        return order.attempt + 1
    return order.attempt
