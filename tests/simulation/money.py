"""The rules about money, at each commit: what was held, charged and returned, and for what."""

from __future__ import annotations

from collections import Counter
from uuid import UUID, uuid5

from tests.simulation.clockwork import Broken
from tests.simulation.shadow import Change, Commit, Move, Row, Shadow

_ACCOUNTS = """
SELECT id, debits_posted, credits_posted, debits_pending, credits_pending FROM ledger_account
"""


class Money:
    """Money is conserved, and moves with its order or not at all."""

    def __init__(self, shadow: Shadow) -> None:
        self._shadow = shadow
        self._held: Counter[str] = Counter()
        """Fees of the open orders, by account."""
        self._open: Counter[str] = Counter()
        """How many there are."""
        self._charged: Counter[str] = Counter()
        self._refunded: Counter[str] = Counter()
        self._deposited: Counter[str] = Counter()

    def begin(self) -> None:
        """Take the accounts as they are before the first order."""
        for name, _, credits_posted, _, _ in self._shadow.rows(_ACCOUNTS):
            self._deposited[name] = credits_posted

    def judge(self, commit: Commit) -> None:
        """Compare what a commit did to orders with what it did to the ledger."""
        moved = {move.id: move for move in commit.moves}
        resolved: dict[str | None, Move] = {
            move.pending_id: move for move in commit.moves if move.pending_id
        }
        meant: set[str] = set()
        for change in commit.changes:
            meant |= self._judge_order(change, moved, resolved)
        for move in commit.moves:
            if move.id in meant:
                continue
            if move.kind != "direct":
                raise Broken("hold", f"{move.kind} of {move.amount} with no order of its own")
            self._judge_direct(move)
        if commit.moves or meant:
            self._judge_accounts()

    def _judge_order(
        self, change: Change, moved: dict[str, Move], resolved: dict[str | None, Move]
    ) -> set[str]:
        """The ids of the transfers that this order's change is the reason for."""
        old, new = change
        meant: set[str] = set()
        if old is None:
            meant.add(self._require_hold(new, moved))
            self._held[new.account] += new.fee
            self._open[new.account] += 1
        elif new.hold_id != old.hold_id or new.fee != old.fee:
            meant.add(self._require_hold(new, moved))
            void = resolved.get(old.hold_id)
            if void is None or void.kind != "void":
                raise Broken("rebid", f"order {new.seq} was bid anew and keeps its old hold")
            meant.add(void.id)
            self._held[new.account] += new.fee - old.fee
        if old is not None and old.open and not new.open:
            meant.add(self._require_end(new, resolved))
        if old is not None and new.refunded != old.refunded:
            self._refunded[new.account] += new.refunded - old.refunded
        return meant

    def _require_hold(self, row: Row, moved: dict[str, Move]) -> str:
        hold = moved.get(row.hold_id)
        wanted = str(uuid5(UUID(row.id), f"hold:{row.holds}"))
        if hold is None or hold.kind != "pending":
            raise Broken("hold", f"order {row.seq} was written without its hold")
        if (hold.amount, hold.debit, hold.id) != (row.fee, f"client:{row.account}", wanted):
            raise Broken("hold", f"order {row.seq}: {row.fee} offered, {hold.amount} held")
        return hold.id

    def _require_end(self, row: Row, resolved: dict[str | None, Move]) -> str:
        move = resolved.get(row.hold_id)
        if move is None:
            raise Broken("hold", f"order {row.seq} is {row.state} and its hold stands")
        wanted = ("post", row.charged) if row.charged else ("void", row.fee)
        if (move.kind, move.amount) != wanted:
            raise Broken(
                "charge", f"order {row.seq}: {wanted} was to be, {move.kind} {move.amount} was"
            )
        self._held[row.account] -= row.fee
        self._open[row.account] -= 1
        self._charged[row.account] += row.charged
        return move.id

    def _judge_direct(self, move: Move) -> None:
        if move.reverses_id is None:
            if move.debit != "outside":
                raise Broken("money", f"{move.amount} went from {move.debit} to {move.credit}")
            self._deposited[move.credit] += move.amount

    def _judge_accounts(self) -> None:
        """Every counter of the ledger, against what is known of the orders."""
        posted = pending = revenue = revenue_held = 0
        held = 0
        for name, paid, earned, paying, earning in self._shadow.rows(_ACCOUNTS):
            posted += earned - paid
            pending += earning - paying
            kind, _, account = name.partition(":")
            if kind == "revenue":
                revenue += earned - paid
                revenue_held += earning
            elif kind == "client":
                held += self._held[account]
                if paying != self._held[account]:
                    raise Broken("held", f"{account}: {paying} held, {self._held[account]} offered")
                if earned - paid - paying < 0:
                    raise Broken("money", f"{account} fell to {earned - paid - paying}")
                wanted = self._deposited[name] - self._charged[account] + self._refunded[account]
                if earned - paid != wanted:
                    raise Broken("money", f"{account} has {earned - paid} and should have {wanted}")
        if posted or pending:
            raise Broken("money", f"all accounts together have {posted}, and {pending} held")
        charged = self._charged.total() - self._refunded.total()
        if (revenue, revenue_held) != (charged, held):
            raise Broken("money", f"the herder has {revenue} of {charged}, holds {revenue_held}")
        for account, counted in self._shadow.rows("SELECT name, open_orders FROM account"):
            if counted != self._open[account]:
                raise Broken("open_orders", f"{account}: {counted}, not {self._open[account]}")
