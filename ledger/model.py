"""The ledger's nouns: frozen values that the callers read. Every amount is an integer of winston.

An account's balance is what came in less what went out; part of it may be held. A transfer is one
immutable row with one debit account, one credit account and one positive amount, so it balances by
construction; a split is several transfers in one transaction.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

MAX_WINSTON = 2**53 - 1
"""The largest amount of one transfer: what every JSON reader and every 64-bit column keep exact."""

MAX_BATCH = 1_000
"""The most transfers in one call of a batch form."""

MAX_PAGE = 1_000
"""The most entries in one page of a statement."""

MAX_ACCOUNT_ID = 200
MAX_ACCOUNT_KIND = 64
MAX_TAGS_JSON = 4_096
"""Characters. The same bounds stand in `sql/sqlite.sql`."""

Kind = Literal["direct", "pending", "post", "void"]
"""`direct` moves money, `pending` holds it, `post` takes a hold (or a part), `void` releases it."""


@dataclass(frozen=True, slots=True)
class Balance:
    """An account's balance, in winston: `available` is `posted` less what is held (`pending`)."""

    posted: int
    pending: int
    available: int


@dataclass(frozen=True, slots=True)
class Account:
    """An account. The counters are lifetime totals in winston and never negative."""

    id: str
    kind: str
    allow_overdraft: bool
    debits_posted: int
    credits_posted: int
    debits_pending: int
    credits_pending: int
    created_us: int

    @property
    def balance(self) -> Balance:
        """Money on its way in (`credits_pending`) is not the account's yet and counts nowhere."""
        posted = self.credits_posted - self.debits_posted
        return Balance(posted, self.debits_pending, posted - self.debits_pending)


@dataclass(frozen=True, slots=True)
class Transfer:
    """One row of the journal, as it was written.

    Attributes:
        id: The UUID that is its idempotency key.
        kind: See `Kind`.
        debit: The account that pays.
        credit: The account that receives.
        amount: Winston. Of a void: what was released, which is the whole hold.
        hold_id: Of a post or a void: the hold that it resolves.
        held: Of a post or a void: the winston that the hold was of.
        reverses_id: Of a refund: the transfer that it gives back, in part or whole.
        tags: The caller's own words.
        at_us: When, by the caller's clock, in microseconds since 1970 UTC.
        replayed: True if the transfer stood already and this call wrote nothing. Two transfers
            are equal whether or not one was replayed.
    """

    id: str
    kind: Kind
    debit: str
    credit: str
    amount: int
    hold_id: str | None
    held: int | None
    reverses_id: str | None
    tags: Mapping[str, str]
    at_us: int
    replayed: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class NewTransfer:
    """A direct transfer to be made by `Ledger.transfer_many`; `amount` is in winston."""

    id: str
    debit: str
    credit: str
    amount: int
    tags: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of an account's statement, signed from that account's side, in winston.

    Over the whole statement, `amount` adds up to the balance's `posted` and `pending` to its
    `pending`. A hold is (0, +held), a post of it (-amount, -held), a void (0, -held).

    Attributes:
        seq: Its place in the journal: the cursor for the next page.
        transfer_id: The transfer behind it.
        kind: The transfer's kind.
        counterparty: The account on the other side.
        amount: What it changed of the posted balance.
        pending: What it changed of the held part.
        hold_id: Of a post or a void: the hold.
        reverses_id: Of a refund: the transfer given back.
        tags: The caller's own words.
        at_us: When, in microseconds since 1970 UTC.
    """

    seq: int
    transfer_id: str
    kind: Kind
    counterparty: str
    amount: int
    pending: int
    hold_id: str | None
    reverses_id: str | None
    tags: Mapping[str, str]
    at_us: int


@dataclass(frozen=True, slots=True)
class Drift:
    """One thing that the audit found wrong: what `check` expected of `subject`, and found.

    Figures are winston, but where the check counts rows.
    """

    check: str
    subject: str
    expected: int
    found: int


@dataclass(frozen=True, slots=True)
class AuditReport:
    """The result of an audit, with every discrepancy; amounts in winston.

    Attributes:
        accounts: How many there are.
        transfers: How many there are.
        open_holds: Holds that nothing has resolved.
        circulating: The sum of the balances of all accounts that may not overdraw.
        outside: The sum of the balances of those that may: `-circulating` when all is well.
        held: The part of the balances that is held.
        drifts: Empty when all is well.
    """

    accounts: int
    transfers: int
    open_holds: int
    circulating: int
    outside: int
    held: int
    drifts: tuple[Drift, ...]

    @property
    def clean(self) -> bool:
        """Whether nothing was found."""
        return not self.drifts


@dataclass(frozen=True, slots=True)
class Totals:
    """The sums over all accounts, in winston, which say cheaply whether money is conserved.

    Attributes:
        accounts: How many there are.
        circulating: The sum of the balances of all accounts that may not overdraw.
        outside: The sum of the balances of those that may: `-circulating` when all is well.
        held: The part of the balances that is held.
        held_for: What the accounts that would be credited with it have noted of that.
        overdrawn: Accounts that have less than nothing, and may not; 0 when all is well.
    """

    accounts: int
    circulating: int
    outside: int
    held: int
    held_for: int
    overdrawn: int

    @property
    def imbalance(self) -> int:
        """What all accounts together have: each transfer gives one side what another loses."""
        return self.circulating + self.outside

    @property
    def imbalance_of_holds(self) -> int:
        """What is held on one side and not on the other."""
        return self.held_for - self.held
