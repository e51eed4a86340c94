"""A machine that drives a real herd and `desk_model` with whatever comes to mind, and compares.

Desk, dispatcher, herd, settlement and withdrawal are the real ones on a real database, where every
example is one transaction that is rolled back. Broker, workers and clock are the machine's: a
message may reach any worker, at any time, again, or never. What is picked, is picked so that most
of it may happen: a machine that mostly tries what is refused anyhow finds little.
"""

from __future__ import annotations

import itertools
from fractions import Fraction
from typing import Any

import hypothesis.strategies as st
from hypothesis.stateful import initialize, precondition, rule

from herder.domain.order import OrderRequest, Prompt
from herder.market import policy
from tests.support.house import MODEL, FakeWorker, stops
from tests.unit.orders.intake_agreement import DeskAgreement, some
from tests.unit.orders.intake_house import SETTINGS
from tests.unit.orders.intake_model import OPEN, US, Call, Seen
from workers.wire import Failure, InferenceJob

WORKERS = 3
TROUBLE = "It went wrong."
TEXT = "so it is"
NUMBERS = itertools.count()
OUTCOMES: dict[str, dict[str, Any]] = {
    "completed": {"finish_reason": "length"},
    "cancelled": {"finish_reason": "cancelled"},
    "expired": {"finish_reason": "deadline"},
    "failed": {
        "result": "failed",
        "failure": Failure(code="broken", message=TROUBLE, permanent=True),
    },
    "failed_now": {
        "result": "failed",
        "failure": Failure(code="trouble", message=TROUBLE, permanent=False),
    },
    "handed_back": {"result": "handed_back"},
}

picks = st.integers(0, 10_000)
accounts = st.sampled_from(["ada", "ada", "ada", "bob"])
workers = st.integers(0, 4 * WORKERS - 1)
mostly = st.sampled_from([True, True, True, False])
ways = st.sampled_from(["open", "open", "open", "stranger", "past", "any"])
rarely = [None] * 5
claims = st.lists(st.booleans(), min_size=4, max_size=4)
crowds = st.lists(
    st.fixed_dictionaries(
        {
            "account": accounts,
            "words": st.integers(1, 3),
            "tokens": st.integers(1, 6),
            "offer": st.sampled_from(["auto", "auto", "once", "twice", "twice", "odd", "low"]),
            "factor": st.sampled_from([Fraction(1)] * 4 + [Fraction(2), Fraction(5, 4)]),
            "most": st.sampled_from([*rarely, 15, 60]),
            "key": st.booleans(),
            "begin_s": st.sampled_from([*rarely, -1, 0, 1, 3, 6]),
            "run_limit_s": st.sampled_from([*rarely, 1, 3]),
        }
    ),
    min_size=1,
    max_size=4,
)


