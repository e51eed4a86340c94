"""The ledger's errors: one tree, each with a sentence, a code and its data.

LedgerError
├── InvalidRequest            the call is wrong, whatever the books say
│   ├── InvalidAmount, InvalidAccountId, InvalidTransferId, InvalidTags, InvalidPage
│   ├── BatchTooLarge
│   └── SameAccount
├── AccountNotFound, AccountExists
├── TransferNotFound, NotAHold, NotRefundable
├── InsufficientFunds, ExceedsHoldAmount, ExceedsRefundable, BalanceOutOfRange
├── HoldAlreadyPosted, HoldAlreadyVoided
├── IdempotencyConflict       this id already stands for another transfer
├── LedgerBusy                retryable: roll back and do the whole transaction again
├── LedgerMisconfigured       the connection would not enforce the rules
└── LedgerFault               the database refused in a way that the ledger has no word for

A refusal leaves the caller's transaction as it was and usable, but for LedgerBusy and LedgerFault,
after which only a rollback is safe. Nothing is remembered of a refusal: the same id may be tried
again, and succeeds once the reason is gone.
"""

from __future__ import annotations

import copyreg
from typing import Any, ClassVar


class LedgerError(Exception):
    """The root. `code` is stable; the data of each error are its attributes, and `data` in one."""

    code: ClassVar[str] = "ledger_error"
    sentence: ClassVar[str] = "The ledger refused the call."
    retryable: ClassVar[bool] = False

    @property
    def data(self) -> dict[str, Any]:
        """The attributes that the sentence is made of."""
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}

    def __str__(self) -> str:
        return self.sentence.format(**vars(self))

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel to other processes by what it carries, not by the caller's own objects."""
        made_of = tuple(self.data.values())
        return copyreg.__newobj__, (type(self), *made_of), vars(self)  # type: ignore[attr-defined]


class InvalidRequest(LedgerError):
    """The call is wrong, whatever the books say."""

    code = "ledger_invalid_request"
    sentence = "The call is invalid."


class InvalidAmount(InvalidRequest):
    """Raised when an amount is not an integer (bool and float are not), or out of range.

    A post of 0 is one of these: a hold that is charged nothing is voided.
    """

    code = "ledger_invalid_amount"
    sentence = "An amount must be an integer from 1 to {most} winston, not {amount}."

    def __init__(self, amount: object, most: int) -> None:
        super().__init__(amount, most)
        self.amount = repr(amount)[:40]
        self.most = most


class InvalidAccountId(InvalidRequest):
    """An account's id or kind is empty, too long, or holds control characters."""

    code = "ledger_invalid_account_id"
    sentence = "An account's {field} must be 1 to {most} printable characters, not {value}."

    def __init__(self, field: str, value: object, most: int) -> None:
        super().__init__(field, value, most)
        self.field = field
        self.value = repr(value)[:80]
        self.most = most


class InvalidTransferId(InvalidRequest):
    """Raised when a transfer's id is not a UUID in canonical text: lower case, with hyphens."""

    code = "ledger_invalid_transfer_id"
    sentence = "A transfer's id must be a UUID as lower-case text with hyphens, not {value}."

    def __init__(self, value: object) -> None:
        super().__init__(value)
        self.value = repr(value)[:80]


class InvalidTags(InvalidRequest):
    """Raised when tags are not a mapping of strings to strings, or too long."""

    code = "ledger_invalid_tags"
    sentence = "Tags must map strings to strings, at most {most} characters as JSON: {reason}."

    def __init__(self, reason: str, most: int) -> None:
        super().__init__(reason, most)
        self.reason = reason
        self.most = most


class InvalidPage(InvalidRequest):
    """Raised when a page's `limit` or `after_seq` is not an integer within bounds."""

    code = "ledger_invalid_page"
    sentence = "A page's {field} must be an integer from {least} to {most}, not {value}."

    def __init__(self, field: str, value: object, least: int, most: int) -> None:
        super().__init__(field, value, least, most)
        self.field = field
        self.value = repr(value)[:40]
        self.least = least
        self.most = most


class BatchTooLarge(InvalidRequest):
    """More transfers in one call than the ledger takes."""

    code = "ledger_batch_too_large"
    sentence = "A batch may have at most {most} transfers, not {size}."

    def __init__(self, size: int, most: int) -> None:
        super().__init__(size, most)
        self.size = size
        self.most = most


class SameAccount(InvalidRequest):
    """A transfer from an account to itself."""

    code = "ledger_same_account"
    sentence = "{account} cannot pay itself."

    def __init__(self, account: str) -> None:
        super().__init__(account)
        self.account = account


class AccountNotFound(LedgerError):
    """No account has this id."""

    code = "ledger_account_not_found"
    sentence = "There is no account {account}."

    def __init__(self, account: str) -> None:
        super().__init__(account)
        self.account = account


