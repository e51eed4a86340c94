"""Accounts as people know them, over the ledger's: names, deposits, statements, the audit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sqlalchemy import Connection

import ledger
from herder.accounts import api_keys
from herder.clock import clock_us
from herder.db.database import Database
from herder.domain.paging import MAX_HTTP_PAGE, Page, page_of
from herder.domain.parsing import parse_account
from herder.errors import (
    AccountExists,
    AccountNotFound,
    HerdUnavailable,
    IdempotencyKeyReused,
    InsufficientBalance,
    InvalidRequest,
    shown,
)
from herder.store import accounts as account_sql
from herder.store.accounts import Standing
from herder.types import NamedBalance, StatementEntry
from ledger import AuditReport, Balance, Entry, Ledger, Totals

OUTSIDE = "outside"
"""The ledger's account for the world: deposits come from it, withdrawals go to it."""


MAX_LIMIT = 10**12


def client_account(name: str) -> str:
    """Return the ledger's account behind an account's name."""
    return f"client:{name}"


@contextmanager
def money_errors(name: str) -> Iterator[None]:
    """Translate the ledger's errors into the herder's, for money that `name` pays."""
    try:
        yield
    except ledger.InsufficientFunds as error:
        raise InsufficientBalance(name, error.available, error.required) from None
    except ledger.AccountNotFound as error:
        raise AccountNotFound(error.account.removeprefix("client:")) from None
    except ledger.IdempotencyConflict as error:
        raise IdempotencyKeyReused(error.transfer_id, error.field) from None
    except (ledger.InvalidRequest, ledger.BalanceOutOfRange) as error:
        raise InvalidRequest(str(error).replace("client:", ""), **error.data) from None
    except ledger.LedgerBusy as error:
        raise HerdUnavailable("The database is busy; try again.") from error


def open_ledger(clock: Callable[[], int] = clock_us) -> Ledger:
    """Return the ledger, as this project uses it."""
    return Ledger(clock, OUTSIDE)


