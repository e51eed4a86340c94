"""Clients that submit, re-bid and cancel whatever happens, and what each of them was told."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from herder.clock import clock_us
from herder.domain.order import State
from herder.errors import (
    HerdError,
    HerdUnavailable,
    InvalidStartBy,
    OrderCancelled,
    OrderExpired,
    OrderFailed,
    OrderNotWaiting,
)
from herder.types import Receipt
from tests.support.running import RunningHerd

LIMIT_S = 120.0
ENDLESS = 200
"""Tokens that take longer than the limit of those who have one."""

ENDS = {OrderFailed: "failed", OrderCancelled: "cancelled", OrderExpired: "expired"}


@dataclass
class Seen:
    """An order as its client knows it.

    Attributes:
        bids: (when, fee): what it offers, and when that was acknowledged.
        told: every end that its client was told of.
        text: what its client was given.
    """

    id: str
    bids: list[tuple[int, int]]
    told: list[str] = field(default_factory=list)
    text: str | None = None

    @classmethod
    def of(cls, receipt: Receipt, acked_us: int) -> Seen:
        """An order that was acknowledged just now."""
        return cls(receipt.order, [(acked_us, receipt.fee)])


class Client(threading.Thread):
    """Somebody who submits, re-bids, cancels, and repeats calls whose answer may have been lost.

    Args:
        herd: whom to call.
        name: of the thread.
        seed: decides what is called, and not when.
        open_most: orders that it has open at once.
    """

    def __init__(self, herd: RunningHerd, name: str, seed: str, open_most: int = 6) -> None:
        super().__init__(name=name, daemon=True)
        self._herd = herd
        self._random = random.Random(seed)
        self._open_most = open_most
        self._stopping = threading.Event()
        self.seen: dict[str, Seen] = {}
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            while not self._stopping.is_set():
                still_open = [
                    one for one in self.seen.values() if not one.told and not look(self._herd, one)
                ]
                if len(still_open) < self._open_most:
                    self._submit()
                elif self._random.random() < 0.3:
                    self._meddle(self._random.choice(still_open))
                self._stopping.wait(0.05)
        except BaseException as error:  # noqa: BLE001 (told by `check`, in the test's thread)
            self._error = error

    def check(self) -> None:
        """Fail for what went wrong in its thread."""
        if self._error is not None:
            raise self._error

    def _submit(self) -> None:
        tokens, terms = self._random.randint(1, 20), self._terms()
        if "run_limit_s" in terms:
            tokens = ENDLESS
        key = str(UUID(int=self._random.getrandbits(128)))
        fee = int((tokens + 3) * self._random.uniform(2, 6))

        client = self._herd.client
        by_message = not terms and self._random.random() < 0.5

        def submit() -> Any:
            if not by_message:
                return client.submit("Say so", tokens, fee=fee, idempotency_key=key, **terms)
            taken = client.send_message(
                {
                    "Action": "Transfer",
                    "Recipient": "herder",
                    "Quantity": str(fee),
                    "X-Prompt": "Say so",
                    "X-Tokens": str(tokens),
                },
                account="default",
                idempotency_key=key,
            )
            return client.receipt(str(taken.order))

        try:
            receipt = answered(submit)
        except InvalidStartBy:
            return  # it was too late when the database was back, and nothing was taken
        self.seen[receipt.order] = Seen.of(receipt, clock_us())
        if self._random.random() < 0.3:
            again = answered(submit)
            assert again.order == receipt.order, "the same call made another order"

    def _terms(self) -> dict[str, Any]:
        """Now and then an order that must begin soon, or may not run for long."""
        dice = self._random.random()
        if dice < 0.1:
            return {"run_limit_s": 1}
        if dice < 0.2:
            wait = timedelta(seconds=self._random.uniform(0.5, 3))
            return {"start_by": datetime.now(UTC) + wait}
        return {}

    def _meddle(self, one: Seen) -> None:
        if self._random.random() < 0.5:
            for _ in range(self._random.randint(1, 2)):
                receipt = answered(lambda: self._herd.client.cancel(one.id))
                assert receipt.order == one.id
            return
        fee = one.bids[-1][1] + self._random.randint(1, 40)
        if self._rebid(one, fee):
            one.bids.append((clock_us(), fee))
            if self._random.random() < 0.5:
                assert self._rebid(one, fee), "the same bid again was refused"

    def _rebid(self, one: Seen, fee: int) -> bool:
        def rebid() -> bool:
            try:
                receipt = self._herd.client.rebid(one.id, fee)
            except OrderNotWaiting:
                return False
            assert (receipt.order, receipt.fee) == (one.id, fee)
            return True

        return bool(answered(rebid))

    def stop(self) -> None:
        """No more calls."""
        self._stopping.set()

    def finish(self) -> None:
        """Wait for each order's end, as a program does."""
        self.join(timeout=LIMIT_S)
        self.check()
        assert not self.is_alive()
        for one in self.seen.values():
            await_end(self._herd, one)


def answered(call: Callable[[], Any]) -> Any:
    """The answer to a call, which is made again while the database is away."""
    until = time.monotonic() + LIMIT_S
    while True:
        try:
            return call()
        except HerdUnavailable:
            assert time.monotonic() < until, "the database stays away"
            time.sleep(0.1)


def look(herd: RunningHerd, one: Seen) -> bool:
    """Whether an order has ended, as far as its client is told."""
    state = State(answered(lambda: herd.client.receipt(one.id)).state)
    if state.ended:
        one.told.append(state.value)
    return state.ended


def await_end(herd: RunningHerd, one: Seen) -> None:
    """Wait for an order's end as `Order.result` does, and look once more."""
    try:
        result = answered(lambda: herd.client.result(one.id, LIMIT_S))
        one.told.append(str(result.receipt.state))
        one.text = result.text
    except HerdError as error:
        if type(error) not in ENDS:
            raise
        one.told.append(ENDS[type(error)])
        one.text = error.result.text
    look(herd, one)
