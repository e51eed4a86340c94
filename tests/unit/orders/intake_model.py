"""A herd and its money as plain dictionaries: what the design says of them, in the fewest words.

It knows nothing of SQL, transactions or the order in which locks are taken. Multipliers and charges
are fractions, and the order of service is a sort.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fractions import Fraction

from herder import errors

US = 1_000_000
WAITING = ("queued", "dispatched")
OUT = ("dispatched", "running")
OPEN = ("queued", "dispatched", "running")
CALLED_OFF = {"cancelled": "cancelled", "deadline": "expired"}
BUMP, CAP = Fraction(1005, 1000), 10
SHORTEST_RUN_S, RUN_FACTOR = 60, 10


@dataclass(frozen=True)
class Call:
    """What a client asks."""

    account: str
    words: int
    tokens: int
    fee: int | None = None
    factor: Fraction = Fraction(1)
    max_fee: int | None = None
    key: str | None = None
    start_by_us: int | None = None
    run_limit_s: int | None = None


@dataclass
class Asked:
    """An order as it should stand."""

    id: str
    number: int
    call: Call
    rates: tuple[int, int]
    needed: int
    fee: int
    submitted_us: int
    run_limit_s: int | None
    state: str = "queued"
    holds: int = 1
    attempt: int = 0
    open: bool = False
    to: str | None = None
    """The worker that the current attempt was sent to."""
    claimed: bool = False
    begun: bool = False
    call_off: str | None = None
    tries: int = 0
    dispatches: int = 0
    deadline: int | None = None
    overdue: int | None = None
    sent_at: int = 0
    read: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Of each attempt, the characters and tokens that readers of its stream were given."""
    generated: int = 0
    charged: int = 0
    returned: int = 0
    refunded: int = 0

    @property
    def left_nothing(self) -> bool:
        """Whether it was cancelled and cost nothing: its key buys again."""
        return self.state == "cancelled" and self.charged == 0

    def costs(self, generated: int) -> int:
        """What it is charged for so many tokens."""
        prompt, token = self.rates
        delivered = prompt + token * (self.call.words + generated)
        return min(self.fee, math.ceil(Fraction(self.fee * delivered, self.needed)))


@dataclass
class Seen:
    """A worker as it should stand."""

    slots: int
    state: str = "alive"
    strays: int = 0
    heard: int = 0


