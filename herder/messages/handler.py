"""The message interface: takes messages, and does what they ask, each in one transaction.

A message is taken at once and answered in its sender's inbox, as the original did; what it may say
and what is said back stands in `herder/messages/tags.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol
from uuid import UUID, uuid5

from sqlalchemy import Connection

from herder.accounts.accounts import Accounts
from herder.db.database import Database
from herder.db.outages import CommitUnknown
from herder.domain import fingerprint
from herder.domain.ids import new_uuid
from herder.domain.order import Order, OrderRequest
from herder.domain.parsing import parse_key
from herder.errors import (
    ApiKeyLimitReached,
    IdempotencyKeyReused,
    InsufficientBalance,
    InvalidRequest,
    NotFound,
    RateLimited,
)
from herder.messages import tags as words
from herder.messages.inbox import OutgoingMessage, deliver
from herder.messages.tags import Asked, BalanceAsked, InfoAsked, Payment, Prompted
from herder.store import accounts as account_sql
from herder.store import messages as message_sql
from herder.store import models as model_sql
from herder.store import orders as order_sql
from herder.store.messages import Keyed
from herder.types import Info

_REFUSALS = (InvalidRequest, NotFound, InsufficientBalance, ApiKeyLimitReached, RateLimited)
"""Refusals that are answered in the inbox: the message was understood, and is not granted."""


class OrderTaker(Protocol):
    """Takes orders: `herder.orders.intake.OrderIntake`, handed in as orders write to inboxes."""

    def take(self, connection: Connection, order_id: str, call: OrderRequest) -> Order:
        """Take an order in the caller's transaction."""


class Informant(Protocol):
    """Says how the herd stands: `herder.market.quotes.Quotes`."""

    def info(self) -> Info:
        """Read rates, queues and workers."""


@dataclass(frozen=True, slots=True)
class Taken:
    """A message that was taken.

    Attributes:
        id: the message's.
        order: the order that it became, or None.
        model: whose book grew by it, or None.
        told: accounts whose inbox has more by it already.
    """

    id: str
    order: str | None = None
    model: str | None = None
    told: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Sent:
    """A message on its way, with the ids that were drawn for it."""

    id: str
    order_id: str
    account: str
    api_key: str | None
    asked: Asked

    def answer(self, tags: dict[str, str]) -> OutgoingMessage:
        """Return an answer to its sender."""
        return OutgoingMessage(self.account, tags, self.id)