class DeskMachine(DeskAgreement):
    """Set `house` in a subclass."""

    # Clients

    @initialize(
        slots=st.lists(st.integers(1, 2), min_size=1, max_size=2),
        calls=crowds,
        claims=claims,
        aging_s=st.sampled_from([0, 0, 2, 30]),
    )
    def open_for_business(self, slots, calls, claims, aging_s) -> None:
        self._weigh(aging_s)
        for one in slots:
            self._join(one)
        for call in calls:
            self._call(**call)
        self._serve(claims, 0)

    @rule(calls=crowds)
    def submit(self, calls) -> None:
        for call in calls:
            self._call(**call)

    def _call(self, account, words, tokens, offer, factor, most, key, begin_s, run_limit_s) -> None:
        self.serial += 1
        call = Call(
            account=account,
            words=words,
            tokens=tokens,
            factor=factor,
            max_fee=most if offer == "auto" else None,
            key=f"key {self.serial}" if key else None,
            start_by_us=None if begin_s is None else self.model.now_us + begin_s * US,
            run_limit_s=run_limit_s,
        )
        need = self.model.needs(call)
        fees = {"low": need - 1, "once": need, "twice": 2 * need, "odd": need + self.serial % 7}
        self._submit(Call(**{**vars(call), "fee": fees.get(offer)}))

    @precondition(lambda self: any(o.call.key for o in self.model.orders.values()))
    @rule(pick=picks, more=st.sampled_from([0, 0, 1]))
    def submit_again(self, pick, more) -> None:
        """The same key: with the same call the same order, with another call a conflict."""
        call = some([o.call for o in self.model.orders.values() if o.call.key], pick)
        self._submit(Call(**{**vars(call), "tokens": call.tokens + more}))

    def _submit(self, call: Call) -> None:
        known = self.model.known(call)
        made = self.expect(
            self.model.refuses(call),
            lambda: self.house.intake.submit(
                OrderRequest(
                    account=call.account,
                    prompt=Prompt("w " * call.words),
                    tokens=call.tokens,
                    fee=call.fee,
                    bid_factor=call.factor,
                    max_fee=call.max_fee,
                    idempotency_key=call.key,
                    start_by_us=call.start_by_us,
                    run_limit_s=call.run_limit_s,
                )
            ),
        )
        if made is not None:
            assert (made.id in self.model.orders) == (known is not None and not known.left_nothing)
            self.model.submit(call, made.id)

    @precondition(lambda self: self.model.orders)
    @rule(pick=picks, fair=mostly, offer=st.sampled_from(["less", "same", "more", "twice"]))
    def rebid(self, pick, fair, offer) -> None:
        order = self.order(pick, ("queued",) if fair else ())
        fees = {"less": order.fee - 1, "same": order.fee, "more": order.fee + 3}
        fee = fees.get(offer, 2 * order.fee)
        refused = self.model.refuses_bid(order, fee)
        self.expect(refused, lambda: self.house.intake.rebid(order.id, fee))
        if refused is None:
            self.model.bid(order, fee)

    @precondition(lambda self: self.model.orders)
    @rule(
        pick=picks,
        states=st.sampled_from([("running",), ("dispatched",), OPEN, ()]),
        read=st.sampled_from([0, 0, 3]),
    )
    def cancel(self, pick, states, read) -> None:
        """Cancel an order, of which somebody may have been given some text by then."""
        order = self.order(pick, states)
        if read and order.open and order.state in ("dispatched", "running"):
            named = (order.id, order.attempt)
            (job,) = (one for one in self.jobs if (one.order, one.attempt) == named)
            self.house.readers.read(job, read, 1)
            self.model.read(order, job.attempt, read, 1)
        self.model.cancel(order)
        now = self.house.cancellation.cancel(order.id)
        assert (now.state, now.call_off) == (order.state, order.call_off)

    # The operator

    @rule(account=accounts, amount=st.integers(1, 90), pick=picks, back=st.integers(0, 9))
    def move_money(self, account, amount, pick, back) -> None:
        """A deposit; or a refund, of 0: all that is left."""
        charged = [o for o in self.model.orders.values() if o.charged]
        if not charged:
            self.house.accounts.deposit(account, amount, self.new_id())
            self.model.posted[account] += amount
            return
        order, amount = some(charged, pick), back or None
        refused = self.model.refuses_refund(order, amount)
        given = self.expect(refused, lambda: self.house.intake.refund(order.id, amount, "sorry"))
        if refused is None:
            assert given == self.model.refund(order, amount)

    @rule(
        what=st.sampled_from(["rates", "aging", "limits", "limits"]),
        rates=st.tuples(st.integers(1, 2), st.integers(0, 2)),
        aging_s=st.sampled_from([0, 2, 30]),
        account=accounts,
        most=st.sampled_from([0, 0, 3, 5]),
        a_minute=st.sampled_from([0, 0, 6, 20]),
    )
    def decide(self, what, rates, aging_s, account, most, a_minute) -> None:
        """Rates; what waiting weighs, for the orders that are there too; an account's limits."""
        database = self.house.database
        if what == "rates":
            policy.set_rates(database, MODEL, prompt_fee=rates[0], fee_per_token=rates[1])
            self.model.rates = rates
        elif what == "aging":
            self._weigh(aging_s)
        else:
            limits = {"max_open_orders": most, "tokens_per_minute": a_minute}
            self.house.accounts.set_limits(account, **limits)
            self.model.limits[account] = (most, a_minute)

    def _weigh(self, aging_s) -> None:
        ranked = policy.set_policy(self.house.database, aging_s=aging_s)
        assert ranked == sum(o.state in OPEN for o in self.model.orders.values())
        self.model.aging_s = aging_s

    # The herd

    @rule(claims=claims, who=workers)
    def serve(self, claims, who) -> None:
        """Fill the free slots, in the order of service; some of it reaches a worker at once."""
        self._serve(claims, who)

    def _serve(self, claims, who) -> None:
        due = self.model.dispatch()
        jobs = self.house.dispatch()
        assert [(job.order, job.attempt) for job in jobs] == [(o.id, o.attempt) for o in due]
        for job in jobs:
            self.model.send(self.model.orders[job.order], self.house.sent_to(job).instance)
        assert [job.run_limit_s for job in jobs] == [o.run_limit_s for o in due]
        self.jobs += jobs
        for job, claimed in zip(jobs, claims, strict=False):
            if claimed:
                # Mostly the worker that it was sent to; a stranger to it is told to stop.
                stranger = who % 4 == 3
                self._claim(job, some(self.workers, who) if stranger else self.house.sent_to(job))

    @rule(what=st.sampled_from(["join", "leave", "beat", "beat", "drain"]), who=workers)
    def move(self, what, who) -> None:
        """A worker joins, leaves, beats, or says that it drains."""
        worker = some(self.workers, who)
        if what == "join" and len(self.workers) < WORKERS:
            self._join(1 + who % 2)
        elif what == "leave":
            worker.leave()
            self.model.workers[worker.instance].state = "gone"
        else:
            self._beat(worker, draining=what == "drain")

    def _join(self, slots: int) -> None:
        # Of one length, for who comes first among equals to be the same in each replay.
        worker = self.house.worker(f"worker{next(NUMBERS):09}", slots=slots)
        self.workers.append(worker)
        self.model.workers[worker.instance] = Seen(slots, heard=self.model.heard)

    def _beat(self, worker: FakeWorker, *, draining: bool = False) -> None:
        held = list(worker.held)
        told = self.model.beat(
            worker.instance, [(one.order, one.attempt) for one in held], draining=draining
        )
        heard = worker.beat(draining=draining)
        due = [one for one, why in zip(held, told, strict=True) if why is not None]
        assert stops(heard, worker) == due
        if worker.number % 2:  # it may take a moment to stop
            worker.held = [one for one, why in zip(held, told, strict=True) if why != "void"]

    @precondition(lambda self: self.jobs)
    @rule(pick=picks, who=workers, which=ways)
    def claim(self, pick, who, which) -> None:
        job, worker, _ = self.delivery(pick, who, which)
        self._claim(job, worker)

    def _claim(self, job: InferenceJob, worker: FakeWorker) -> None:
        why = self.model.show_up(self.model.orders[job.order], job.attempt, worker.instance)
        heard = worker.claim(job)
        assert stops(heard, worker) == ([] if why is None else [job.held])
        if worker.held.count(job.held) > 1:
            worker.held.remove(job.held)

    @precondition(lambda self: self.jobs)
    @rule(
        pick=picks,
        who=workers,
        which=ways,
        result=st.sampled_from(["completed", "completed", *OUTCOMES]),
        generated=st.integers(0, 8),
        read=st.sampled_from([0, 3, len(TEXT)]),
        times=st.sampled_from([1, 1, 2]),
    )
    def outcome(self, pick, who, which, result, generated, read, times) -> None:
        """How an attempt ended, and perhaps the same again in the same breath."""
        job, worker, order = self.delivery(pick, who, which)
        if read:
            tokens = generated if read == len(TEXT) else generated // 2
            self.house.readers.read(job, read, tokens)
            self.model.read(order, job.attempt, read, tokens)
        self._outcome(job, worker, order, result, generated, times)

    def _outcome(self, job, worker, order, result, generated=0, times=1) -> None:
        was_open = order.state in OPEN
        said = [
            self.model.answer(order, job.attempt, worker.instance, result, generated, len(TEXT))
            for _ in range(times)
        ]
        text = {"text": TEXT} if "finish_reason" in OUTCOMES[result] else {}
        answer = worker.answer(job, **{"generated": generated, **text, **OUTCOMES[result]})
        done = self.house.settlement.settle([answer] * times)
        pair = (worker.instance, job.held)
        assert done.void == [pair] * said.count("void")
        assert done.confirmed == [pair] * (times - said.count("void"))
        assert done.ended == ([order.id] if was_open and order.state not in OPEN else [])

    @precondition(lambda self: any(map(self._is_current, self.jobs)))
    @rule(
        pick=picks,
        who=workers,
        how=st.sampled_from(["handed_back", "failed_now", "lapsed"]),
        late=st.sampled_from([*OUTCOMES]),
    )
    def come_back(self, pick, who, how, late) -> None:
        """What is out comes back, waits past most times to begin by, and is sent again; then its
        last attempt answers after all."""
        job, worker, order = self.delivery(pick, who, "open")
        silent = worker.instance if how == "lapsed" else None
        if how != "lapsed":
            self._outcome(job, worker, order, how)
        self._wait(SETTINGS["lease_s"] + 1, [one.instance != silent for one in self.workers])
        self._serve([False] * 4, who)
        self._outcome(job, worker, order, late, generated=1)

    # Time

    @rule(seconds=st.integers(1, 4), beating=st.lists(mostly, min_size=3, max_size=3), heard=mostly)
    def wait(self, seconds, beating, heard) -> None:
        """Seconds in which the herder listens, or is away; some of the workers are silent."""
        if heard:
            self._wait(seconds, beating)
        else:
            self.model.now_us += seconds * US
            self.house.now_us += seconds * US
            self._tick()

    def _wait(self, seconds, beating) -> None:
        for _ in range(seconds):
            self.house.pass_s(1)
            self.model.now_us += US
            self.model.heard += 1
            for worker, beats in zip(self.workers, beating, strict=False):
                if beats:
                    self._beat(worker)
        self._tick()

    def _tick(self) -> None:
        """What a herder does each second."""
        self.house.herd.sweep()
        self.model.lose_silent()
        for done, due in (
            (self.house.settlement.lapse(), self.model.lapse()),
            (self.house.cancellation.sweep(), self.model.sweep()),
        ):
            assert sorted(done.ended) == sorted(due)
