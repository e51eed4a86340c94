"""The book of accounts: what callers do with money.

Every method works on the caller's connection and in the caller's transaction: it opens none,
commits none, and when it refuses it leaves what the caller did before as it was. Every transfer
has an id, which is its idempotency key: the same call again writes nothing and gives the first
transfer back, with `replayed` set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

from sqlalchemy import Connection

from ledger import audit, journal, statement
from ledger.border import Violation, write
from ledger.errors import AccountExists, BatchTooLarge, LedgerFault, TransferNotFound
from ledger.ids import account_text, post_id, transfer_key, void_id
from ledger.model import (
    MAX_BATCH,
    MAX_PAGE,
    Account,
    AuditReport,
    Balance,
    Entry,
    NewTransfer,
    Totals,
    Transfer,
)
from ledger.requests import draft_refund, draft_resolution, draft_transfer, within

_INSERT_ACCOUNT = """
INSERT INTO ledger_account (id, kind, allow_overdraft, created_us) VALUES (?, ?, ?, ?)
"""


class Ledger:
    """Double-entry accounts in a database that somebody else opens. It has no state of its own.

    Args:
        clock: Gives the time in whole microseconds since 1970 UTC; it is asked once a call.
        outside: The account that stands for the world: money enters and leaves through it. Whoever
            sets up the database creates it, with `allow_overdraft=True`.
    """

    def __init__(self, clock: Callable[[], int], outside: str = "outside") -> None:
        self._clock = clock
        self.outside = outside

    # Accounts

    def create_account(
        self, conn: Connection, account_id: str, kind: str, *, allow_overdraft: bool = False
    ) -> Account:
        """Create an empty account.

        Args:
            conn: The caller's connection.
            account_id: Any 1 to 200 printable characters of the caller's choosing.
            kind: What sort it is, in the caller's words (1 to 64 characters).
            allow_overdraft: Whether its balance may fall below zero: for the outside only.

        Raises:
            AccountExists: There is one of that id, whatever its kind.
            InvalidAccountId: The id or the kind is not such a text.
        """
        account_text("id", account_id)
        account_text("kind", kind)
        now_us = self._clock()
        try:
            write(conn, _INSERT_ACCOUNT, (account_id, kind, int(allow_overdraft), now_us))
        except Violation as violation:
            if violation.name == "ledger_account_id_key":
                raise AccountExists(account_id) from violation
            raise LedgerFault(str(violation)) from violation
        return Account(account_id, kind, bool(allow_overdraft), 0, 0, 0, 0, now_us)

    def get_account(self, conn: Connection, account_id: str) -> Account:
        """Return an account with its lifetime totals.

        Raises:
            AccountNotFound: No account has that id.
            InvalidAccountId: No account could have it.
        """
        return journal.find_account(conn, account_text("id", account_id))

    def get_balance(self, conn: Connection, account_id: str) -> Balance:
        """Return an account's balance, in winston.

        Posted, of which pending is held, the rest available.

        Raises:
            AccountNotFound: No account has that id.
            InvalidAccountId: No account could have it.
        """
        return self.get_account(conn, account_id).balance

    # Transfers of money that is there

    def transfer(
        self,
        conn: Connection,
        transfer_id: str,
        debit: str,
        credit: str,
        amount: int,
        tags: Mapping[str, str] | None = None,
    ) -> Transfer:
        """Move money from one account to another, at once.

        Args:
            conn: The caller's connection.
            transfer_id: A UUID as text: the idempotency key.
            debit: The account that pays.
            credit: The account that receives.
            amount: Winston, 1 to 2**53 - 1.
            tags: The caller's own words, kept with it.

        Raises:
            InsufficientFunds: `debit` has less available.
            AccountNotFound: One of the accounts does not exist.
            IdempotencyConflict: The id stands for another transfer.
            BalanceOutOfRange: An account's lifetime total would pass 2**62 - 1.
            SameAccount, InvalidAmount, InvalidTransferId, InvalidAccountId, InvalidTags: The call
                is wrong.
            LedgerBusy: Roll back, and do the transaction again.
        """
        asked = NewTransfer(transfer_id, debit, credit, amount, tags)
        return journal.insert(conn, draft_transfer("direct", asked, self._clock()))

    def transfer_many(self, conn: Connection, transfers: Sequence[NewTransfer]) -> list[Transfer]:
        """Move money many times, all or nothing, far faster than one by one.

        Raises:
            BatchTooLarge: More than `MAX_BATCH`.
            LedgerError: As `transfer`, for the first that is refused.
        """
        _require_batch(transfers)
        now_us = self._clock()
        drafts = [draft_transfer("direct", asked, now_us) for asked in transfers]
        return journal.insert_many(conn, drafts)

    def deposit(
        self,
        conn: Connection,
        transfer_id: str,
        account_id: str,
        amount: int,
        tags: Mapping[str, str] | None = None,
    ) -> Transfer:
        """Bring money in from the outside: `transfer` from the outside account.

        Raises:
            LedgerError: As `transfer`.
        """
        return self.transfer(conn, transfer_id, self.outside, account_id, amount, tags)

    def withdraw(
        self,
        conn: Connection,
        transfer_id: str,
        account_id: str,
        amount: int,
        tags: Mapping[str, str] | None = None,
    ) -> Transfer:
        """Take money out to the outside: `transfer` to the outside account.

        Raises:
            LedgerError: As `transfer`.
        """
        return self.transfer(conn, transfer_id, account_id, self.outside, amount, tags)

    # Holds

    def hold(
        self,
        conn: Connection,
        transfer_id: str,
        debit: str,
        credit: str,
        amount: int,
        tags: Mapping[str, str] | None = None,
    ) -> Transfer:
        """Reserve money for `credit`, until it is posted or voided. A hold does not expire.

        The arguments and errors are those of `transfer`. A refused hold leaves no trace: the same
        id succeeds after a deposit.
        """
        asked = NewTransfer(transfer_id, debit, credit, amount, tags)
        return journal.insert(conn, draft_transfer("pending", asked, self._clock()))

    def post(
        self,
        conn: Connection,
        hold_id: str,
        amount: int | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Transfer:
        """Take a hold, in part or whole; what is left of it is released. Its id is `post_id(hold)`.

        Args:
            conn: The caller's connection.
            hold_id: The hold.
            amount: Winston, at least 1 (to take nothing is `void`); None for the whole.
            tags: Laid over those of the hold.

        Raises:
            HoldAlreadyVoided: It was voided.
            IdempotencyConflict: It was posted, but with another amount or other tags.
            ExceedsHoldAmount: More than is held.
            TransferNotFound, NotAHold: There is no such hold.
            InvalidAmount, InvalidTransferId, InvalidTags: The call is wrong.
            LedgerBusy: Roll back, and do the transaction again.
        """
        return self._resolve(conn, "post", [(hold_id, amount)], tags)[0]

    def post_many(
        self, conn: Connection, posts: Sequence[tuple[str, int | None]]
    ) -> list[Transfer]:
        """Post many holds, all or nothing: pairs of a hold's id and an amount as in `post`.

        Raises:
            BatchTooLarge: More than `MAX_BATCH`.
            LedgerError: As `post`, for the first that is refused.
        """
        return self._resolve(conn, "post", posts, None)

    def void(
        self, conn: Connection, hold_id: str, tags: Mapping[str, str] | None = None
    ) -> Transfer:
        """Release a hold, whole. Its id is `void_id(hold)`.

        Args:
            conn: The caller's connection.
            hold_id: The hold.
            tags: Laid over those of the hold.

        Raises:
            HoldAlreadyPosted: It was posted.
            IdempotencyConflict: It was voided, but with other tags.
            TransferNotFound, NotAHold: There is no such hold.
            InvalidTransferId, InvalidTags: The call is wrong.
            LedgerBusy: Roll back, and do the transaction again.
        """
        return self._resolve(conn, "void", [(hold_id, None)], tags)[0]

    def void_many(self, conn: Connection, hold_ids: Sequence[str]) -> list[Transfer]:
        """Void many holds, all or nothing.

        Raises:
            BatchTooLarge: More than `MAX_BATCH`.
            LedgerError: As `void`, for the first that is refused.
        """
        return self._resolve(conn, "void", [(hold_id, None) for hold_id in hold_ids], None)

    # Waiting for others

    def lock_accounts(self, conn: Connection, account_ids: Iterable[str]) -> None:
        """Lock accounts now that later calls in the same transaction change.

        Two callers who take the same accounts call by call, each in its own order, wait for each
        other until the database gives one of them up. A single call locks what it needs in one
        order that holds for everybody, and so does a batch; a transaction of several calls locks
        all their accounts before the first. On SQLite there is one writer, and nothing to do.

        Args:
            conn: The caller's connection.
            account_ids: Those of the transfers to come; the unknown are passed over.

        Raises:
            LedgerBusy: Roll back, and do the transaction again.
        """
        journal.lock_accounts(conn, account_ids)

    def lock_holds(self, conn: Connection, hold_ids: Sequence[str]) -> None:
        """Lock the accounts of holds that later calls resolve: `lock_accounts`, by the holds' ids.

        Raises:
            BatchTooLarge: More than a batch of posts and one of voids.
            LedgerBusy: Roll back, and do the transaction again.
        """
        if len(hold_ids) > 2 * MAX_BATCH:
            raise BatchTooLarge(len(hold_ids), 2 * MAX_BATCH)
        journal.lock_holds(conn, hold_ids)

    # Giving back

    def refund(
        self,
        conn: Connection,
        refund_id: str,
        transfer_id: str,
        amount: int | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Transfer:
        """Give a transfer or a post back to who paid, in part or whole, never above its amount.

        Args:
            conn: The caller's connection.
            refund_id: A UUID as text: the idempotency key of this refund.
            transfer_id: What is given back.
            amount: Winston, at least 1; None for all that was not given back yet.
            tags: Laid over those of the transfer.

        Raises:
            ExceedsRefundable: More than is left of it; or nothing is.
            NotRefundable: It is a hold, a void, or a refund itself.
            TransferNotFound: There is no such transfer.
            InsufficientFunds: Who received it has spent it.
            IdempotencyConflict: The id stands for another transfer.
            InvalidAmount, InvalidTransferId, InvalidTags: The call is wrong.
            LedgerBusy: Roll back, and do the transaction again.
        """
        original = self.get_transfer(conn, transfer_id)
        found = journal.find(conn, transfer_key(refund_id))
        if found is None:
            left = journal.refundable(conn, original)
        else:  # a retry must meet the first refund, not find that nothing is left
            left = found[0].amount if amount is None else original.amount
        draft = draft_refund(refund_id, original, left, amount, tags, self._clock())
        return journal.insert(conn, draft) if found is None else journal.replay(draft, *found)

    # Reading

    def get_transfer(self, conn: Connection, transfer_id: str) -> Transfer:
        """Return a transfer as it was written.

        Raises:
            TransferNotFound: No transfer has that id.
            InvalidTransferId: No transfer could have it.
        """
        found = journal.find(conn, transfer_key(transfer_id))
        if found is None:
            raise TransferNotFound(transfer_id)
        return found[0]

    def list_entries(
        self, conn: Connection, account_id: str, after_seq: int = 0, limit: int = 100
    ) -> list[Entry]:
        """Return an account's statement, oldest first.

        Args:
            conn: The caller's connection.
            account_id: The account.
            after_seq: The `seq` of the last entry of the page before; 0 for the first page.
            limit: The most entries to give, 1 to `MAX_PAGE`.

        Raises:
            AccountNotFound: No account has that id.
            InvalidPage, InvalidAccountId: The call is wrong.
        """
        within("limit", limit, 1, MAX_PAGE)
        within("after_seq", after_seq, 0, 2**63 - 1)
        self.get_account(conn, account_id)
        return statement.entries(conn, account_id, after_seq, limit)

    def audit(self, conn: Connection) -> AuditReport:
        """Recompute every balance from the transfers, in SQL, and report every drift.

        It reads the whole journal, in the caller's transaction: give it one that only reads, so
        that nobody waits for it.
        """
        return audit.audit(conn)

    def totals(self, conn: Connection) -> Totals:
        """Return the sums over all accounts: whether money is conserved, without the journal.

        It reads every account and no transfer, so that it may be asked often. What the audit finds
        beyond that it does not: balances that are wrong on both sides alike.
        """
        return audit.totals(conn)

    def _resolve(
        self,
        conn: Connection,
        kind: Literal["post", "void"],
        asked: Sequence[tuple[str, int | None]],
        tags: Mapping[str, str] | None,
    ) -> list[Transfer]:
        """Post or void. The holds are read first: a hold never changes, so this races nobody."""
        _require_batch(asked)
        derive_id = post_id if kind == "post" else void_id
        ids = [derive_id(hold_id) for hold_id, _ in asked]
        holds = journal.find_many(conn, [hold_id for hold_id, _ in asked])
        now_us = self._clock()
        drafts = []
        for transfer_id, (hold_id, amount) in zip(ids, asked, strict=True):
            if hold_id not in holds:
                raise TransferNotFound(hold_id)
            drafts.append(draft_resolution(kind, transfer_id, holds[hold_id], amount, tags, now_us))
        return journal.insert_many(conn, drafts)


def _require_batch(items: Sequence[object]) -> None:
    if len(items) > MAX_BATCH:
        raise BatchTooLarge(len(items), MAX_BATCH)