class Messages:
    """Takes messages. Safe among threads and among processes on one database."""

    def __init__(
        self,
        database: Database,
        intake: OrderTaker,
        accounts: Accounts,
        quotes: Informant,
        *,
        max_prompt_bytes: int,
        clock_us: Callable[[], int],
        new_id: Callable[[], str] = new_uuid,
    ) -> None:
        self._database = database
        self._intake = intake
        self._accounts = accounts
        self._quotes = quotes
        self._max_prompt_bytes = max_prompt_bytes
        self._clock_us = clock_us
        self._new_id = new_id

    def send(
        self,
        body: object,
        *,
        account: str,
        api_key: str | None = None,
        idempotency_key: str | None = None,
    ) -> Taken:
        """Take a message: what it asks is done, and answered if it can be, in one transaction.

        Args:
            body: the tags, as an object, or as a list of `{"name": …, "value": …}`.
            account: who sends it.
            api_key: the id of the API key that it was sent with.
            idempotency_key: the same key with the same message is that message, and answered once,
                be it by a refusal.

        Raises:
            InvalidMessage: the message is not valid.
            IdempotencyKeyReused: the idempotency key stands for another message.
            Unauthorized: the API key opens nothing any more.
            AccountNotFound: no account has that name.
            CommitUnknown: the database was lost while it took the message, and stayed away: `order`
                of its data is the id of the order that it may have become, or None.
        """
        tags = words.parse_tags(body)
        key = parse_key(idempotency_key)
        asked = words.parse_message(
            tags, account=account, api_key=api_key, max_prompt_bytes=self._max_prompt_bytes
        )
        sent = _Sent(self._new_id(), self._new_id(), account, api_key, asked)
        told = self._told_info(sent)
        mark = fingerprint.of_tags(tags)

        tried: Taken | None = None

        def step(connection: Connection) -> Taken:
            nonlocal tried
            # Whoever took it a moment ago, and was cut off, has these locks until that is done.
            self._lock(connection, sent)
            if tried is not None and _was_taken(connection, sent):
                return tried
            before = None if key is None else message_sql.find_key(connection, account, key)
            if before is not None:
                if before.fingerprint != mark:
                    raise IdempotencyKeyReused(str(key), "tags")
                return Taken(before.message, before.order_id)
            taken, letters = self._answer(connection, sent, told)
            now_us = self._clock_us()
            deliver(connection, letters, now_us)
            if key is not None:
                keyed = Keyed(mark, taken.id, taken.order)
                message_sql.add_key(connection, account, key, keyed, now_us)
            tried = replace(taken, told=tuple({letter.account for letter in letters}))
            return tried

        try:
            return self._database.settle(step)
        except CommitUnknown as error:
            raise _unknown(sent) from error

    def _lock(self, connection: Connection, sent: _Sent) -> None:
        """Lock what it will write to, in the order that holds for everybody."""
        names = {sent.account}
        if isinstance(sent.asked, Prompted):
            model_sql.share_policy(connection)
        elif isinstance(sent.asked, Payment) and sent.asked.wrong is None:
            names.add(sent.asked.payee)
        account_sql.lock_all(connection, names)

    def _told_info(self, sent: _Sent) -> list[OutgoingMessage]:
        """Return the answer to `Info`, which is read in a transaction of its own."""
        if not isinstance(sent.asked, InfoAsked):
            return []
        return [sent.answer(words.info_tags(self._quotes.info()))]

    def _answer(
        self, connection: Connection, sent: _Sent, told: list[OutgoingMessage]
    ) -> tuple[Taken, list[OutgoingMessage]]:
        match sent.asked:
            case Prompted():
                return self._order(connection, sent, sent.asked)
            case Payment():
                return Taken(sent.id), self._pay(connection, sent, sent.asked)
            case BalanceAsked():
                found = self._accounts.balance_now(connection, sent.account)
                return Taken(sent.id), [sent.answer(words.balance_tags(found))]
            case InfoAsked():
                return Taken(sent.id), told

    def _order(
        self, connection: Connection, sent: _Sent, asked: Prompted
    ) -> tuple[Taken, list[OutgoingMessage]]:
        """Submit what is asked; a refusal leaves nothing but its answer."""
        try:
            if isinstance(asked.call, InvalidRequest):
                raise asked.call
            with connection.begin_nested():
                call = replace(asked.call, message=sent.id)
                order = self._intake.take(connection, sent.order_id, call)
        except _REFUSALS as error:
            refused = sent.answer(words.returned_tags(asked, sent.account, error))
            return Taken(sent.id), [refused]
        return Taken(sent.id, order.id, order.model), []

    def _pay(self, connection: Connection, sent: _Sent, asked: Payment) -> list[OutgoingMessage]:
        """Move money to another account, and tell both."""
        try:
            if asked.wrong is not None:
                raise asked.wrong
            with connection.begin_nested():
                self._accounts.pay(
                    connection,
                    sent.account,
                    asked.payee,
                    asked.amount,
                    str(uuid5(UUID(sent.id), "transfer")),
                    api_key=sent.api_key,
                )
        except _REFUSALS as error:
            return [sent.answer(words.error_tags(asked, sent.id, error))]
        credit = OutgoingMessage(asked.payee, words.credit_tags(asked, sent.account), None)
        return [sent.answer(words.debit_tags(asked)), credit]


def _was_taken(connection: Connection, sent: _Sent) -> bool:
    """Return whether a message was taken: each leaves an order, or a letter to its sender."""
    if order_sql.get_order(connection, sent.order_id) is not None:
        return True
    return message_sql.is_answered(connection, sent.account, sent.id)


def _unknown(sent: _Sent) -> CommitUnknown:
    """Return the error of a message of which nobody knows whether it was taken."""
    order_id = sent.order_id if isinstance(sent.asked, Prompted) else None
    where = f"an answer to {sent.id} in its sender's inbox"
    if order_id is not None:
        where = f"`herd order show {order_id}`"
    return CommitUnknown(
        "The database went away while it took a message, and does not answer; "
        f"{where} tells whether it was taken.",
        order=order_id,
    )
