"""Reads orders: their state, their answer, and their text while it is generated."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import NamedTuple
from uuid import uuid4

from redis import RedisError
from sqlalchemy import Connection

from herder.db.database import Database
from herder.db.outages import giving_up, ride_out
from herder.domain.charging import was_cancelled
from herder.domain.order import Order, State
from herder.domain.receipts import result_of
from herder.errors import HerdUnavailable, OrderNotFound, ResultTimeout, StreamRestarted
from herder.interface import raise_if_not_completed
from herder.orders.watcher import CompletionWatcher
from herder.store import orders as order_sql
from herder.store.kept import get_kept_text
from herder.types import Place, Result
from workers.transport.delivery import Delivery, Reach
from workers.transport.event_log import EventLog
from workers.transport.streams import TEXT_AFTER_END_TTL_S, TEXT_TTL_S, Streams

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
            return _get(connection, order_id, account)

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
            order = _get(connection, order_id)
            return result_of(order, get_kept_text(connection, order_id))

    def standing(
        self,
        order_id: str,
        place: Callable[[Order, Connection], Place | None],
        *,
        account: str | None = None,
    ) -> tuple[Result, Place | None]:
        """Return an order's answer so far and its place in the queue, of one moment.

        Args:
            order_id: the order.
            place: finds its place, in the transaction that it is read in.
            account: whose it has to be; None: anybody's.

        Raises:
            OrderNotFound: there is no such order, or it is another account's.
        """
        with self._database.read() as connection:
            order = _get(connection, order_id, account)
            result = result_of(order, get_kept_text(connection, order_id))
            return result, place(order, connection)

    def stream(self, order_id: str) -> Iterator[str]:
        """Yield an order's answer as it is generated, from its beginning, however late one joins.

        What the model thinks before is left out; `answer` has it once the order has ended.
        While the database is away, the text of what runs goes on; its end is waited for.

        Raises:
            StreamRestarted: text was shown of an attempt that was lost, or that the final answer
                differs from.
            OrderFailed, OrderCancelled, OrderExpired: at its end, if it ended so.
            OrderSetAside: an operator has to decide how it ends.
        """
        shown, said = "", 0  # of reasoning and answer, and the characters of the answer alone
        order = ride_out(lambda: self.order(order_id))
        line = TextLine(self._streams, order_id, uuid4().hex)
        try:
            while not order.state.stopped:
                attempt = readable_attempt(order)
                if attempt != line.attempt:
                    if said:
                        raise StreamRestarted(order_id, said)
                    shown = ""
                piece = None if was_cancelled(order) else line.read(order, attempt, len(shown))
                if piece is None:
                    self._watcher.wait(order_id, FOLLOW_MS / 1000)
                order = self._stand(order_id, order)
                # Noted first, looked at then: so whoever settles it knows all that was handed out.
                if piece and piece.text and may_hand_out(order, attempt):
                    line.gave()
                    shown += piece.text
                    if piece.answer:
                        said += len(piece.answer)
                        yield piece.answer
                if line.is_whole and not order.state.stopped:
                    # All of the text is out; its settlement follows within moments.
                    self._watcher.wait(order_id, FOLLOW_MS / 1000)
                    order = self._stand(order_id, order)
        finally:
            line.leave(has_ended=order.state.ended)
        result = ride_out(lambda: self.answer(order_id))
        state = State(result.receipt.state)
        if not state.ended:
            raise_if_not_completed(result)
        whole = result.reasoning + result.text
        if state is State.CANCELLED and shown.startswith(whole):
            raise_if_not_completed(result)  # nothing more of it was paid for
        if not whole.startswith(shown):
            if said:
                raise StreamRestarted(order_id, said)
            shown = ""
        if rest := whole[max(len(shown), len(result.reasoning)) :]:
            yield rest
        raise_if_not_completed(result)

    def _stand(self, order_id: str, known: Order) -> Order:
        """Return an order as it stands; as it is known, if the database is away."""
        try:
            return self.order(order_id)
        except HerdUnavailable as error:
            # What runs goes on without the database, and its text comes by Redis.
            _log.info("order_not_read", order=order_id, reason=type(error).__name__)
            return known


class NewPiece(NamedTuple):
    """New text of an attempt; so many characters at its beginning are reasoning."""

    text: str
    reasoning: int

    @property
    def answer(self) -> str:
        """The part that is the answer's."""
        return self.text[self.reasoning :]


