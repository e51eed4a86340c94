"""The rules that always hold, judged at each commit and at each message that leaves a herder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from herder.domain.pricing import Rates
from tests.simulation.clockwork import Broken, Clockwork
from tests.simulation.endings import Endings
from tests.simulation.money import Money
from tests.simulation.shadow import (
    DISPATCHED,
    ENDED,
    OUT,
    QUEUED,
    RUNNING,
    WAITING,
    Change,
    Commit,
    Row,
    Shadow,
)
from tests.simulation.truth import Truth, peek
from tests.simulation.weather import Layout
from workers.transport.tasks import NewTask
from workers.wire import INFER_TASK

STEPS = {
    QUEUED: {DISPATCHED, RUNNING} | ENDED,
    DISPATCHED: {QUEUED, RUNNING} | ENDED,
    RUNNING: {QUEUED} | ENDED,
}

_RATES = "SELECT prompt_fee, fee_per_token FROM model WHERE name = ?"
_WORKERS = (
    "SELECT instance, slots, strays, proven, hello, answered FROM worker "
    "WHERE state = 'alive' AND model = ?"
)


class Rules:
    """Raises `Broken` at the first commit or message that breaks a rule."""

    def __init__(self, time: Clockwork, shadow: Shadow, truth: Truth, layout: Layout) -> None:
        self._time = time
        self._shadow = shadow
        self._truth = truth
        self._layout = layout
        self._money = Money(shadow)
        self._endings = Endings(time, shadow, truth, layout)
        self._nonces: set[tuple[str, int, str]] = set()
        """Attempts that were committed."""
        self._settled: set[tuple[str, int, str]] = set()
        """(order, attempt, instance) whose outcome was taken in, and committed."""
        self._void: set[tuple[str, int, str]] = set()
        """The same, where it counted for nothing and the worker was told so."""
        self._clock = [0]
        self._heard_us = [0]
        self.inside = False
        """Whether a transaction is open."""

    def begin(self) -> None:
        """Watch from here on."""
        self._shadow.watch()
        self._money.begin()

    # At each commit

    def committed(self) -> None:
        """Judge what the last transaction changed."""
        commit = self._shadow.read()
        if commit is None:
            return
        self._judge_clock()
        if not commit.anything:
            return
        for change in commit.changes:
            self._judge(change)
        self._judge_dispatch([change.new for change in commit.changes if _dispatched(change)])
        self._judge_events(commit)
        self._judge_outbox(commit)
        for order_id in commit.purged:
            if self._shadow.by_id[order_id].open:
                raise Broken("purge", f"{order_id[:8]} is open and its text was deleted")
        self._judge_answers(commit)
        self._money.judge(commit)
        self._endings.judge(commit)

    def _judge(self, change: Change) -> None:
        old, new = change
        self._note(old, new)
        if old is None:
            if (new.state, new.attempt, new.tries, new.charged) != (QUEUED, 0, 0, 0):
                raise Broken("steps", f"order {new.seq} was born {new.state}")
            self._judge_rank(new)
            self._judge_rates(new)
            return
        if not old.open:
            same = old._replace(refunded=new.refunded) == new
            if not same or not old.refunded <= new.refunded <= new.charged:
                raise Broken("ends_once", f"order {new.seq} was {old.state} and changed")
            return
        if new.state != old.state and new.state not in STEPS[old.state]:
            raise Broken("steps", f"order {new.seq} went from {old.state} to {new.state}")
        if new.state in WAITING and new.state != old.state and old.call_off is not None:
            raise Broken("cancel", f"order {new.seq} was called off and waits again")
        self._judge_attempt(old, new)
        self._judge_binding(old, new)
        self._judge_bid(old, new)
        # What was handed back or never claimed is bounded on its own, beside the tries.
        for_nothing = new.dispatches - new.tries
        if new.tries > self._layout.max_attempts or for_nothing > self._layout.max_dispatches:
            raise Broken("tries", f"order {new.seq}: {new.tries} tries, {new.dispatches} sent")

    def _judge_attempt(self, old: Row, new: Row) -> None:
        if new.state == DISPATCHED and old.state != DISPATCHED:
            if new.attempt != old.attempt + 1 or new.nonce in (None, old.nonce):
                raise Broken("attempt", f"order {new.seq} was sent out as #{new.attempt} again")
            if new.worker is not None or not new.attempt_open or new.deadline_heard_s is None:
                raise Broken("attempt", f"order {new.seq} was sent out and is claimed or over")
            if new.instance is None:
                raise Broken("attempt", f"order {new.seq} was sent out to nobody")
            self._nonces.add((new.id, new.attempt, new.nonce or ""))
        elif (new.attempt, new.nonce) != (old.attempt, old.nonce):
            raise Broken("attempt", f"order {new.seq} became #{new.attempt} and was not sent out")
        if not old.attempt_open and new.attempt_open and new.attempt == old.attempt:
            raise Broken("attempt", f"order {new.seq}: #{new.attempt} was over and opened again")

    def _judge_binding(self, old: Row, new: Row) -> None:
        if new.attempt != old.attempt:
            return
        moved = old.instance is not None and new.instance != old.instance
        if moved and (new.instance is not None or new.open):
            raise Broken("binding", f"order {new.seq} went from {old.instance} to {new.instance}")
        if new.instance is not None and old.instance is None:
            raise Broken("binding", f"order {new.seq} was sent to {new.instance} afterwards")
        if new.worker is not None and old.worker is None:
            if (new.id, new.attempt, new.instance) not in self._truth.taken:
                raise Broken("binding", f"order {new.seq} is claimed by who was not given it")
            if not old.attempt_open:
                raise Broken("binding", f"order {new.seq} was bound after its attempt was over")
        if old.attempt_open and not new.attempt_open:
            instance = new.instance
            if instance is None and old.call_off and self._truth.came_to_nothing(old):
                instance = old.instance
            if instance is not None:
                if (new.id, new.attempt, instance) not in self._truth.outcomes:
                    raise Broken("binding", f"order {new.seq}: {instance} said nothing of its end")
                self._settled.add((new.id, new.attempt, instance))

    def _judge_bid(self, old: Row, new: Row) -> None:
        """Fee and rank change by a higher bid for what waits, and by nothing else."""
        if (new.fee, new.rank, new.hold_id) == (old.fee, old.rank, old.hold_id):
            return
        if old.state != QUEUED or new.state != QUEUED or new.fee <= old.fee:
            raise Broken("rebid", f"order {new.seq}, {old.state}: from {old.fee} to {new.fee}")
        if new.rank < old.rank:
            raise Broken("rank", f"order {new.seq} was bid higher and ranks lower")
        self._judge_rank(new)

    def _judge_rank(self, row: Row) -> None:
        need = row.prompt_fee + row.fee_per_token * (row.words + row.tokens)
        if row.needed != need or row.fee < need:
            raise Broken("price", f"order {row.seq} offers {row.fee} and needs {need}")
        if self._layout.policy.aging_s == 0 and row.rank != min(2**62, row.fee * 2**40 // need):
            raise Broken("rank", f"order {row.seq} ranks {row.rank}")

    def _judge_rates(self, row: Row) -> None:
        """A new order has the rates that stand, or those of a quote for just this order."""
        mine = Rates(row.prompt_fee, row.fee_per_token)
        stand = Rates(*self._shadow.rows(_RATES, row.model)[0])
        quoted = (
            quote
            for quote in self._truth.quotes
            if (quote.account, quote.words, quote.tokens) == (row.account, row.words, row.tokens)
        )
        if mine == stand or any(
            quote.rates == mine and row.submitted_us < quote.expires_s * 1_000_000
            for quote in quoted
        ):
            return
        raise Broken("price", f"order {row.seq} has rates that neither stand nor were quoted")

    def _judge_dispatch(self, sent: Sequence[Row]) -> None:
        for model in sorted({row.model for row in sent}):
            rows = [row for row in sent if row.model == model]
            self._judge_order_of_service(rows)
            self._judge_capacity(model, {row.instance for row in rows if row.instance})
            last = max(rows, key=lambda row: row.key)
            found = self._shadow.rows(
                "SELECT last_fee * ? = last_needed * ? FROM model WHERE name = ?",
                *(last.needed, last.fee, model),
            )
            if not found[0][0]:
                raise Broken("last_multiplier", f"it is not that of order {last.seq}")

    def _judge_order_of_service(self, sent: Sequence[Row]) -> None:
        worst = max(row.key for row in sent)
        now_us = sent[0].dispatched_us or 0
        for row in self._shadow.queued.values():
            if row.key < worst and row.model == sent[0].model:
                late = row.start_by_us is not None and row.start_by_us < now_us and not row.begun
                if not late:
                    raise Broken("order", f"order {row.seq} waits and a worse one was sent out")

    def _judge_capacity(self, model: str, sent_to: set[str]) -> None:
        """What a worker is sent never exceeds its free slots, and a message had reached it."""
        out_with = Counter(row.instance for row in self._shadow.out.values())
        here = {row[0]: row[1:] for row in self._shadow.rows(_WORKERS, model)}
        for instance in sorted(sent_to):
            if instance not in here:
                raise Broken("capacity", f"{instance} was sent an order and is not here")
            slots, strays, proven, hello, answered = here[instance]
            if hello != answered or (instance, answered) not in self._truth.greeted:
                raise Broken("capacity", f"{instance} was sent an order and no message reached it")
            room = slots + self._layout.lookahead if proven else 1
            if out_with[instance] + strays > room:
                raise Broken("capacity", f"{instance} has {out_with[instance]} of {room}")

    def _judge_events(self, commit: Commit) -> None:
        """What happened to an order is written down with it, once."""
        told = [(event.order_id, event.kind) for event in commit.events]
        for old, new in commit.changes:
            kind = None
            if old is None:
                kind = "submitted"
            elif new.state != old.state and (new.state in ENDED or new.state == DISPATCHED):
                kind = new.state
            if kind and told.count((new.id, kind)) != 1:
                raise Broken("event", f"order {new.seq}: {kind} was not written down with it")

    def _judge_outbox(self, commit: Commit) -> None:
        """A message is noted with its attempt, and forgotten once it is sent or of no use."""
        for change in commit.changes:
            if _dispatched(change):
                found = self._shadow.one(
                    "SELECT count(*) FROM outbox WHERE order_id = ? AND attempt = ?",
                    *(change.new.id, change.new.attempt),
                )
                if found != 1:
                    raise Broken("outbox", f"order {change.new.seq} was sent out without a message")
        for order_id, attempt in commit.unsent:
            row = self._shadow.by_id[order_id]
            if (row.state, row.attempt) == (DISPATCHED, attempt) and (
                (order_id, attempt) not in self._truth.published
            ):
                raise Broken("outbox", f"order {row.seq}: #{attempt} was forgotten and never sent")

    def _judge_answers(self, commit: Commit) -> None:
        """Who ordered by a message is told of the end with it, once, and nobody else is."""
        ended = [new for old, new in commit.changes if old is not None and old.open > new.open]
        due = sorted(row.id for row in ended if row.message is not None)
        if sorted(commit.told) != due:
            raise Broken("answer", f"{len(due)} orders were to be told of, and {commit.told} were")
        for _ in due:
            self._time.count("a message is answered")

    def _judge_clock(self) -> None:
        """The listening clock goes no faster than Redis's, whose clock may be set."""
        heard_s = self._shadow.one("SELECT heard_s FROM clock")
        if heard_s == self._clock[-1]:
            return
        if heard_s != self._clock[-1] + 1:
            raise Broken("clock", f"the listening clock went from {self._clock[-1]} to {heard_s}")
        self._clock.append(heard_s)
        self._heard_us.append(self._time.now_us)
        back = 6
        if len(self._heard_us) > back:
            passed_us = self._heard_us[-1] - self._heard_us[-1 - back]
            set_us = self._time.set_us.get("redis", 0)
            if passed_us < (back - 2) * 1_000_000 and set_us < self._heard_us[-1 - back]:
                raise Broken("clock", f"{back} s were listened in {passed_us / 1e6:.1f} s")

    # At each message

    def published(self, tasks: Iterable[NewTask]) -> None:
        """Only what was committed leaves for the broker."""
        for task in tasks:
            if task.task != INFER_TASK:
                continue
            _, body = peek(task.token)
            attempt = (body["order"], body["attempt"])
            if self.inside or (*attempt, body["nonce"]) not in self._nonces:
                raise Broken("published", f"{attempt[0][:8]} #{attempt[1]} was not committed")

    def told(self, instance: str, token: str) -> None:
        """Workers are told what is so, and committed."""
        kind, body = peek(token)
        if self.inside:
            raise Broken(kind, f"{instance} was told in the middle of a transaction")
        if kind == "confirm":
            for held in body["held"]:
                if (held["order"], held["attempt"], instance) not in self._settled:
                    raise Broken("confirm", f"{_name(held)} was confirmed and is not settled")
        elif kind == "stop":
            held = (body["held"]["order"], body["held"]["attempt"], instance)
            row = self._shadow.by_id.get(held[0])
            if body["reason"] == "void" and held in self._truth.outcomes and row is not None:
                if row.attempt > held[1] and held not in self._void:
                    self._time.count("a late answer of one sent out again is void")
                self._void.add(held)
            self._judge_stop(instance, body["held"], body["reason"])

    def _judge_stop(self, instance: str, held: dict[str, Any], reason: str) -> None:
        row = self._shadow.by_id.get(held["order"])
        if (
            row is None
            or not row.open
            or (row.attempt, row.nonce)
            != (
                held["attempt"],
                held["nonce"],
            )
        ):
            return
        late = not row.begun and row.start_by_us is not None
        if late and (row.start_by_us or 0) < self._time.clock_us():
            return
        if reason == "void" and row.attempt_open and row.instance in (None, instance):
            raise Broken("void", f"{_name(held)} is {instance}'s and was called void")
        if reason != "void" and row.call_off is None:
            raise Broken("stop", f"{_name(held)} was stopped, {reason}, and nobody had asked")

    def announced(self, orders: Iterable[str]) -> None:
        """Only what ended is said to have ended."""
        for order_id in orders:
            row = self._shadow.by_id.get(order_id)
            if self.inside or row is None or row.open:
                raise Broken("announced", f"{order_id[:8]} has not ended")
            self._truth.announced.add(order_id)

    def told_of(self, accounts: Iterable[str]) -> None:
        """Only what was committed is in an inbox."""
        if self.inside:
            raise Broken("announced", f"messages to {sorted(accounts)} were not committed")

    # For the history

    def _note(self, old: Row | None, new: Row) -> None:
        note: Callable[[str], None] = self._time.note
        if old is None:
            note(f"order {new.seq}: {new.id[:8]} of {new.account}, {new.fee} for {new.needed}")
        elif new.state != old.state:
            more = f" by {new.instance}" if new.instance else ""
            if not new.open:
                more += f", charged {new.charged} of {new.fee} for {new.generated}"
            note(f"order {new.seq}: {old.state} -> {new.state} #{new.attempt}{more}")
        elif new.fee != old.fee:
            note(f"order {new.seq}: {old.fee} -> {new.fee}")
        elif new.call_off != old.call_off:
            note(f"order {new.seq}: called off, {new.call_off}")


def _dispatched(change: Change) -> bool:
    old, new = change
    return (
        old is not None
        and new.state in OUT
        and new.dispatched_us is not None
        and (new.attempt != old.attempt or (new.state == DISPATCHED and old.state != DISPATCHED))
    )


def _name(held: dict[str, Any]) -> str:
    return f"{held['order'][:8]} #{held['attempt']}"
