"""The clients of a seed: they submit, repeat, pay in, and die in the middle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction

from redis import RedisError
from sqlalchemy.exc import OperationalError

from herder.accounts.accounts import Accounts, open_ledger
from herder.db.outages import CommitUnknown
from herder.domain.order import Order, OrderRequest, Prompt, State
from herder.errors import (
    FeeAboveMax,
    FeeTooLow,
    HerdError,
    HerdUnavailable,
    IdempotencyKeyReused,
    InsufficientBalance,
    QuoteExpired,
    RateLimited,
)
from tests.simulation.clockwork import Broken, Crash, Process, Thread
from tests.simulation.database import MODEL
from tests.simulation.herder import Room
from tests.simulation.keys import HERDER_KEY
from tests.simulation.owners import ACCOUNTS, LIMITED, POOR, RICH, Owners
from tests.simulation.quoting import Quoting
from tests.simulation.shadow import Shadow
from tests.simulation.truth import Truth
from tests.simulation.weather import Layout
from workers.transport.tasks import NewTask
from workers.wire import HERDER_QUEUE, NUDGE_ID, NUDGE_TASK, ChatMessage, Nudge, seal

RETRIES = 6


@dataclass
class Call:
    """A submission, and what came of it."""

    submission: OrderRequest
    words: int
    order_id: str | None = None
    tries: int = 0
    drawn: list[str] = field(default_factory=list)
    """The ids that were drawn for its order, one a try."""


class Clients:
    """All clients, each on a machine of its account."""

    def __init__(
        self, room: Room, layout: Layout, truth: Truth, shadow: Shadow, orders: int
    ) -> None:
        self._room = room
        self._time = room.time
        self._layout = layout
        self._truth = truth
        self._shadow = shadow
        self._left = orders
        self._programs = 0
        self._pending = 0
        self.calls: list[Call] = []
        self._quoting = Quoting(room, truth)
        self._owners = Owners(room, truth, shadow, self._soon, self._quoting.set_rates)
        truth.rates.add(layout.rates)

    def open_accounts(self) -> None:
        """Before anything goes wrong."""
        accounts = self._accounts(Process(self._time, "bank"))
        for name in ACCOUNTS:
            accounts.create(name)
            amount = POOR if name == "poor" else RICH
            accounts.deposit(name, amount, self._time.new_id())
        accounts.set_limits(
            LIMITED,
            max_open_orders=self._layout.most_open,
            tokens_per_minute=self._layout.tokens_per_minute,
        )

    def _accounts(self, process: Process) -> Accounts:
        books = open_ledger(process.clock_us)
        return Accounts(self._room.database, books, clock_us=process.clock_us)

    def start(self) -> None:
        """Let them come."""
        self._soon(self._layout.arrivals_us, "ada", self._arrive)

    @property
    def all_came(self) -> bool:
        """Whether every order of the seed was asked for."""
        return self._left == 0

    @property
    def done(self) -> bool:
        """Whether no client will do anything any more."""
        return self.all_came and self._pending == 0

    def _soon(self, mean_us: float, account: str, do: Callable[[Process], None]) -> None:
        """Have a program of an account's owner do something."""
        self._programs += 1
        self._pending += 1
        process = Process(self._time, f"{account}.{self._programs}", machine=account)
        delay_us = int(self._time.rng.expovariate(1 / mean_us)) if mean_us else 0
        self._time.after(delay_us, Thread(process), lambda: self._run(process, do))

    def _run(self, process: Process, do: Callable[[Process], None]) -> None:
        self._pending -= 1
        do(process)

    def _arrive(self, process: Process) -> None:
        rng = self._time.rng
        self._left -= 1
        if self._left > 0:
            # Now a stream, now a crowd.
            mean_us = self._layout.arrivals_us * (0.2 if rng.random() < 0.7 else 3)
            self._soon(mean_us, rng.choice(ACCOUNTS), self._arrive)
        call = self._draw(process)
        self.calls.append(call)
        self._time.count("an order arrives")
        if self._time.rng.random() < 0.2:
            quoted = self._quoting.ask(process, call.submission)
            call.submission = quoted or call.submission
            self._soon(1_500_000, process.machine, lambda p: self._submit(p, call))
            return
        self._submit(process, call)

    def _draw(self, process: Process) -> Call:
        rng, rates = self._time.rng, self._layout.rates
        words, tokens = rng.randint(1, 6), rng.choice((1, 4, 10, 16, 16, 30))
        need = rates.prompt_fee + rates.fee_per_token * (words + tokens)
        fee: int | None = None
        if rng.random() < 0.6:
            fee = need * rng.randint(90, 600) // 100 if rng.random() < 0.7 else 2 * need
        text = "word " * words
        prompt = Prompt(text)
        if rng.random() < 0.1:
            prompt = Prompt(None, (ChatMessage(role="user", content=text),))
        now_us = process.clock_us()
        submission = OrderRequest(
            account=process.machine,
            prompt=prompt,
            tokens=tokens,
            fee=fee,
            bid_factor=rng.choice((Fraction(1),) * 5 + (Fraction(3, 2), Fraction(11, 10))),
            max_fee=2 * need if fee is None and rng.random() < 0.3 else None,
            reference="r" if rng.random() < 0.1 else None,
            idempotency_key=self._time.new_nonce() if rng.random() < 0.6 else None,
            start_by_us=now_us + rng.randint(200_000, 8_000_000) if rng.random() < 0.15 else None,
            run_limit_s=rng.randint(1, 2) if rng.random() < 0.15 else None,
        )
        # Who has an idempotency key sends messages, and is answered in the inbox.
        submission = replace(submission, message=submission.idempotency_key)
        return Call(submission, words)

    # Submissions

    def _submit(self, process: Process, call: Call) -> None:
        intake = self._room.parts.intake(
            self._room.database,
            open_ledger(process.clock_us),
            clock_us=process.clock_us,
            new_id=lambda: self._draw_id(call),
        )
        call.tries += 1
        drawn = len(call.drawn)
        if call.tries > 1:
            self._time.count("a call is repeated")
        before = self._shadow.commits
        try:
            order = intake.submit(call.submission)
        except Crash:
            self._again(call, 1_000_000)
            raise
        except CommitUnknown as error:
            self._unknown(call, error)
            return
        except (HerdUnavailable, OperationalError) as error:
            self._left_nothing(call.drawn[drawn:], error)
            self._again(call, 300_000)
            return
        except HerdError as error:
            self._left_nothing(call.drawn[drawn:], error)
            self._refused(process, call, error, before)
            return
        except Exception as error:
            raise Broken("unexpected", f"submit: {error!r}"[:300]) from error
        self._accepted(call, order)

    def _draw_id(self, call: Call) -> str:
        call.drawn.append(self._time.new_id())
        return call.drawn[-1]

    def _left_nothing(self, drawn: Sequence[str], error: Exception) -> None:
        """Who is given an error that does not say otherwise is charged nothing."""
        for order_id in drawn:
            if order_id in self._shadow.by_id:
                raise Broken("one_order", f"{order_id[:8]} is there and its client got {error!r}")

    def _unknown(self, call: Call, error: CommitUnknown) -> None:
        """The database stays away: the call is made again, or the order is not to be any more."""
        order_id = str(error.data.get("order"))
        if order_id != call.drawn[-1]:
            raise Broken("one_order", f"{order_id[:8]} is none of the call's: {call.drawn}")
        if call.submission.idempotency_key:
            self._again(call, 300_000)
        else:
            self._time.count("a call of which nothing is known is cancelled")
            self._owners.give_up(call.submission.account, order_id)

    def judge_all(self) -> None:
        """At the end: no call made two orders, and no order is nobody's."""
        for call in self.calls:
            made = [order_id for order_id in call.drawn if order_id in self._shadow.by_id]
            for before in made[:-1]:
                if not self._left_nothing_paid(before):
                    raise Broken("one_order", f"a call made {len(made)} orders")
            made = made[-1:]
            if call.order_id is not None and made != [call.order_id]:
                raise Broken("one_order", f"a call was told of {call.order_id[:8]} and made {made}")

    def _again(self, call: Call, mean_us: int) -> None:
        """Who has an idempotency key tries again; who has none cannot know."""
        if call.submission.idempotency_key and call.tries < RETRIES:
            self._soon(mean_us, call.submission.account, lambda p: self._submit(p, call))

    def _refused(self, process: Process, call: Call, error: HerdError, before: int) -> None:
        self._time.note(f"is refused: {error.code}")
        # If it was undone at first, others may have gone on before it was taken again.
        if self._shadow.commits != before and not self._time.troubled:
            raise Broken("refused", f"a call was refused ({error.code}) and left a trace")
        asked = call.submission
        match error:
            case FeeTooLow():
                self._time.count("a call is refused for its fee")
                need = error.data["needed"]
                right = asked.fee is not None and asked.fee * asked.bid_factor < need
                right = right and self._quoting.needs(asked, call.words, need)
            case FeeAboveMax():
                self._time.count("a call is refused for its fee")
                right = asked.max_fee is not None
            case InsufficientBalance():
                self._time.count("a call is refused for the balance")
                right = self._fill(call)
            case QuoteExpired():
                right = self._quoting.is_over(process, asked.quote)
                right = right and (call.order_id is None or self._left_nothing_paid(call.order_id))
            case RateLimited():
                self._time.count("a call is refused for the account's limits")
                right = self._is_limited(call, error)
            case _:
                right = asked.start_by_us is not None and error.code == "invalid_start_by"
        if not right:
            raise Broken("refused", f"{error.code}: {error.message}")

    def _is_limited(self, call: Call, error: RateLimited) -> bool:
        """The same call works later."""
        self._again(call, error.retry_after_s * 1_000_000)
        if call.submission.account != LIMITED:
            return False
        if "open_orders" not in error.data:
            return self._layout.tokens_per_minute > 0
        rows = (*self._shadow.queued.values(), *self._shadow.out.values())
        return sum(row.account == LIMITED for row in rows) >= self._layout.most_open > 0

    def _fill(self, call: Call) -> bool:
        """The same call works after a deposit."""
        account = call.submission.account

        def pay_in(process: Process) -> None:
            try:
                self._accounts(process).deposit(account, 50 * POOR, self._time.new_id())
            except (HerdUnavailable, OperationalError):
                return
            self._again(call, 10_000)

        self._soon(500_000, account, pay_in)
        return account == "poor"

    def _accepted(self, call: Call, order: Order) -> None:
        asked = call.submission
        row = self._shadow.by_id.get(order.id)
        if row is None or order.account != asked.account:
            raise Broken("accepted", f"{order.id[:8]} was accepted and is not there")
        first = call.order_id != order.id
        if call.order_id is not None and first:
            self._time.count("a key buys again after a cancellation")
            if not self._left_nothing_paid(call.order_id):
                raise Broken("accepted", "the same key gave another order")
        call.order_id = order.id
        self._truth.accepted.add(order.id)
        if row.words != call.words:
            raise Broken("price", f"{order.id[:8]} has {call.words} words, not {row.words}")
        self._quoting.accepted(asked, order, first_bid=order.holds == 1)
        if (
            asked.fee is not None
            and row.holds == 1
            and row.fee != asked.fee * asked.bid_factor // 1
        ):
            raise Broken("price", f"{asked.fee} was offered and {row.fee} was held")
        if asked.max_fee is not None and row.holds == 1 and row.fee > asked.max_fee:
            raise Broken("price", f"{row.fee} is above {asked.max_fee}")
        if order.state is State.QUEUED:
            self._nudge()
        if first:
            self._plan_more(call, order)

    def _left_nothing_paid(self, order_id: str) -> bool:
        """Whether an order was cancelled and cost nothing, so that its key buys again."""
        row = self._shadow.by_id[order_id]
        return row.state == State.CANCELLED and row.charged == 0

    def _nudge(self) -> None:
        """As `herder.service.nudge` does."""
        try:
            if not self._room.redis.first_nudge(MODEL):
                return
            now_s = self._time.now_us // 1_000_000
            token = seal(
                Nudge(model=MODEL), HERDER_KEY, sender="herder", audience=HERDER_QUEUE, now_s=now_s
            )
            task = NewTask(HERDER_QUEUE, NUDGE_TASK, token, NUDGE_ID, f"model={MODEL}", 9)
            self._room.broker.publish_many([task])
        except (RedisError, OSError):
            self._time.note("no nudge was sent")

    def _plan_more(self, call: Call, order: Order) -> None:
        """What its client will do about an order."""
        rng, account = self._time.rng, call.submission.account
        self._owners.plan(order, account)
        if call.submission.idempotency_key and rng.random() < 0.15:
            self._soon(2_000_000, account, lambda p: self._submit(p, call))
        if call.submission.idempotency_key and rng.random() < 0.03:
            self._soon(2_000_000, account, lambda p: self._reuse_key(p, call))

    def _reuse_key(self, process: Process, call: Call) -> None:
        self._time.count("a key is used for another call")
        other = replace(call.submission, tokens=call.submission.tokens + 1)
        intake = self._room.parts.intake(
            self._room.database, open_ledger(process.clock_us), clock_us=process.clock_us
        )
        try:
            intake.submit(other)
        except (IdempotencyKeyReused, HerdUnavailable, OperationalError):
            return
        raise Broken("accepted", "a key stands for two calls")
