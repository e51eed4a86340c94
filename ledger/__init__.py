"""Double-entry accounts on the caller's own database connection. README.md says what this is for.

book = Ledger(clock=lambda: time.time_ns() // 1000)
with engine.begin() as conn:
    create_schema(conn)
    book.create_account(conn, "outside", "outside", allow_overdraft=True)
    book.create_account(conn, "client:ada", "client")
    book.create_account(conn, "revenue:0", "revenue")
    book.deposit(conn, str(uuid4()), "client:ada", 1_000)
    hold = book.hold(conn, str(uuid4()), "client:ada", "revenue:0", 200)
    book.post(conn, hold.id, 150)  # 50 winston go back
"""

from ledger.book import Ledger
from ledger.errors import (
    AccountExists,
    AccountNotFound,
    BalanceOutOfRange,
    BatchTooLarge,
    ExceedsHoldAmount,
    ExceedsRefundable,
    HoldAlreadyPosted,
    HoldAlreadyVoided,
    IdempotencyConflict,
    InsufficientFunds,
    InvalidAccountId,
    InvalidAmount,
    InvalidPage,
    InvalidRequest,
    InvalidTags,
    InvalidTransferId,
    LedgerBusy,
    LedgerError,
    LedgerFault,
    LedgerMisconfigured,
    NotAHold,
    NotRefundable,
    SameAccount,
    TransferNotFound,
)
from ledger.ids import derive, post_id, stripe, void_id
from ledger.model import (
    MAX_BATCH,
    MAX_PAGE,
    MAX_WINSTON,
    Account,
    AuditReport,
    Balance,
    Drift,
    Entry,
    NewTransfer,
    Totals,
    Transfer,
)
from ledger.schema import TABLE_PREFIX
from ledger.schema import create as create_schema
from ledger.sqlite import PRAGMAS as SQLITE_PRAGMAS

__all__ = [
    # The book and what it speaks of
    "Ledger",
    "Account",
    "AuditReport",
    "Balance",
    "Drift",
    "Entry",
    "NewTransfer",
    "Totals",
    "Transfer",
    # Ids that follow from others
    "derive",
    "post_id",
    "stripe",
    "void_id",
    # Setting up
    "create_schema",
    "SQLITE_PRAGMAS",
    "TABLE_PREFIX",
    # Bounds
    "MAX_BATCH",
    "MAX_PAGE",
    "MAX_WINSTON",
    # Refusals
    "LedgerError",
    "AccountExists",
    "AccountNotFound",
    "BalanceOutOfRange",
    "BatchTooLarge",
    "ExceedsHoldAmount",
    "ExceedsRefundable",
    "HoldAlreadyPosted",
    "HoldAlreadyVoided",
    "IdempotencyConflict",
    "InsufficientFunds",
    "InvalidAccountId",
    "InvalidAmount",
    "InvalidPage",
    "InvalidRequest",
    "InvalidTags",
    "InvalidTransferId",
    "LedgerBusy",
    "LedgerFault",
    "LedgerMisconfigured",
    "NotAHold",
    "NotRefundable",
    "SameAccount",
    "TransferNotFound",
]
