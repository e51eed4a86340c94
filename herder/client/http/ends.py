"""Notices the ends of orders behind a gateway: one thread, however many are waited for."""

from __future__ import annotations

import threading
import time
from typing import Protocol

from herder.client.http.answers import STOPPED
from herder.domain.paging import MAX_HTTP_PAGE
from herder.errors import HerdError, HerdUnavailable
from herder.local.callbacks import Waiter
from herder.types import Receipt, Result
from workers.transport.event_log import EventLog
from workers.transport.loops import Loop

LOOK_S = 1
"""The wait for the oldest order's end before the others are looked at."""
ALONE_S = 5
"""The same where there is no other."""
MAX_PAGES = 5
"""Pages of the newest orders that are read in one look."""
MAX_ASKED = 20
"""Orders that are older than those, and asked for one by one, in one look."""


class _Answer(Protocol):
    def __call__(self, order_id: str, wait_s: int = 0) -> Result:
        """Return an order's answer, at its end if that comes in time."""


class _Orders(Protocol):
    def __call__(self, *, before: str | None = None, limit: int = 100) -> list[Receipt]:
        """Return the account's orders, the newest first."""


class RemoteEnds:
    """Wakes whoever waits for an order.

    A look asks for the oldest order, which is told of at once, and lists the newest for the others:
    a handful of requests a second, however many are waited for.

    Args:
        answer: asks for one order.
        orders: lists the account's.
    """

    def __init__(self, answer: _Answer, orders: _Orders) -> None:
        self._answer = answer
        self._orders = orders
        self._lock = threading.Lock()
        self._waiting: dict[str, list[Waiter]] = {}
        self._turn = 0
        self._loop = Loop(
            "herd-ends",
            self._step,
            outages=(HerdUnavailable,),
            retry_s=(0.5, LOOK_S),
            log=EventLog("herder.client.http.ends", lowered=True),
        )

    def add(self, order_id: str, waiter: Waiter) -> None:
        """Have a waiter's `set` called once, at an order's end."""
        with self._lock:
            self._waiting.setdefault(order_id, []).append(waiter)
            self._loop.start()

    def remove(self, order_id: str, waiter: Waiter) -> None:
        """Stop notifying a waiter; one that does not wait stays as it is."""
        with self._lock:
            waiting = self._waiting.get(order_id, [])
            if waiter in waiting:
                waiting.remove(waiter)
                if not waiting:
                    del self._waiting[order_id]

    def _step(self) -> None:
        with self._lock:
            if not self._waiting:
                self._loop.leave()
                return
            oldest, *others = self._waiting
        asked_s = time.monotonic()
        if self._has_ended(oldest, LOOK_S if others else ALONE_S):
            self._wake({oldest})
        elif time.monotonic() - asked_s < LOOK_S / 2:
            self._loop.pause(LOOK_S)
        if others:
            self._wake(self._ended_of(others))

    def _has_ended(self, order_id: str, wait_s: int) -> bool:
        """Return whether an order has ended, or there is something else to be told of it."""
        try:
            return self._answer(order_id, wait_s).receipt.state in STOPPED
        except HerdUnavailable:
            raise
        except HerdError:
            return True

    def _ended_of(self, order_ids: list[str]) -> set[str]:
        unseen, ended = dict.fromkeys(order_ids), set[str]()
        before: str | None = None
        try:
            for _ in range(MAX_PAGES):
                page = self._orders(before=before, limit=MAX_HTTP_PAGE)
                for one in page:
                    if one.order in unseen:
                        del unseen[one.order]
                        if one.state in STOPPED:
                            ended.add(one.order)
                if len(page) < MAX_HTTP_PAGE or not unseen:
                    break
                before = page[-1].order
        except HerdUnavailable:
            raise
        except HerdError:
            pass  # a key that lists nothing: each is asked for by itself
        rest = list(unseen)
        if rest:
            begin = self._turn % len(rest)
            self._turn += MAX_ASKED
            asked = (rest[begin:] + rest[:begin])[:MAX_ASKED]
            ended |= {order_id for order_id in asked if self._has_ended(order_id, 0)}
        return ended

    def _wake(self, order_ids: set[str]) -> None:
        with self._lock:
            # Told once, and not asked for again.
            woken = [waiter for one in order_ids for waiter in self._waiting.pop(one, ())]
        for waiter in woken:
            waiter.set()