class Accounts:
    """Opens accounts and moves money between them and the outside."""

    def __init__(self, database: Database, books: Ledger, *, clock_us: Callable[[], int]) -> None:
        self._database = database
        self._ledger = books
        self._clock_us = clock_us

    def create(self, name: str) -> None:
        """Open an account with nothing in it.

        Raises:
            InvalidName: the name is not valid.
            AccountExists: the name is taken.
        """
        parse_account(name)
        now_us, tried = self._clock_us(), False

        def step(connection: Connection) -> None:
            nonlocal tried
            try:
                self._ledger.create_account(connection, client_account(name), "client")
            except ledger.AccountExists:
                if tried and account_sql.created_us(connection, name) == now_us:
                    return  # it was committed, and nobody heard of it
                raise AccountExists(name) from None
            account_sql.add_account(connection, name, now_us)
            tried = True

        self._database.settle(step)

    def set_limits(
        self, name: str, *, max_open_orders: int | None, tokens_per_minute: int | None
    ) -> None:
        """Give an account limits of its own: 0 for any number, None for the herd's.

        Raises:
            AccountNotFound: no account has that name.
            InvalidRequest: a limit is negative.
        """
        limits = {"max_open_orders": max_open_orders, "tokens_per_minute": tokens_per_minute}
        for limit, value in limits.items():
            if value is not None and (type(value) is not int or not 0 <= value <= MAX_LIMIT):
                raise InvalidRequest(
                    f"{limit} must be a whole number from 0 to {MAX_LIMIT}, not {shown(value)}."
                )
        if not self._database.settle(
            lambda connection: account_sql.set_limits(
                connection,
                name,
                max_open_orders=max_open_orders,
                tokens_per_minute=tokens_per_minute,
            )
        ):
            raise AccountNotFound(name)

    def balances(self) -> list[NamedBalance]:
        """Return every account with its balance, by name."""
        with self._database.read() as connection:
            return [
                _named(name, self._ledger.get_balance(connection, client_account(name)))
                for name in account_sql.names(connection)
            ]

    def page(self, after: str = "", limit: int = MAX_HTTP_PAGE) -> Page[NamedBalance, str]:
        """Return accounts with their balances, by name, a page at a time.

        Args:
            after: begin after this name.
            limit: how many at most.
        """
        with self._database.read() as connection:
            page = page_of(account_sql.names(connection, after, limit + 1), limit, str)
            balances = [
                _named(name, self._ledger.get_balance(connection, client_account(name)))
                for name in page.items
            ]
        return Page(balances, page.next)

    def standing(self, name: str) -> Standing:
        """Return an account's limits, its own or the herd's, and where it stands against them.

        Raises:
            AccountNotFound: no account has that name.
        """
        with self._database.read() as connection:
            found = account_sql.standing(connection, name)
        if found is None:
            raise AccountNotFound(name)
        return found

    def balance(self, name: str) -> NamedBalance:
        """Return an account's balance.

        Raises:
            AccountNotFound: no account has that name.
        """
        with self._database.read() as connection:
            return self.balance_now(connection, name)

    def deposit(self, name: str, amount: int, transfer_id: str, note: str = "") -> NamedBalance:
        """Bring money in from the outside.

        Args:
            name: the account that gets it.
            amount: winston.
            transfer_id: a UUID, the idempotency key.
            note: the operator's own words.

        Raises:
            AccountNotFound: no account has that name.
        """
        return self._move(
            name,
            lambda connection: self._ledger.deposit(
                connection, transfer_id, client_account(name), amount, _tags(note)
            ),
        )

    def withdraw(self, name: str, amount: int, transfer_id: str, note: str = "") -> NamedBalance:
        """Take money out; arguments as `deposit`.

        Raises:
            AccountNotFound: no account has that name.
            InsufficientBalance: it has less available.
        """
        return self._move(
            name,
            lambda connection: self._ledger.withdraw(
                connection, transfer_id, client_account(name), amount, _tags(note)
            ),
        )

    def transfer(
        self, payer: str, payee: str, amount: int, transfer_id: str, note: str = ""
    ) -> NamedBalance:
        """Move money from one account to another; the payer's balance is returned.

        Raises:
            AccountNotFound: no account has that name.
            InsufficientBalance: the payer has less available.
        """
        return self._move(
            payer,
            lambda connection: self._ledger.transfer(
                connection,
                transfer_id,
                client_account(payer),
                client_account(payee),
                amount,
                _tags(note),
            ),
        )

    def pay(
        self,
        connection: Connection,
        payer: str,
        payee: str,
        amount: int,
        transfer_id: str,
        *,
        api_key: str | None,
    ) -> None:
        """Move money from one client's account to another, in the caller's transaction.

        Args:
            connection: the transaction; a caller who goes on after a refusal does so from a
                savepoint. The accounts' own rows are locked already: their keys come after them,
                the ledger last.
            payer: who pays.
            payee: who is paid.
            amount: winston.
            transfer_id: a UUID, the idempotency key.
            api_key: the id of the key that it is spent with, if any: its limits count.

        Raises:
            AccountNotFound: no account has that name.
            InsufficientBalance: the payer has less available.
            InvalidRequest: the amount is not valid, or both are the same account.
            ApiKeyLimitReached, Unauthorized: the key may not spend that, or nothing any more.
        """
        api_keys.spend(connection, api_key, amount, self._clock_us())
        tags = None if api_key is None else {"api_key": api_key}
        with money_errors(payer):
            self._ledger.transfer(
                connection, transfer_id, client_account(payer), client_account(payee), amount, tags
            )

    def balance_now(self, connection: Connection, name: str) -> NamedBalance:
        """Do as `balance`, in the caller's transaction."""
        with money_errors(name):
            return _named(name, self._ledger.get_balance(connection, client_account(name)))

    def _move(self, name: str, move: Callable[[Connection], object]) -> NamedBalance:
        """Move money, and say what an account has then. Each move has an id, and is made once."""

        def step(connection: Connection) -> NamedBalance:
            with money_errors(name):
                move(connection)
                return _named(name, self._ledger.get_balance(connection, client_account(name)))

        return self._database.settle(step)

    def statement(self, name: str, after_seq: int = 0, limit: int = 100) -> list[Entry]:
        """Return an account's entries, oldest first, a page at a time.

        Raises:
            AccountNotFound: no account has that name.
        """
        with self._database.read() as connection, money_errors(name):
            return self._ledger.list_entries(connection, client_account(name), after_seq, limit)

    def audit(self) -> AuditReport:
        """Check each balance against its transfers, and the sum of all against zero."""
        with self._database.read() as connection:
            return self._ledger.audit(connection)

    def totals(self) -> Totals:
        """Return the sums over all accounts, which say cheaply whether money is conserved."""
        with self._database.read() as connection:
            return self._ledger.totals(connection)


def _tags(note: str) -> dict[str, str] | None:
    return {"note": note} if note else None


def _named(name: str, balance: Balance) -> NamedBalance:
    return NamedBalance(name, balance.posted, balance.pending, balance.available)


def what(entry: Entry) -> str:
    """Return an entry of a statement in one word, as the account's owner would call it."""
    if entry.reverses_id is not None:
        return "refund"
    if entry.kind == "direct":
        if "grant" in entry.tags:
            return "grant"
        if entry.counterparty == OUTSIDE:
            return "deposit" if entry.amount > 0 else "withdrawal"
        return "received" if entry.amount > 0 else "sent"
    return {"pending": "hold", "post": "charge", "void": "release"}[entry.kind]


def shown_entry(entry: Entry) -> StatementEntry:
    """Return an entry of a statement as the account's owner sees it."""
    kind = what(entry)
    other = entry.counterparty.removeprefix("client:") if kind in ("sent", "received") else None
    return StatementEntry(
        seq=entry.seq,
        transfer=entry.transfer_id,
        at_us=entry.at_us,
        kind=kind,
        amount=entry.amount,
        held=entry.pending,
        order=entry.tags.get("order"),
        counterparty=other,
        period=entry.tags.get("period"),
        note=entry.tags.get("note") or entry.tags.get("reason"),
    )
