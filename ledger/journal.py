"""The journal: the one insert, the look-ups, and what a refusal by the database means."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import chain
from typing import Any

from sqlalchemy import Connection

from ledger.border import Violation, backend_for, fetch, savepoint, write
from ledger.errors import (
    AccountNotFound,
    BalanceOutOfRange,
    ExceedsRefundable,
    HoldAlreadyPosted,
    HoldAlreadyVoided,
    InsufficientFunds,
    LedgerError,
    LedgerFault,
)
from ledger.model import Account, Transfer
from ledger.requests import Draft, json_to_tags

_INSERT_HEAD = """
INSERT INTO ledger_transfer (
    id, kind, debit, credit, amount, fingerprint, pending_id, pending_amount, reverses_id, tags,
    at_us
) VALUES """
_ROW = "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_INSERT = _INSERT_HEAD + _ROW

_SELECT = """
SELECT id, kind, debit, credit, amount, pending_id, pending_amount, reverses_id, tags, at_us,
    fingerprint
FROM ledger_transfer
"""

_SELECT_ACCOUNT = """
SELECT id, kind, allow_overdraft, debits_posted, credits_posted, debits_pending, credits_pending,
    created_us
FROM ledger_account WHERE id = ?
"""

_SAME_KEY = ("ledger_transfer_id_key", "ledger_transfer_pending_id_key")


def insert(conn: Connection, draft: Draft) -> Transfer:
    """Write one transfer, or give back the one that stands under its id.

    The look-up for a replay happens only after the insert was refused: the usual case is one
    statement.

    Raises:
        LedgerError: What the refusal means; nothing was written.
    """
    try:
        write(conn, _INSERT, draft.row())
    except Violation as violation:
        return _replay_or_refuse(conn, draft, violation)
    return draft.transfer


def insert_many(conn: Connection, drafts: Sequence[Draft]) -> list[Transfer]:
    """Write all of them or none, in one statement, with all their accounts locked before.

    One statement with many rows, and not one row many times, because it undoes itself as a whole:
    on SQLite a SAVEPOINT around a hundred inserts costs as much as they do.

    If one is refused they are done again one by one, to say which, and to give back those that
    stood already.

    Raises:
        LedgerError: What the first refusal means; nothing was written.
    """
    if len(drafts) == 1:
        return [insert(conn, drafts[0])]
    if not drafts:
        return []
    lock_accounts(conn, _accounts(draft.transfer for draft in drafts))
    try:
        write(conn, _insert_rows(len(drafts)), tuple(chain.from_iterable(d.row() for d in drafts)))
    except Violation:
        with savepoint(conn):
            return [insert(conn, draft) for draft in drafts]
    return [draft.transfer for draft in drafts]


def lock_accounts(conn: Connection, account_ids: Iterable[str]) -> None:
    """Lock accounts, in the order of their ids, until the caller's transaction ends.

    Raises:
        LedgerBusy: Others hold one of them for too long.
    """
    query = backend_for(conn).lock_accounts
    if query is not None:
        fetch(conn, query, (sorted(set(account_ids)),))


def lock_holds(conn: Connection, hold_ids: Sequence[str]) -> None:
    """Lock the accounts of holds, likewise.

    Raises:
        LedgerBusy: Others hold one of them for too long.
    """
    if backend_for(conn).lock_accounts is not None:
        lock_accounts(conn, _accounts(find_many(conn, hold_ids).values()))


def _accounts(transfers: Iterable[Transfer]) -> Iterable[str]:
    return (name for transfer in transfers for name in (transfer.debit, transfer.credit))


@lru_cache(maxsize=64)
def _insert_rows(rows: int) -> str:
    return _INSERT_HEAD + ", ".join([_ROW] * rows)


def replay(draft: Draft, stored: Transfer, fingerprint: str) -> Transfer:
    """Return the transfer that stands under the draft's id, if the draft asks for the same.

    Raises:
        IdempotencyConflict: It asks for something else.
    """
    draft.require_same(stored, fingerprint)
    return replace(stored, replayed=True)


def find(conn: Connection, transfer_id: str) -> tuple[Transfer, str] | None:
    """Return a transfer and its fingerprint."""
    rows = fetch(conn, _SELECT + "WHERE id = ?", (transfer_id,))
    return (_transfer(rows[0]), rows[0].fingerprint) if rows else None


def find_many(conn: Connection, transfer_ids: Sequence[str]) -> dict[str, Transfer]:
    """Return those of the transfers that exist, by id."""
    if not transfer_ids:
        return {}
    marks = ",".join("?" * len(transfer_ids))
    rows = fetch(conn, f"{_SELECT}WHERE id IN ({marks})", tuple(transfer_ids))
    return {row.id: _transfer(row) for row in rows}


def find_resolution(conn: Connection, hold_id: str) -> Transfer | None:
    """Return the post or the void of a hold."""
    rows = fetch(conn, _SELECT + "WHERE pending_id = ?", (hold_id,))
    return _transfer(rows[0]) if rows else None


def find_account(conn: Connection, account_id: str) -> Account:
    """Return an account with its counters.

    Raises:
        AccountNotFound: No account has that id.
    """
    rows = fetch(conn, _SELECT_ACCOUNT, (account_id,))
    if not rows:
        raise AccountNotFound(account_id)
    ident, kind, allow_overdraft, *counters = rows[0]
    return Account(ident, kind, bool(allow_overdraft), *counters)


def refundable(conn: Connection, transfer: Transfer) -> int:
    """Return the part of a transfer, in winston, that can still be refunded."""
    rows = fetch(
        conn, "SELECT refunded FROM ledger_refundable WHERE transfer_id = ?", (transfer.id,)
    )
    refunded: int = rows[0].refunded if rows else 0
    return transfer.amount - refunded


def _transfer(row: Any) -> Transfer:
    (ident, kind, debit, credit, amount, hold_id, held, reverses_id, tags, at_us, _) = row
    return Transfer(
        ident, kind, debit, credit, amount, hold_id, held, reverses_id, json_to_tags(tags), at_us
    )


def _replay_or_refuse(conn: Connection, draft: Draft, violation: Violation) -> Transfer:
    """Return or raise what a refused insert means; the transaction is as before it."""
    if violation.name in _SAME_KEY:
        found = find(conn, draft.transfer.id)
        if found is not None:
            return replay(draft, *found)
    raise _meaning(conn, draft.transfer, violation) from violation


def _meaning(conn: Connection, ours: Transfer, violation: Violation) -> LedgerError:
    match violation.name:
        case name if name in _SAME_KEY and ours.hold_id is not None:
            resolution = find_resolution(conn, ours.hold_id)
            if resolution is not None and resolution.kind == "post":
                return HoldAlreadyPosted(ours.hold_id, resolution.id)
            if resolution is not None:
                return HoldAlreadyVoided(ours.hold_id, resolution.id)
        case "ledger_account_no_overdraft":
            # Of the two accounts only the debit one loses, and a post takes less than is held.
            available = find_account(conn, ours.debit).balance.available
            return InsufficientFunds(ours.debit, available, ours.amount)
        case "ledger_refundable_within_amount" if ours.reverses_id is not None:
            found = find(conn, ours.reverses_id)
            left = 0 if found is None else refundable(conn, found[0])
            return ExceedsRefundable(ours.reverses_id, left, ours.amount)
        case "foreign_key" | "ledger_transfer_debit_fk" | "ledger_transfer_credit_fk":
            find_account(conn, ours.debit)  # one of the two raises AccountNotFound
            find_account(conn, ours.credit)
        case name if name.startswith("ledger_account_") and name.endswith("_range"):
            return BalanceOutOfRange(ours.debit, ours.credit)
        case _:
            pass
    return LedgerFault(str(violation))
