"""The rules about ends and lapses: who may end an order, when, and what it is charged."""

from __future__ import annotations

from herder.store.lapses import TAKEN_S
from tests.simulation import webhooks
from tests.simulation.clockwork import Broken, Clockwork
from tests.simulation.shadow import (
    DISPATCHED,
    OUT,
    QUEUED,
    RUNNING,
    WAITING,
    Commit,
    Row,
    Shadow,
)
from tests.simulation.truth import Truth, text_of
from tests.simulation.weather import Layout
from workers.wire import Outcome

STATE_OF = {
    "stop": "completed",
    "length": "completed",
    "deadline": "expired",
    "cancelled": "cancelled",
}


TOO_MANY = {
    "too_many_attempts": "an order fails after too many tries",
    "too_many_dispatches": "an order fails after too many times out",
}


class Endings:
    """An order ends by its worker's outcome, or for a reason that there is."""

    def __init__(self, time: Clockwork, shadow: Shadow, truth: Truth, layout: Layout) -> None:
        self._time = time
        self._shadow = shadow
        self._truth = truth
        self._layout = layout
        self._leases: dict[int, int] = {}
        """Markers that herders had been given when an order's lease began."""
        self._runs: dict[int, int] = {}
        """The same for its run."""
        self._calls: dict[int, int] = {}
        """The same for its being called off."""

    def judge(self, commit: Commit) -> None:
        """Judge the lapses and the ends of a commit."""
        for old, new in commit.changes:
            if old is not None and old.open:
                if not new.open:
                    self._judge_end(old, new)
                    webhooks.judge_end(self._shadow, new)
                    self._count_end(old, new)
                elif old.state in OUT and new.state == QUEUED and new.attempt_open:
                    self._judge_lapse(old)
                    claimed = "" if old.state == RUNNING else " unclaimed"
                    self._time.count(f"an attempt lapses{claimed}")
                elif (old.state, new.state) == (QUEUED, RUNNING):
                    self._time.count("a late beat takes a lapsed order back")
            if new.state in OUT:
                if old is None or new.deadline_heard_s != old.deadline_heard_s:
                    self._leases[new.seq] = self._truth.markers
                if old is None or (new.attempt, new.worker) != (old.attempt, old.worker):
                    self._runs[new.seq] = self._truth.markers
                if old is None or new.call_off != old.call_off:
                    self._calls[new.seq] = self._truth.markers

    def _listened(self, since: dict[int, int], row: Row) -> int:
        """Seconds in which some herder listened since then, at most."""
        return self._truth.markers - since.get(row.seq, self._truth.markers)

    def _judge_lapse(self, old: Row) -> None:
        """Nothing lapses but in the silence that somebody listened to."""
        allowed = self._layout.claim_s if old.state == DISPATCHED else self._layout.lease_s
        state = self._shadow.one("SELECT state FROM worker WHERE instance = ?", old.instance)
        if old.state == DISPATCHED and state != "alive":
            allowed = TAKEN_S  # it takes no more
        listened = self._listened(self._leases, old)
        if listened < allowed:
            raise Broken("lease", f"order {old.seq} lapsed after {listened} s of {allowed}")

    def _count_end(self, old: Row, new: Row) -> None:
        """What kind of end it was."""
        said = new.instance is not None
        kind = ""
        if said and old.state == QUEUED:
            self._time.count("a late answer of a lapsed order counts")
        if new.state == "expired":
            kind = "an order expires over its worker's head"
            if said:
                kind = "an order expires by its worker's deadline"
            elif old.state in WAITING:
                kind = "an order expires unbegun"
        elif new.state == "cancelled" and old.call_off:
            how = "by its worker's word" if said else "without its worker"
            kind = f"a called-off order ends {how}"
        elif new.failure_code in TOO_MANY:
            kind = TOO_MANY[new.failure_code]
        if kind:
            self._time.count(kind)

    def _judge_end(self, old: Row, new: Row) -> None:
        expected = 0
        if new.finish_reason is not None and new.state != "failed":
            expected = self._charge_of_outcome(old, new)
        elif new.state == "failed":
            self._judge_failure(old, new)
        elif new.state == "completed":
            raise Broken("charge", f"order {new.seq} was completed by nobody")
        else:
            self._judge_withdrawal(old, new)
        if new.charged != expected:
            raise Broken("charge", f"order {new.seq}: {new.charged} charged, {expected} right")
        if new.charged + new.returned != new.fee:
            raise Broken("charge", f"order {new.seq}: {new.charged} and {new.returned}")

    def _charge_of_outcome(self, old: Row, row: Row) -> int:
        """What the table of charges says, of what the bound worker really delivered."""
        stored = self._shadow.one("SELECT answer FROM order_text WHERE order_id = ?", row.id) or ""
        said = (row.finish_reason, row.generated, stored)
        outcomes = self._truth.outcomes
        mine = outcomes.get((row.id, row.attempt, row.instance or ""))
        if mine is not None and old.call_off == "cancelled":
            mine = self._judge_delivered(row, mine, stored)
        if mine is None or said != (mine.finish_reason, mine.generated, mine.text):
            for (order_id, attempt, instance), other in outcomes.items():
                if order_id == row.id and said == (
                    *(other.finish_reason, other.generated, other.text),
                ):
                    raise Broken(
                        "binding",
                        f"order {row.seq} #{row.attempt} was {row.instance}'s and "
                        f"{instance} answered #{attempt}",
                    )
            if mine is not None and stored != mine.text:
                raise Broken("text", f"order {row.seq} was charged and its text is not stored")
            raise Broken("charge", f"order {row.seq}: nobody delivered {said[:2]}")
        if row.instance in self._truth.revoked:
            raise Broken("revoked", f"order {row.seq} was settled by a key that was revoked")
        if row.state != STATE_OF[row.finish_reason or ""]:
            raise Broken("charge", f"order {row.seq}: {row.finish_reason} made it {row.state}")
        if row.state == "completed" and row.charge_unused:
            return row.fee
        if row.state != "completed" and mine.generated == 0:
            return 0
        delivered = row.prompt_fee + row.fee_per_token * (row.words + mine.generated)
        return min(row.fee, -(-row.fee * delivered // row.needed))

    def _judge_delivered(self, row: Row, mine: Outcome, stored: str) -> Outcome:
        """What counts of the outcome of a cancelled order: what readers were given, and no more.

        A reader notes a piece before it hands it out: what it was about to hand out it may be
        charged, since it is given that with the order's end.
        """
        attempt = (row.id, row.attempt)
        given = min(mine.generated, self._truth.given.get(attempt, 0))
        noted = min(mine.generated, max(self._truth.noted.get(attempt, {}).values(), default=0))
        if row.finish_reason != "cancelled":
            if noted < mine.generated or not stored:
                raise Broken("delivered", f"order {row.seq} was not read to its end, and it counts")
            self._time.count("a called-off order had been read to its end")
            return mine
        if row.generated > noted:
            raise Broken(
                "delivered", f"order {row.seq}: {row.generated} are charged, {noted} were read"
            )
        if row.generated < given:
            raise Broken("unpaid", f"order {row.seq}: {given} were read, {row.generated} charged")
        if stored != text_of(row.instance or "", row.attempt, row.generated):
            raise Broken("text", f"order {row.seq} keeps more or less than was charged")
        how = "is paid as far as it was read" if row.generated else "that nobody read costs nothing"
        self._time.count(f"a called-off order {how}")
        return mine.model_copy(
            update={"finish_reason": "cancelled", "generated": row.generated, "text": stored}
        )

    def _judge_failure(self, old: Row, new: Row) -> None:
        """It fails by its worker's word, or after the last try that it had."""
        code = new.failure_code
        outcome = self._truth.outcomes.get((new.id, new.attempt, new.instance or ""))
        if code == "too_many_attempts" and new.tries < self._layout.max_attempts:
            raise Broken("tries", f"order {new.seq} failed after {new.tries} tries")
        if code == "too_many_dispatches" and new.dispatches < self._layout.max_dispatches:
            raise Broken("tries", f"order {new.seq} failed after {new.dispatches} times out")
        if code in ("too_many_attempts", "too_many_dispatches") and outcome is None:
            self._judge_lapse(old)
        elif outcome is None or outcome.result == "completed":
            raise Broken("charge", f"order {new.seq} failed ({code}) and no worker said so")

    def _judge_withdrawal(self, old: Row, new: Row) -> None:
        """Cancelled or expired with no answer: while it waited, or its worker was lost."""
        waited = old.state in WAITING
        if new.state == "cancelled":
            if new.id not in self._truth.called_off:
                raise Broken("cancel", f"order {new.seq} was cancelled and nobody had asked")
            if waited:
                return
        elif waited:
            if old.begun:
                raise Broken("start_by", f"order {new.seq} had begun and expired")
            if new.start_by_us is None or (new.ended_us or 0) < new.start_by_us:
                raise Broken("start_by", f"order {new.seq} expired before its time")
            return
        if old.call_off and self._truth.came_to_nothing(old):
            return
        lease_s = self._layout.lease_s
        if self._listened(self._runs, old) >= lease_s + (old.run_limit_s or 0):
            return
        if old.call_off is None:
            raise Broken("run_limit", f"order {new.seq} was {new.state} over its worker's head")
        listened = max(self._listened(self._calls, old), self._listened(self._leases, old))
        if listened < lease_s:
            raise Broken("lease", f"order {new.seq} was given up after {listened} s of {lease_s}")
