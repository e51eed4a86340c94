"""Follows orders for callers who hold a line: their place, their text, their end.

A line costs one waiting read of Redis and no thread; what a caller does not read stays in Redis.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from functools import partial

from redis import RedisError

from herder.domain.charging import was_cancelled
from herder.domain.order import Order, State
from herder.errors import HerdUnavailable
from herder.gateway.outages import ride_out
from herder.gateway.short_reads import Found, look
from herder.gateway.streams.delivering import DeliveryNotes, LineNotes
from herder.gateway.streams.given_text import GivenText, Happened, StreamMark
from herder.gateway.streams.slots import StreamSlot
from herder.local.local_herd import LocalHerd
from herder.orders.reader import may_hand_out, readable_attempt
from herder.types import Place, Result
from herder.web.errors import TooManyStreams
from workers.transport.event_log import EventLog
from workers.transport.reading import TextReader
from workers.transport.streams import TextPiece

LOOK_S = 1.0
"""The time that a line waits for text before it looks into the database again."""

_log = EventLog("herder.gateway.following")


class Wake:
    """Passes a word of another thread on to the event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.event = asyncio.Event()

    def set(self) -> None:
        """Wake the waiter. Called on another thread."""
        with suppress(RuntimeError):  # the loop has ended, and nobody waits any more
            self._loop.call_soon_threadsafe(self.event.set)


