"""The ledger as plain dictionaries, and a machine that drives both with whatever comes to mind.

Every example runs in one transaction that is rolled back, on books that were funded before it
began. Holds are drawn from the live ones, and what is broken into is chosen so that only the rule
under attack stands in the way: a machine that mostly tries what fails anyhow finds little.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

import hypothesis.strategies as st
import pytest
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from sqlalchemy.exc import IntegrityError

import ledger
from ledger import NewTransfer, Transfer
from tests.unit.ledger.ledger_support import Books, run, uid

CLIENTS = ("ada", "bob")
PAYEES = ("revenue", "bob")
COUNTERS = ("debits_posted", "credits_posted", "debits_pending", "credits_pending")

amounts = st.integers(1, 700)
picks = st.integers(0, 10_000)


@dataclass
class Model:
    """What the books should hold."""

    counters: dict[str, Counter[str]] = field(default_factory=dict)
    transfers: dict[str, Transfer] = field(default_factory=dict)
    resolved: dict[str, str] = field(default_factory=dict)  # hold -> post or void
    refunded: Counter[str] = field(default_factory=Counter)

    def available(self, name: str) -> int:
        c = self.counters[name]
        return c["credits_posted"] - c["debits_posted"] - c["debits_pending"]

    def affords(self, name: str, amount: int) -> bool:
        return name == "outside" or amount <= self.available(name)

    def write(self, t: Transfer) -> None:
        debit, credit = self.counters[t.debit], self.counters[t.credit]
        if t.kind == "pending":
            debit["debits_pending"] += t.amount
            credit["credits_pending"] += t.amount
        if t.hold_id is not None:
            held = self.transfers[t.hold_id].amount
            debit["debits_pending"] -= held
            credit["credits_pending"] -= held
            self.resolved[t.hold_id] = t.id
        if t.kind in ("direct", "post"):
            debit["debits_posted"] += t.amount
            credit["credits_posted"] += t.amount
        if t.reverses_id is not None:
            self.refunded[t.reverses_id] += t.amount
        self.transfers[t.id] = t

    def live(self) -> list[Transfer]:
        return [
            t for t in self.transfers.values() if t.kind == "pending" and t.id not in self.resolved
        ]

    def refundable(self) -> list[Transfer]:
        return [
            t
            for t in self.transfers.values()
            if t.kind in ("direct", "post") and t.reverses_id is None
        ]

    def left(self, t: Transfer) -> int:
        return t.amount - self.refunded[t.id]


class LedgerMachine(RuleBasedStateMachine):
    """Set `books` in a subclass."""

    books: Books

    def __init__(self) -> None:
        super().__init__()
        self.conn = self.books.engine.connect()
        self.conn.begin()
        self.book = self.books.book
        self.serial = 0
        self.model = Model()
        for name in ("outside", "ada", "bob", "revenue"):
            self.model.counters[name] = Counter()
        for name in CLIENTS:
            self.model.write(self.book.get_transfer(self.conn, uid("fund", name)))

    def teardown(self) -> None:
        try:
            report = self.book.audit(self.conn)
            assert report.drifts == ()
            assert report.transfers == len(self.model.transfers)
            assert report.open_holds == len(self.model.live())
            for t in self.model.transfers.values():
                assert self.book.get_transfer(self.conn, t.id) == t
            for name, counters in self.model.counters.items():
                entries = self.book.list_entries(self.conn, name)
                assert sum(e.amount for e in entries) == (
                    counters["credits_posted"] - counters["debits_posted"]
                )
                assert sum(e.pending for e in entries) == counters["debits_pending"]
        finally:
            self.conn.rollback()
            self.conn.close()

    def new_id(self) -> str:
        self.serial += 1
        return uid("machine", self.serial)

    def expect(self, error: type[Exception] | None, call) -> None:
        """The call succeeds and is written, or raises exactly that error and is not."""
        if error is not None:
            with pytest.raises(error):
                call()
            return
        made = call()
        for t in made if isinstance(made, list) else [made]:
            assert t.replayed == (t.id in self.model.transfers)
            if t.replayed:
                assert t == self.model.transfers[t.id]
            else:
                self.model.write(t)

    @invariant()
    def balances_agree(self):
        rows = run(self.conn, f"SELECT id, {', '.join(COUNTERS)} FROM ledger_account")
        for name, *found in rows.fetchall():
            assert found == [self.model.counters[name][c] for c in COUNTERS], name

    # What clients do

    @rule(who=st.sampled_from(CLIENTS), amount=amounts)
    def deposit(self, who, amount):
        ident = self.new_id()
        self.expect(None, lambda: self.book.deposit(self.conn, ident, who, amount, {"n": ident}))

    @rule(who=st.sampled_from(CLIENTS), amount=amounts)
    def withdraw(self, who, amount):
        error = None if self.model.affords(who, amount) else ledger.InsufficientFunds
        ident = self.new_id()
        self.expect(error, lambda: self.book.withdraw(self.conn, ident, who, amount))

    @rule(who=st.sampled_from(CLIENTS), to=st.sampled_from(PAYEES), amount=amounts)
    def transfer(self, who, to, amount):
        error = None if self.model.affords(who, amount) else ledger.InsufficientFunds
        if who == to:
            error = ledger.SameAccount
        ident = self.new_id()
        self.expect(error, lambda: self.book.transfer(self.conn, ident, who, to, amount))

    @rule(to=st.sampled_from(PAYEES), amounts=st.lists(amounts, min_size=1, max_size=4))
    def transfer_many(self, to, amounts):
        error = None if self.model.affords("ada", sum(amounts)) else ledger.InsufficientFunds
        batch = [NewTransfer(self.new_id(), "ada", to, amount) for amount in amounts]
        self.expect(error, lambda: self.book.transfer_many(self.conn, batch))

    @rule(to=st.sampled_from(PAYEES), amount=amounts)
    def hold(self, to, amount):
        error = None if self.model.affords("ada", amount) else ledger.InsufficientFunds
        ident = self.new_id()
        self.expect(error, lambda: self.book.hold(self.conn, ident, "ada", to, amount, {"a": "b"}))

    @precondition(lambda self: self.model.live())
    @rule(pick=picks, amount=st.none() | amounts)
    def post(self, pick, amount):
        hold = some(self.model.live(), pick)
        too_much = amount is not None and amount > hold.amount
        self.expect(
            ledger.ExceedsHoldAmount if too_much else None,
            lambda: self.book.post(self.conn, hold.id, amount),
        )

    @precondition(lambda self: self.model.live())
    @rule(pick=picks)
    def void(self, pick):
        hold = some(self.model.live(), pick)
        self.expect(None, lambda: self.book.void(self.conn, hold.id))

    @precondition(lambda self: self.model.live())
    @rule(spoilt=st.booleans(), pick=picks)
    def post_or_void_many(self, spoilt, pick):
        """All live holds at once; with one among them that was resolved the other way."""
        posting = pick % 2 == 0
        wrong = [
            hold
            for hold, by in self.model.resolved.items()
            if self.model.transfers[by].kind == ("void" if posting else "post")
        ]
        spoilt = spoilt and bool(wrong)
        holds = [t.id for t in self.model.live()] + ([some(wrong, pick)] if spoilt else [])
        if posting:
            error = ledger.HoldAlreadyVoided if spoilt else None
            self.expect(error, lambda: self.book.post_many(self.conn, [(h, 1) for h in holds]))
        else:
            error = ledger.HoldAlreadyPosted if spoilt else None
            self.expect(error, lambda: self.book.void_many(self.conn, holds))

    @precondition(lambda self: self.model.resolved)
    @rule(pick=picks, posting=st.booleans())
    def resolve_again(self, pick, posting):
        hold_id = some(list(self.model.resolved), pick)
        done = self.model.transfers[self.model.resolved[hold_id]]
        if posting:
            error = None if done.kind == "post" else ledger.HoldAlreadyVoided
            self.expect(error, lambda: self.book.post(self.conn, hold_id, done.amount))
        else:
            error = None if done.kind == "void" else ledger.HoldAlreadyPosted
            self.expect(error, lambda: self.book.void(self.conn, hold_id))

    @rule(pick=picks, amount=st.none() | amounts)
    def refund(self, pick, amount):
        paid = some(self.model.refundable(), pick)
        left = self.model.left(paid)
        ident, error = self.new_id(), None
        if left == 0 or (amount or 0) > left:
            error = ledger.ExceedsRefundable
        elif not self.model.affords(paid.credit, amount or left):
            error = ledger.InsufficientFunds
        self.expect(error, lambda: self.book.refund(self.conn, ident, paid.id, amount))

    @rule(pick=picks, more=st.integers(0, 1))
    def ask_again(self, pick, more):
        """The same id: with the same request a replay, with another amount a conflict."""
        t = some([t for t in self.model.transfers.values() if t.hold_id is None], pick)
        error = ledger.IdempotencyConflict if more else None
        if t.reverses_id is not None:
            if t.amount + more > self.model.transfers[t.reverses_id].amount:
                error = ledger.ExceedsRefundable
            call = lambda: self.book.refund(self.conn, t.id, t.reverses_id, t.amount + more)  # noqa: E731
        else:
            make = self.book.hold if t.kind == "pending" else self.book.transfer
            call = lambda: make(self.conn, t.id, t.debit, t.credit, t.amount + more, t.tags)  # noqa: E731
        self.expect(error, call)

    @rule(amount=amounts)
    def think_better_of_it(self, amount):
        """What the caller rolls back never was."""
        savepoint = self.conn.begin_nested()
        self.book.deposit(self.conn, uid("undone"), "ada", amount)
        hold = self.book.hold(self.conn, uid("undone too"), "ada", "revenue", amount)
        self.book.post(self.conn, hold.id)
        savepoint.rollback()

    # What a program that is not ours does, with the same database open

    @rule()
    def break_in(self):
        for name, sql, params in self.attempts():
            savepoint = self.conn.begin_nested()
            try:
                run(self.conn, sql, *params)
            except IntegrityError:
                continue
            finally:
                savepoint.rollback()
            raise AssertionError(f"the database let it through: {name}")

    def attempts(self):
        model = self.model
        ada = model.counters["ada"]
        for t in list(model.transfers.values())[:1]:
            yield "update", "UPDATE ledger_transfer SET amount = amount + 1 WHERE id = ?", (t.id,)
            yield "delete", "DELETE FROM ledger_transfer WHERE id = ?", (t.id,)
        over = model.available("ada") + 1
        yield "overdraft", *raw("direct", "ada", "revenue", over)
        yield "overdraft by hold", *raw("pending", "ada", "revenue", over)
        yield (
            "overdraft by update",
            "UPDATE ledger_account SET debits_posted = debits_posted + ? WHERE id = 'ada'",
            (over,),
        )
        for t in model.live():
            if model.available("ada") > 0:
                yield "post above hold", *raw("post", "ada", t.credit, t.amount + 1, t, t.amount)
            if t.amount > 1:
                yield "void in part", *raw("void", "ada", t.credit, t.amount - 1, t, t.amount)
                yield "post of a lie", *raw("post", "ada", t.credit, 1, t, t.amount - 1)
        for hold_id in model.resolved:
            t = model.transfers[hold_id]
            waiting = model.counters[t.credit]["credits_pending"]
            if t.amount <= min(ada["debits_pending"], waiting):
                yield "post twice", *raw("post", "ada", t.credit, t.amount, t, t.amount)
                yield "void twice", *raw("void", "ada", t.credit, t.amount, t, t.amount)
        for t in model.refundable():
            if model.affords(t.credit, model.left(t) + 1):
                back = replace(t, debit=t.credit, credit=t.debit)
                yield (
                    "refund above",
                    *raw("direct", back.debit, back.credit, model.left(t) + 1, reverses=t),
                )
            if model.affords("bob", 1) and model.left(t) and t.credit != "bob":
                yield "refund by another", *raw("direct", "bob", "ada", 1, reverses=t)


def some(items: list, pick: int):
    return items[pick % len(items)]


def raw(kind, debit, credit, amount, hold=None, held=None, reverses=None):
    sql = """
    INSERT INTO ledger_transfer (id, kind, debit, credit, amount, fingerprint, pending_id,
        pending_amount, reverses_id, tags, at_us)
    VALUES (?, ?, ?, ?, ?, '', ?, ?, ?, '{}', 0)
    """
    hold_id, reverses_id = hold and hold.id, reverses and reverses.id
    return sql, (uid("raw"), kind, debit, credit, amount, hold_id, held, reverses_id)