class TextLine:
    """One reading of an order's text, noted as it is handed out.

    Args:
        streams: of the texts.
        order_id: the order.
        name: of this reading, and of no other.

    Attributes:
        attempt: that it reads.
        is_whole: whether all of that attempt's text was read.
    """

    def __init__(self, streams: Streams, order_id: str, name: str) -> None:
        self._streams = streams
        self._order = order_id
        self._reader = name
        self._after = "0"
        self._noted = self._given = Reach()
        self._keep_s = TEXT_TTL_S
        self.attempt = 0
        self.is_whole = False

    def read(self, order: Order, attempt: int, shown: int) -> NewPiece | None:
        """Return new text of an attempt, noted as handed out; None where Redis is away.

        Args:
            order: as it stands.
            attempt: which.
            shown: characters of it that were handed out before.
        """
        if attempt != self.attempt:
            self.attempt, self.is_whole, self._after = attempt, False, "0"
            self._noted = self._given = Reach()
        # Whoever cancels an order that runs for days finds it all the same.
        self._keep_s = TEXT_TTL_S + (order.run_limit_s or 0)
        after, text, reasoning, reach, whole = self._after, "", 0, Reach(), False
        try:
            for piece in self._streams.read_text(self._order, attempt, after, block_ms=FOLLOW_MS):
                after, whole = piece.id, piece.end
                have = shown + len(text)
                if piece.offset > have:
                    continue  # a piece was dropped on the way: the stored text fills the gap
                text += piece.text[have - piece.offset :]
                if piece.reasoning:  # all of what came before it is, too
                    reasoning = max(reasoning, piece.offset + piece.reasoning - shown)
                reach = Reach(shown + len(text), piece.generated)
            if len(text) > reasoning:  # nobody is given a thought without an answer behind it
                self._noted = reach  # in any case: what comes of a note that failed is not known
                self._note(reach, has_left=False)
        except RedisError as error:
            _log.info("text_not_read", order=self._order, reason=type(error).__name__)
            return None
        self._after, self.is_whole = after, whole
        return NewPiece(text, reasoning)

    def gave(self) -> None:
        """Note that what was read is handed out; nothing is sent."""
        self._given = self._noted

    def leave(self, *, has_ended: bool) -> None:
        """Note what was really handed out: nobody reads here any more."""
        if has_ended:
            self._keep_s = TEXT_AFTER_END_TTL_S
        if not self._noted.characters:
            return
        try:
            self._note(self._given, has_left=True)
        except RedisError as error:
            _log.info("delivery_not_noted", order=self._order, reason=type(error).__name__)

    def _note(self, reach: Reach, *, has_left: bool) -> None:
        said = Delivery(self._order, self.attempt, self._reader, reach, has_left, self._keep_s)
        self._streams.note_deliveries([said])


def _get(connection: Connection, order_id: str, account: str | None = None) -> Order:
    order = order_sql.get_order(connection, order_id)
    if order is None or (account is not None and order.account != account):
        raise OrderNotFound(order_id)
    return order


def may_hand_out(order: Order, attempt: int) -> bool:
    """Return whether text of an attempt may be given to a reader.

    Not of an order that was cancelled: from then on its end says what there is.
    """
    if order.state in (State.CANCELLED, State.FAILED, State.SET_ASIDE) or was_cancelled(order):
        return False
    return readable_attempt(order) == attempt


def readable_attempt(order: Order) -> int:
    """Return the attempt whose text there is, or will be first."""
    if order.state is State.QUEUED and not order.attempt_open:
        return order.attempt + 1
    return order.attempt