class Follower:
    """The lines of one gateway.

    Args:
        herd: whose orders.
        reader: of their texts.
        notes: of what callers were given.
        most: lines at once.
        most_per_key: those of one API key.
        began: is told, once for each text that is read from its beginning, the order's model and
            the seconds from its submission to that beginning.
    """

    def __init__(
        self,
        herd: LocalHerd,
        reader: TextReader,
        notes: DeliveryNotes,
        most: int,
        most_per_key: int,
        began: Callable[[str, float], None] = lambda _model, _seconds: None,
    ) -> None:
        self._herd = herd
        self._reader = reader
        self._notes = notes
        self._most = most
        self._most_per_key = most_per_key
        self._began = began
        self._holders: Counter[str] = Counter()

    @property
    def open(self) -> int:
        """Lines that are held now."""
        return self._holders.total()

    def acquire(self, key_id: str) -> StreamSlot:
        """Take one of the lines for an API key; whoever takes it closes it.

        Raises:
            TooManyStreams: all are taken, or all that this key may have.
        """
        if self._holders[key_id] >= self._most_per_key:
            raise TooManyStreams(
                f"API key {key_id} has {self._most_per_key} streams open here, the most allowed; "
                "try again when one has ended.",
                retry_after_s=1,
                streams=self._most_per_key,
            )
        if self.open >= self._most:
            raise TooManyStreams(
                f"The gateway already has {self._most} streams open, the most allowed; try again "
                "in a second.",
                retry_after_s=1,
                streams=self._most,
            )
        return StreamSlot(self._holders, key_id)

    async def _look(self, read: Callable[[], Found]) -> Found:
        """Take a short read, once the database is there: a line ends with its caller, not here."""
        return await ride_out(partial(look, self._herd.database, read))

    async def wait(self, order_id: str, seconds: float) -> bool:
        """Wait for an order's end; False if it did not come in time."""
        async with self.waking(order_id) as ended:
            try:
                await asyncio.wait_for(ended.wait(), seconds)
            except TimeoutError:
                return False
        return True

    @asynccontextmanager
    async def waking(self, topic: str) -> AsyncIterator[asyncio.Event]:
        """Provide an event that is set when a topic may have news, while the block lasts."""
        wake, watcher = Wake(), self._herd.watcher
        adding = asyncio.ensure_future(look(self._herd.database, partial(watcher.add, topic, wake)))
        try:
            # Cancelled here, a thread would go on, and add what nobody removes. Where the database
            # is away, the watcher looks there again.
            with suppress(HerdUnavailable):
                await asyncio.shield(adding)
            yield wake.event
        finally:
            adding.add_done_callback(lambda _: watcher.remove(topic, wake))

    def notes(self, order_id: str) -> LineNotes:
        """Return the notes of a line that `follow` is to serve; whoever has it ends them."""
        return LineNotes(self._notes, order_id)

    async def follow(
        self,
        order_id: str,
        notes: LineNotes,
        *,
        account: str | None,
        mark: StreamMark | None = None,
        shows_reasoning: bool = True,
    ) -> AsyncIterator[Happened]:
        """Yield all that happens to an order from here on; the last is its end.

        While the database is away the text of what runs goes on, and the end is waited for. Text
        is handed out once that is noted and, after it, the order was not cancelled: so whoever
        settles it knows all that anybody was given.

        Args:
            order_id: the order.
            notes: of this line.
            account: whose it has to be; None: anybody's.
            mark: how far its text was read before: what came after it follows.
            shows_reasoning: whether what the model thinks is given, too.

        Raises:
            OrderNotFound: there is no such order, or it is another account's.
        """
        text = GivenText(mark, shows_reasoning=shows_reasoning)
        after, reading, waits, started = "0", 0, None, 0
        fresh = mark is None  # nothing of any attempt's text was read yet
        order = await self._stand(order_id, account, None)
        while not order.state.stopped:
            if (attempt := readable_attempt(order)) != reading:
                if (lost := text.turn_to(attempt)) is not None:
                    yield lost
                reading, after = attempt, "0"
            if order.state is State.RUNNING and started != order.attempt:
                started = order.attempt
                yield _start(order)
            place = await self._place(order)
            if place is not None and place != waits:
                waits = place
                yield Happened("place", asdict(place))
            pieces = await self._read(order, attempt, after, text, notes)
            order = await self._stand(order_id, account, order)
            if not may_hand_out(order, attempt):
                continue
            for piece in pieces:
                after = piece.id
                if fresh:
                    fresh = False
                    self._began(order.model, _since(order, after))
                if not (more := text.take(piece)):
                    continue
                if started != attempt:
                    started = attempt
                    yield Happened("start", {"attempt": attempt})
                for one in more:
                    yield one
                notes.gave(text.reach)
            if pieces and pieces[-1].end and not order.state.stopped:
                # All of the text is out; its settlement follows within moments.
                await self.wait(order_id, LOOK_S)
                order = await self._stand(order_id, account, order)
        result = await self._look(partial(self._herd.answer, order_id))
        # Of a failed one nothing counts, and its end says so; what is set aside was not paid for.
        if order.state not in (State.FAILED, State.SET_ASIDE):
            for last in text.complete(order, result.reasoning, result.text):
                yield last
        yield _end(result)

    async def _stand(self, order_id: str, account: str | None, known: Order | None) -> Order:
        """Return an order as it stands; as it is known, if the database is away."""
        read = partial(self._herd.order, order_id, account=account)
        if known is None:
            return await self._look(read)
        try:
            return await look(self._herd.database, read)
        except HerdUnavailable:
            return known

    async def _place(self, order: Order) -> Place | None:
        """Return an order's place, if it has one and can be told now.

        Nobody's text waits for that.
        """
        try:
            return await look(self._herd.database, partial(self._herd.quotes.place, order))
        except HerdUnavailable:
            return None

    async def _read(
        self, order: Order, attempt: int, after: str, text: GivenText, notes: LineNotes
    ) -> list[TextPiece]:
        """Return new pieces of an attempt's text, noted as handed out."""
        try:
            if not was_cancelled(order):
                pieces = await self._reader.read(
                    order.id, attempt, after, block_ms=int(LOOK_S * 1000)
                )
                if (reach := text.reach_with(pieces)) > text.reach:
                    await notes.promise(order, attempt, reach)
                return pieces
        except RedisError as error:
            # The stored text answers in the end.
            _log.info("text_not_read", order=order.id, reason=type(error).__name__)
        await self.wait(order.id, LOOK_S)
        return []


def _since(order: Order, entry_id: str) -> float:
    """Seconds from an order's submission to an entry of its text, by Redis's own clock."""
    written_us = int(entry_id.partition("-")[0]) * 1000
    return max(0.0, (written_us - order.submitted_us) / 1e6)


def _start(order: Order) -> Happened:
    return Happened("start", {"attempt": order.attempt, "worker": order.worker})


def _end(result: Result) -> Happened:
    data = {
        "state": result.receipt.state,
        "finish_reason": result.finish_reason,
        "usage": {
            "prompt_tokens": result.usage.prompt_tokens,
            "generated": result.usage.generated,
            "reasoning_tokens": result.usage.reasoning_tokens,
        },
        "failure": result.receipt.failure,
    }
    return Happened("end", data, result=result)
