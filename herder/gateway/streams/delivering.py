"""Notes what callers were given of the texts of running orders, as `workers.transport.delivery`.

A piece is noted before it is handed out; notes of many lines travel to Redis together, those that
come while others are on their way with the next ones. When a line ends before its order, what was
really handed out is noted in place of what was about to be.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from uuid import uuid4

from redis import RedisError

from herder.domain.order import Order
from workers.transport.delivery import Delivery, Reach
from workers.transport.event_log import EventLog
from workers.transport.streams import TEXT_AFTER_END_TTL_S, TEXT_TTL_S

_log = EventLog("herder.gateway.delivering")

MAX_AT_ONCE = 1000
"""Notes of one command."""

Write = Callable[[Sequence[Delivery]], Awaitable[None]]


class DeliveryNotes:
    """The notes of one gateway, sent together.

    Args:
        write: writes some; raises `RedisError` where Redis is out of reach.
    """

    def __init__(self, write: Write) -> None:
        self._write = write
        self._waiting: list[tuple[Delivery, asyncio.Future[None]]] = []
        self._sending: asyncio.Task[None] | None = None

    async def note(self, delivery: Delivery) -> None:
        """Write one, and return when it is written.

        Raises:
            RedisError: it may not be.
        """
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((delivery, written))
        if self._sending is None:
            self._sending = asyncio.create_task(self._send_all())
        await written

    async def _send_all(self) -> None:
        try:
            while self._waiting:
                batch = self._waiting[:MAX_AT_ONCE]
                del self._waiting[:MAX_AT_ONCE]
                await self._send(batch)
        finally:
            self._sending = None

    async def _send(self, batch: Sequence[tuple[Delivery, asyncio.Future[None]]]) -> None:
        failed: RedisError | None = None
        try:
            await self._write([delivery for delivery, _ in batch])
        except RedisError as error:
            failed = error
        for _, written in batch:
            if written.done():
                continue  # whoever waited has gone
            if failed is None:
                written.set_result(None)
            else:
                written.set_exception(failed)


class LineNotes:
    """The notes of one line: of a caller who reads an order's text.

    Args:
        notes: of the gateway.
        order_id: the order.
    """

    def __init__(self, notes: DeliveryNotes, order_id: str) -> None:
        self._notes = notes
        self._order = order_id
        self._reader = uuid4().hex
        self._attempt = 0
        self._promised = self._given = Reach()
        self._keep_s = TEXT_TTL_S

    async def promise(self, order: Order, attempt: int, reach: Reach) -> None:
        """Note what is about to be handed out.

        Raises:
            RedisError: it is not noted, and must not be handed out.
        """
        if attempt != self._attempt:
            await self._settle()
            self._attempt, self._promised, self._given = attempt, Reach(), Reach()
        # Whoever cancels an order that runs for days finds it all the same.
        self._keep_s = TEXT_TTL_S + (order.run_limit_s or 0)
        if reach > self._promised:
            await self._notes.note(self._note(reach, has_left=False))
            self._promised = reach

    def gave(self, reach: Reach) -> None:
        """Note that it was handed out so far; nothing is sent."""
        self._given = max(self._given, reach)

    async def leave(self, *, has_ended: bool) -> None:
        """Note what was really handed out: the line ends.

        Args:
            has_ended: whether the order has, too: nobody asks any more.
        """
        if has_ended:
            self._keep_s = TEXT_AFTER_END_TTL_S
        try:
            await self._settle()
        except RedisError as error:
            # What it was about to be given counts as given.
            _log.warning("delivery_not_noted", order=self._order, reason=type(error).__name__)

    async def _settle(self) -> None:
        if self._promised.characters:
            await self._notes.note(self._note(self._given, has_left=True))

    def _note(self, reach: Reach, *, has_left: bool) -> Delivery:
        return Delivery(self._order, self._attempt, self._reader, reach, has_left, self._keep_s)
