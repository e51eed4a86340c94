"""Clients that submit, re-bid and cancel whatever happens, and what each of them was told."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from support.running import RunningHerd

from herder import home
from herder.errors import (
    HerdError,
    HerdUnavailable,
    InvalidStartBy,
    OrderCancelled,
    OrderExpired,
    OrderFailed,
    OrderNotWaiting,
    RebidTooLow,
)
from herder.receipts import Receipt
from tests.chaos.points import MARK, POINT

LIMIT_S = 120.0
ENDLESS = 200
"""Tokens that take longer than the limit of those who have one."""


@dataclass
class Seen:
    """An order as its client knows it."""

    receipt: Receipt
    acked_us: int
    final: str | None = None

    @property
    def id(self) -> str:
        return self.receipt.order


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
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            while not self._stopping.is_set():
                still_open = [
                    one
                    for one in list(self.seen.values())
                    if one.final is None and self._look(one) is None
                ]
                if len(still_open) < self._open_most:
                    self._submit()
                elif self._random.random() < 0.3:
                    self._meddle(self._random.choice(still_open))
                else:
                    self._stopping.wait(0.1)
        except BaseException as error:  # noqa: BLE001 (told by `finish`, in the test's thread)
            self.error = error

    def _answered(self, call: Callable[[], Any]) -> Any:
        """The answer to a call, which is made again while the database is away."""
        until = time.monotonic() + LIMIT_S
        while True:
            try:
                return call()
            except HerdUnavailable:
                assert time.monotonic() < until, "the database stays away"
                time.sleep(0.1)

    def _submit(self) -> None:
        tokens, terms = self._random.randint(1, 20), self._terms()
        if "run_limit_s" in terms:
            tokens = ENDLESS
        key = str(UUID(int=self._random.getrandbits(128)))
        # Above the automatic fee, so that the callers' orders wait for these.
        fee = int((tokens + 3) * self._random.uniform(2, 6))

        def submit() -> Any:
            return self._herd.client.submit("Say so", tokens, fee=fee, idempotency_key=key, **terms)

        try:
            receipt = self._answered(submit)
        except InvalidStartBy:
            return  # it was too late when the database was back, and nothing was taken
        self.seen[receipt.order] = Seen(receipt, home.clock_us())
        if self._random.random() < 0.3:
            again = self._answered(submit)
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
            receipt = self._answered(lambda: self._herd.client.cancel(one.id))
            if self._random.random() < 0.5:
                self._answered(lambda: self._herd.client.cancel(one.id))
            assert receipt.order == one.id
            return
        now = self._answered(lambda: self._herd.client.receipt(one.id))
        fee = now.fee + self._random.randint(1, 40)

        def rebid() -> Any:
            try:
                return self._herd.client.rebid(one.id, fee)
            except (OrderNotWaiting, RebidTooLow) as refusal:
                return refusal

        self._answered(rebid)

    def _look(self, one: Seen) -> str | None:
        """Its final state, once there is one; it never changes then."""
        state = str(self._answered(lambda: self._herd.client.receipt(one.id)).state)
        ended = state in ("completed", "failed", "cancelled", "expired")
        if one.final is not None:
            assert state == one.final, f"{one.id} was {one.final} and is {state}"
        elif ended:
            one.final = state
        return one.final

    def finish(self) -> None:
        """No more calls; wait for each order's end, as a program does."""
        self._stopping.set()
        self.join(timeout=LIMIT_S)
        if self.error is not None:
            raise self.error
        assert not self.is_alive()
        for one in self.seen.values():
            self.await_end(one)

    def note(self, order: Any) -> None:
        """An order of the test's own is judged with the rest."""
        receipt = order.receipt()
        self.seen[receipt.order] = Seen(receipt, receipt.submitted_us)

    def await_end(self, one: Seen) -> None:
        """Wait for an order's end as `Order.result` does."""
        errors = {OrderFailed: "failed", OrderCancelled: "cancelled", OrderExpired: "expired"}
        try:
            result = self._answered(lambda: self._herd.client.result(one.id, LIMIT_S))
            told = str(result.receipt.state)
        except HerdError as error:
            if type(error) not in errors:
                raise
            told = errors[type(error)]
        if one.final is None:
            one.final = told
        assert told == one.final == self._look(one)


def run_caller(herd: RunningHerd, calls: str, point: str, mark: Path) -> tuple[int, str]:
    """Run the client's program once: its exit code, and what it wrote."""
    env = {**herd.env, POINT: point, MARK: str(mark)}
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos.caller"],
        input=calls,
        capture_output=True,
        text=True,
        env=env,
        cwd=herd.folder,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode, done.stdout