class AccountExists(LedgerError):
    """An account with this id was created before."""

    code = "ledger_account_exists"
    sentence = "Account {account} already exists."

    def __init__(self, account: str) -> None:
        super().__init__(account)
        self.account = account


class TransferNotFound(LedgerError):
    """No transfer has this id."""

    code = "ledger_transfer_not_found"
    sentence = "There is no transfer {transfer_id}."

    def __init__(self, transfer_id: str) -> None:
        super().__init__(transfer_id)
        self.transfer_id = transfer_id


class NotAHold(LedgerError):
    """Only a hold can be posted or voided."""

    code = "ledger_not_a_hold"
    sentence = "Transfer {transfer_id} is of kind {kind}: only a hold can be posted or voided."

    def __init__(self, transfer_id: str, kind: str) -> None:
        super().__init__(transfer_id, kind)
        self.transfer_id = transfer_id
        self.kind = kind


class NotRefundable(LedgerError):
    """Only what moved money can be refunded, and a refund cannot."""

    code = "ledger_not_refundable"
    sentence = (
        "Transfer {transfer_id} is a {kind}: only a direct transfer or a post can be refunded."
    )

    def __init__(self, transfer_id: str, kind: str) -> None:
        super().__init__(transfer_id, kind)
        self.transfer_id = transfer_id
        self.kind = kind


class InsufficientFunds(LedgerError):
    """An account that may not overdraw has less available than the transfer takes."""

    code = "ledger_insufficient_funds"
    sentence = "Account {account} has {available} winston available, but {required} are required."

    def __init__(self, account: str, available: int, required: int) -> None:
        super().__init__(account, available, required)
        self.account = account
        self.available = available
        self.required = required


class ExceedsHoldAmount(LedgerError):
    """A post takes more than its hold: the overrun would be a transfer of its own."""

    code = "ledger_exceeds_hold_amount"
    sentence = "Hold {hold_id} is for {held} winston; {required} cannot be posted."

    def __init__(self, hold_id: str, held: int, required: int) -> None:
        super().__init__(hold_id, held, required)
        self.hold_id = hold_id
        self.held = held
        self.required = required


class ExceedsRefundable(LedgerError):
    """A refund takes more than is left of its transfer."""

    code = "ledger_exceeds_refundable"
    sentence = (
        "Only {refundable} winston of transfer {transfer_id} can be refunded, not {required}."
    )

    def __init__(self, transfer_id: str, refundable: int, required: int) -> None:
        super().__init__(transfer_id, refundable, required)
        self.transfer_id = transfer_id
        self.refundable = refundable
        self.required = required


class BalanceOutOfRange(LedgerError):
    """An account's lifetime total would pass 2**62 - 1 winston."""

    code = "ledger_balance_out_of_range"
    sentence = "The totals of {debit} or {credit} would exceed what the ledger can count."

    def __init__(self, debit: str, credit: str) -> None:
        super().__init__(debit, credit)
        self.debit = debit
        self.credit = credit


class HoldAlreadyPosted(LedgerError):
    """The hold was posted before, by the transfer `resolved_by`."""

    code = "ledger_hold_already_posted"
    sentence = "Hold {hold_id} was already posted by {resolved_by}."

    def __init__(self, hold_id: str, resolved_by: str) -> None:
        super().__init__(hold_id, resolved_by)
        self.hold_id = hold_id
        self.resolved_by = resolved_by


class HoldAlreadyVoided(LedgerError):
    """The hold was voided before, by the transfer `resolved_by`."""

    code = "ledger_hold_already_voided"
    sentence = "Hold {hold_id} was already voided by {resolved_by}."

    def __init__(self, hold_id: str, resolved_by: str) -> None:
        super().__init__(hold_id, resolved_by)
        self.hold_id = hold_id
        self.resolved_by = resolved_by


class IdempotencyConflict(LedgerError):
    """The id stands for another transfer already: `field` is the first that differs."""

    code = "ledger_idempotency_conflict"
    sentence = "Transfer {transfer_id} already exists with another {field}: {stored}, not {asked}."

    def __init__(self, transfer_id: str, field: str, stored: object, asked: object) -> None:
        super().__init__(transfer_id, field, stored, asked)
        self.transfer_id = transfer_id
        self.field = field
        self.stored = stored
        self.asked = asked


class LedgerBusy(LedgerError):
    """Others hold the locks, or the connection is lost: nothing is committed by this transaction.

    Roll back, wait a little, do the whole transaction again.
    """

    code = "ledger_busy"
    sentence = "The books are busy: {reason}."
    retryable = True

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class LedgerMisconfigured(LedgerError):
    """The connection would not enforce what the ledger relies on."""

    code = "ledger_misconfigured"
    sentence = "The database connection is not safe for money: {reason}."

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class LedgerFault(LedgerError):
    """The database refused in a way that the ledger has no word for; the cause is attached."""

    code = "ledger_fault"
    sentence = "The database failed the ledger: {reason}."

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