@dataclass
class Model:
    """Everything."""

    now_us: int
    claim_s: int
    lease_s: int
    max_attempts: int
    max_dispatches: int
    half_life_s: int
    heard: int = 0
    rates: tuple[int, int] = (1, 1)
    aging_s: int = 0
    posted: dict[str, int] = field(default_factory=dict)
    limits: dict[str, tuple[int, int]] = field(default_factory=dict)
    paid_off_us: dict[str, int] = field(default_factory=dict)
    orders: dict[str, Asked] = field(default_factory=dict)
    workers: dict[str, Seen] = field(default_factory=dict)
    last: Fraction = Fraction(1)
    last_us: int | None = None
    flowed: int = 0
    """How often a worker began or completed anything."""

    # Money

    def held(self, account: str) -> int:
        return sum(o.fee for o in self.orders.values() if o.call.account == account and is_open(o))

    def available(self, account: str) -> int:
        return self.posted[account] - self.held(account)

    def open_orders(self, account: str) -> int:
        return sum(is_open(o) for o in self.orders.values() if o.call.account == account)

    # Order intake

    def needs(self, call: Call) -> int:
        prompt, token = self.rates
        return prompt + token * (call.words + call.tokens)

    def offers(self, call: Call) -> int:
        if call.fee is not None:
            return math.floor(call.fee * call.factor)
        last = self.last
        if self.last_us is not None:
            halvings = (self.now_us - self.last_us) // (self.half_life_s * US)
            last = 1 + (last - 1) / 2**halvings
        waits = any(o.state == "queued" for o in self.orders.values())
        return math.floor(self.needs(call) * min(CAP, last * (BUMP if waits else 1)) * call.factor)

    def known(self, call: Call) -> Asked | None:
        """The order of the last call with the same key."""
        same = (call.account, call.key)
        found = [o for o in self.orders.values() if (o.call.account, o.call.key) == same]
        return found[-1] if call.key and found else None

    def refuses(self, call: Call) -> type[Exception] | None:
        """Why a call is refused."""
        before = self.known(call)
        if before is not None and before.call != call:
            return errors.IdempotencyKeyReused
        if before is not None and not before.left_nothing:
            return None
        need, fee = self.needs(call), self.offers(call)
        most, a_minute = self.limits[call.account]
        asked = call.words + call.tokens
        until_us = max(self.paid_off_us[call.account], self.now_us)
        too_soon = a_minute and until_us + asked * 60 * US // a_minute > self.now_us + 60 * US
        reasons = [
            (errors.FeeTooLow, fee < need),
            (errors.FeeAboveMax, call.max_fee is not None and fee > call.max_fee),
            (errors.InvalidStartBy, call.start_by_us and call.start_by_us <= self.now_us),
            (errors.RateLimited, most and self.open_orders(call.account) >= most),
            (errors.InvalidRequest, a_minute and asked > a_minute),
            (errors.RateLimited, too_soon),
            (errors.InsufficientBalance, fee > self.available(call.account)),
        ]
        return next((reason for reason, true in reasons if true), None)

    def submit(self, call: Call, order_id: str) -> None:
        before = self.known(call)
        if before is not None and not before.left_nothing:
            return
        fee, account = self.offers(call), call.account
        if a_minute := self.limits[account][1]:
            until_us = max(self.paid_off_us[account], self.now_us)
            asked = call.words + call.tokens
            self.paid_off_us[account] = until_us + asked * 60 * US // a_minute
        number = len(self.orders)
        self.orders[order_id] = Asked(
            order_id, number, call, self.rates, self.needs(call), fee, self.now_us, call.run_limit_s
        )

    def refuses_bid(self, order: Asked, fee: int) -> type[Exception] | None:
        if fee == order.fee and order.holds > 1:
            return None
        if order.state != "queued":
            return errors.OrderNotWaiting
        if fee <= order.fee:
            return errors.RebidTooLow
        more = fee - order.fee
        return errors.InsufficientBalance if more > self.available(order.call.account) else None

    def bid(self, order: Asked, fee: int) -> None:
        if fee != order.fee:
            order.fee, order.holds = fee, order.holds + 1

    def cancel(self, order: Asked) -> None:
        if order.state == "queued":
            self.end(order, "cancelled")
        elif order.state in OUT and order.call_off is None:
            order.call_off = "cancelled"
            until = self.heard + self.lease_s
            order.overdue = min(order.overdue or until, until)
            if order.state == "dispatched" and not order.read.get(order.attempt, (0, 0))[0]:
                self.end(order, "cancelled")

    def refuses_refund(self, order: Asked, amount: int | None) -> type[Exception] | None:
        left = order.charged - order.refunded
        return errors.RefundRefused if left == 0 or (amount or 0) > left else None

    def refund(self, order: Asked, amount: int | None) -> int:
        given = order.charged - order.refunded if amount is None else amount
        order.refunded += given
        self.posted[order.call.account] += given
        return given

    def end(self, order: Asked, state: str, generated: int | None = None) -> None:
        """It ends; `generated` where its worker's outcome ended it."""
        delivered = min(generated or 0, order.call.tokens)
        charged = order.costs(delivered) if state == "completed" or delivered else 0
        order.charged = 0 if state == "failed" else charged
        order.returned = order.fee - order.charged
        order.generated = delivered
        order.state, order.open, order.deadline, order.overdue = state, False, None, None
        if generated is None:
            order.to = None
        self.posted[order.call.account] -= order.charged
        self.flowed += state == "completed"

    # Dispatch

    def weight(self, order: Asked) -> Fraction | int:
        """What is served first weighs most."""
        multiplier = Fraction(order.fee, order.needed)
        if self.aging_s == 0:
            return multiplier
        ahead_us = Fraction(math.log(multiplier)) * self.aging_s * US
        return int(ahead_us) - order.submitted_us

    def line(self) -> list[Asked]:
        """The orders that wait and may begin, the next to be served first."""
        may = [
            o
            for o in self.orders.values()
            if o.state == "queued" and (o.begun or not self._passed(o, self.now_us))
        ]
        return sorted(may, key=lambda o: (-self.weight(o), o.number))

    def room(self) -> int:
        return sum(map(self.free, self.workers))

    def free(self, instance: str) -> int:
        """Slots of a worker that may be sent an order: all answered their hellos, and claimed."""
        worker = self.workers[instance]
        taken = worker.strays + self._out_with(instance)
        return max(0, worker.slots - taken) if worker.state == "alive" else 0

    def send(self, order: Asked, instance: str) -> None:
        """Which worker an order that was dispatched just now is sent to is the herder's choice."""
        assert self.free(instance) > 0, "it has a free slot"
        order.to = instance

    def dispatch(self) -> list[Asked]:
        sent = self.line()[: self.room()]
        for order in sent:
            order.state, order.open, order.to = "dispatched", True, None
            order.claimed = False
            order.attempt, order.dispatches = order.attempt + 1, order.dispatches + 1
            order.deadline, order.overdue = self.heard + self.claim_s, None
            order.run_limit_s = order.run_limit_s or max(
                SHORTEST_RUN_S, RUN_FACTOR * order.call.tokens
            )
            order.sent_at = self.flowed
            self.last, self.last_us = Fraction(order.fee, order.needed), self.now_us
        return sent

    def _out_with(self, instance: str) -> int:
        return sum(o.to == instance and o.state in OUT for o in self.orders.values())

    def _passed(self, order: Asked, at_us: int) -> bool:
        return order.call.start_by_us is not None and order.call.start_by_us < at_us

    # What workers say

    def show_up(self, order: Asked, attempt: int, instance: str) -> str | None:
        """A worker has an attempt; why it is to stop, or None."""
        if attempt != order.attempt or order.to != instance:
            return "void"
        if not order.open:
            return None
        if not order.begun and order.call_off is None and self._passed(order, self.now_us):
            return "void"
        order.deadline = self.heard + self.lease_s
        if order.state != "running":
            self._bind(order)
            limit_s = order.run_limit_s if order.call_off is None else 0
            order.state, order.overdue = "running", order.deadline + limit_s
            self.flowed += 1
        return order.call_off

    def _bind(self, order: Asked) -> None:
        order.tries += not order.claimed
        order.claimed = order.begun = True

    def beat(self, instance: str, held: list[tuple[str, int]], *, draining: bool) -> list[str]:
        """What it is told of each attempt that it names."""
        told = [self.show_up(self.orders[name], attempt, instance) for name, attempt in held]
        seen = self.workers[instance]
        seen.state, seen.heard = "draining" if draining else "alive", self.heard
        seen.strays = told.count("void")
        return told

    def read(self, order: Asked, attempt: int, characters: int, tokens: int) -> None:
        """Readers of an attempt's stream were given so much of it."""
        order.read[attempt] = max(order.read.get(attempt, (0, 0)), (characters, tokens))

    def _delivered(self, order: Asked, result: str, generated: int, size: int) -> tuple[str, int]:
        """How an attempt that said it was done ends its order, and what of it was delivered."""
        if order.call_off != "cancelled" or result not in ("completed", "cancelled", "expired"):
            return result, generated
        characters, tokens = order.read.get(order.attempt, (0, 0))
        if result != "cancelled" and characters >= size:
            return result, generated
        return "cancelled", min(generated, tokens)

    def answer(
        self, order: Asked, attempt: int, instance: str, result: str, generated: int, size: int
    ) -> str | None:
        """An outcome with so many characters: `void`, `again`, or None where it counts."""
        if attempt != order.attempt or order.to != instance:
            return "void"
        if not order.open:
            return "again"
        self._bind(order)
        if result == "cancelled" and order.call_off is None:
            result = "failed_now"  # it stopped unasked
        result, generated = self._delivered(order, result, generated, size)
        if result in ("completed", "cancelled", "expired", "failed"):
            self.end(order, result, generated)
        elif order.call_off is not None:
            self.end(order, CALLED_OFF[order.call_off])
        elif result == "handed_back":
            order.tries = max(0, order.tries - 1)
            self._again(order, generated, enough=order.dispatches >= self.max_dispatches)
        else:
            self._again(order, generated, enough=order.tries >= self.max_attempts)
        return None

    def _again(self, order: Asked, generated: int, *, enough: bool) -> None:
        if enough:
            self.end(order, "failed", generated)
        else:
            order.state, order.open, order.deadline, order.overdue = "queued", False, None, None

    # Time

    def lapse(self) -> list[str]:
        """Take back what nobody claimed and who fell silent; what ended by it."""
        ended = []
        full = {name for name in self.workers if self._is_full(name)}
        for order in self.orders.values():
            if not self._has_lapsed(order):
                continue
            if order.state == "dispatched" and not order.claimed and order.to in full:
                order.deadline = self.heard + self.claim_s
                continue
            if order.call_off is None:
                lost_alone = order.claimed or self.flowed > order.sent_at
                order.dispatches -= not lost_alone
            enough = order.tries >= self.max_attempts or order.dispatches >= self.max_dispatches
            if order.call_off is not None or enough:
                self.end(order, CALLED_OFF.get(order.call_off, "failed"))
                ended.append(order.id)
            else:
                order.state, order.deadline, order.overdue = "queued", None, None
        return ended

    def _is_full(self, instance: str) -> bool:
        """Whether a worker that is here runs so much that it has no slot for more."""
        worker = self.workers[instance]
        running = sum(o.to == instance and o.state == "running" for o in self.orders.values())
        return worker.state == "alive" and running + worker.strays >= worker.slots

    def _has_lapsed(self, order: Asked) -> bool:
        if order.state not in OUT:
            return False
        leaves = self.workers[order.to].state != "alive"
        # A worker that takes no more has a second to claim what it took before.
        soon = order.state == "dispatched" and leaves
        return order.deadline < self.heard + (self.claim_s - 1 if soon else 0)

    def sweep(self) -> list[str]:
        """End what did not begin in time, and what runs for too long."""
        ended = []
        for order in self.orders.values():
            waits = order.state in WAITING and order.call_off is None
            late = waits and not order.begun and self._passed(order, self.now_us)
            if late or (order.state == "running" and order.overdue < self.heard):
                self.end(order, CALLED_OFF[order.call_off or "deadline"])
                ended.append(order.id)
        return ended

    def lose_silent(self) -> None:
        for seen in self.workers.values():
            if seen.state in ("alive", "draining") and seen.heard < self.heard - self.lease_s:
                seen.state = "lost"


def is_open(order: Asked) -> bool:
    return order.state in OPEN
