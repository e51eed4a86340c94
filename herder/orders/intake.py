"""Order intake: orders are taken, priced and bid for again, and operators give refunds.

Every call is one transaction. A refused call leaves no trace, not even of its idempotency key.
`herder/orders/closing.py` is the other half: how orders end, and what they are charged.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Connection

import ledger
from herder.accounts import api_keys, limits
from herder.accounts.accounts import client_account, money_errors
from herder.accounts.means import lock_means
from herder.db.database import Database
from herder.db.outages import CommitUnknown
from herder.domain import fingerprint, ids
from herder.domain.ids import new_uuid
from herder.domain.order import Order, OrderRequest, State
from herder.domain.pricing import (
    parse_fee,
    rank,
)
from herder.errors import (
    InvalidStartBy,
    OrderNotFound,
    OrderNotWaiting,
    RebidTooLow,
    RefundRefused,
)
from herder.market.order_price import OrderPrice, price
from herder.store import accounts as account_sql
from herder.store import book as book_sql
from herder.store import models as model_sql
from herder.store import orders as order_sql
from herder.store.steps import NewOrder, Subject
from ledger import Ledger


class CallerGone(Exception):
    """Whoever asked for an order had gone before it was taken; nothing was held."""


class OrderIntake:
    """Takes orders. Safe among threads and among processes on one database."""

    def __init__(
        self,
        database: Database,
        accounts: Ledger,
        *,
        clock_us: Callable[[], int],
        new_id: Callable[[], str] = new_uuid,
    ) -> None:
        self._database = database
        self._ledger = accounts
        self._clock_us = clock_us
        self._new_id = new_id

    def submit(self, call: OrderRequest, is_wanted: Callable[[], bool] | None = None) -> Order:
        """Take an order: its hold, the order itself and its event in one transaction.

        Args:
            call: what the client asks, parsed.
            is_wanted: whether anybody still waits for the order; asked on this thread, in each
                transaction that would take it, after its first lock. None: it is wanted.

        Returns:
            The order, queued; or the order of an earlier call with the same idempotency key, unless
            that one was cancelled and nothing was charged: then the key buys again.

        Raises:
            InvalidRequest: the fee is too low, or above `max_fee`; or the tokens do not fit.
            QuoteMismatch, QuoteExpired: the quote that it names is for another order, or over.
            ModelNotFound, AccountNotFound: there is no such thing.
            InsufficientBalance: the account has less than the fee.
            IdempotencyKeyReused: the idempotency key stands for another call.
            RateLimited: the account has as much open, or ordered lately, as it may.
            ApiKeyLimitReached, Unauthorized: its API key may not spend that, or nothing any more.
            CommitUnknown: the database was lost while it took the order, and stayed away: `order`
                of its data is the id that the order has, if there is one.
            HerdUnavailable: the database is busy or out of reach; nothing was held.
            CallerGone: it is not wanted any more, and no earlier call has taken it.
        """
        order_id = self._new_id()
        tried = False

        def step(connection: Connection) -> Order:
            nonlocal tried
            if tried:
                # Whoever took it a moment ago, and was cut off, has this lock until that is done.
                model_sql.share_policy(connection)
                account_sql.lock(connection, call.account)
                taken = order_sql.get_order(connection, order_id)
                if taken is not None:
                    return taken
            tried = True
            return self.take(connection, order_id, call, is_wanted)

        try:
            return self._database.settle(step)
        except CommitUnknown as error:
            raise CommitUnknown(
                f"The database went away while it took order {order_id}, and does not answer; "
                f"`herd order show {order_id}` tells whether there is one.",
                order=order_id,
            ) from error

    def take(
        self,
        connection: Connection,
        order_id: str,
        call: OrderRequest,
        is_wanted: Callable[[], bool] | None = None,
    ) -> Order:
        """Take an order in the caller's transaction: `submit`, with what else belongs to it.

        Args:
            connection: the transaction. A caller who goes on after a refusal does so from a
                savepoint that was set before.
            order_id: a fresh UUID, drawn before the transaction.
            call: what the client asks, parsed.
            is_wanted: as for `submit`.

        Raises:
            HerdError, CallerGone: as `submit`.
        """
        model_sql.share_policy(connection)
        if call.idempotency_key:
            found = self._found(connection, call, call.idempotency_key)
            if found is not None:
                return found
        if is_wanted is not None and not is_wanted():
            raise CallerGone
        means = None
        if call.wish is not None:
            # Of two calls at once the second is given what the first one left.
            means = lock_means(connection, self._ledger, call.account, call.api_key)
        priced = price(connection, call, self._clock_us(), means)
        return self._place(connection, order_id, call, priced)

    def _found(self, connection: Connection, call: OrderRequest, key: str) -> Order | None:
        """Return the order that stands under an idempotency key; None if the key may buy."""
        seen = order_sql.find_by_key(connection, call.account, key)
        spent = None
        if seen is not None and _left_nothing(seen[0]):
            # It may lose its key. Orders are locked before accounts, everywhere.
            spent = seen[0].id
            order_sql.get_orders(connection, [spent], lock=True)
        # Two calls with one key, at once: the second has to find the first one's order.
        account_sql.lock(connection, call.account)
        found = order_sql.find_by_key(connection, call.account, key)
        if found is None:
            return None
        order, stored = found
        fingerprint.require_same(key, call, stored)
        if order.id != spent:
            return order
        order_sql.release_key(connection, spent)
        subject = Subject(spent, order.attempt, None, None)
        order_sql.add_events(connection, "key_released", self._clock_us(), [subject])
        return None

    def _place(
        self,
        connection: Connection,
        order_id: str,
        call: OrderRequest,
        priced: OrderPrice,
    ) -> Order:
        now_us = self._clock_us()
        if call.start_by_us is not None and call.start_by_us <= now_us:
            raise InvalidStartBy("start_by has already passed; give a time in the future.")
        limits.admit(connection, call.account, priced.words + priced.tokens, now_us)
        api_keys.count_in(connection, call.api_key, priced.fee, priced.fee, now_us)
        hold_id = ids.hold_id(order_id, 1)
        with money_errors(call.account):
            self._ledger.hold(
                connection,
                hold_id,
                client_account(call.account),
                f"revenue:{ledger.stripe(hold_id, priced.stripes)}",
                priced.fee,
                tags={"order": order_id},
            )
        new = NewOrder(
            id=order_id,
            account=call.account,
            model=priced.model.name,
            rank=priced.rank(now_us),
            fee=priced.fee,
            needed=priced.needed,
            prompt_fee=priced.rates.prompt_fee,
            fee_per_token=priced.rates.fee_per_token,
            charge_unused=priced.charge_unused,
            bid_factor=str(call.bid_factor),
            automatic=priced.automatic,
            words=priced.words,
            tokens=priced.tokens,
            reference=call.reference,
            idempotency_key=call.idempotency_key,
            fingerprint=fingerprint.of_call(call) if call.idempotency_key else None,
            api_key=call.api_key,
            message=call.message,
            hold_id=hold_id,
            start_by_us=call.start_by_us,
            run_limit_s=call.run_limit_s,
            submitted_us=now_us,
        )
        request = order_sql.StoredRequest(
            call.prompt, call.stop, call.sampling, _is_for_what_fits(call, priced)
        )
        order = order_sql.insert_order(connection, new, request, call.notes)
        order_sql.add_events(connection, "submitted", now_us, [Subject(order_id)])
        return order

    def rebid(self, order_id: str, fee: int, *, account: str | None = None) -> Order:
        """Raise the fee of an order that is queued: its hold and its place in one transaction.

        The same fee again changes nothing, so that a call whose answer was lost may be repeated.

        Args:
            order_id: the order.
            fee: the new fee in winston, for the whole order.
            account: whose it has to be; None: anybody's.

        Raises:
            InvalidFee: the fee is not a whole number of winston.
            OrderNotFound: there is no such order, or it is another account's.
            OrderNotWaiting: it is out with the herd, or has ended.
            RebidTooLow: the fee is below what it offers already.
            InsufficientBalance: the account has less than the difference.
            ApiKeyLimitReached, Unauthorized: its API key may not spend that.
        """
        fee = parse_fee(fee)

        def step(connection: Connection) -> Order:
            # It is ranked by the policy, which changes before or after, and never meanwhile.
            model_sql.share_policy(connection)
            order = order_sql.get_orders(connection, [order_id], lock=True).get(order_id)
            if order is None or (account is not None and order.account != account):
                raise OrderNotFound(order_id)
            if fee == order.fee and order.holds > 1:
                return order
            if order.state is not State.QUEUED:
                raise OrderNotWaiting(order_id, order.state.value)
            if fee <= order.fee:
                raise RebidTooLow(order_id, fee, order.fee)
            now_us = self._clock_us()
            api_keys.count_in(connection, order.api_key, fee, fee - order.fee, now_us)
            policy, _, stripes = model_sql.read_policy(connection)
            hold_id = ids.hold_id(order_id, order.holds + 1)
            payer = client_account(order.account)
            old, new = (
                f"revenue:{ledger.stripe(hold, stripes)}" for hold in (order.hold_id, hold_id)
            )
            with money_errors(order.account):
                self._ledger.lock_accounts(connection, [payer, old, new])
                # The old one first: the account may have no more than the difference.
                self._ledger.void_many(connection, [order.hold_id])
                self._ledger.hold(connection, hold_id, payer, new, fee, tags={"order": order_id})
            place = rank(fee, order.needed, aging_s=policy.aging_s, submitted_us=order.submitted_us)
            book_sql.rebid(connection, order, fee, place, hold_id)
            subject = Subject(order_id, order.attempt, None, f"{order.fee} to {fee}")
            order_sql.add_events(connection, "rebid", now_us, [subject])
            found = order_sql.get_order(connection, order_id)
            assert found is not None, "it is locked"
            return found

        return self._database.settle(step)

    def refund(
        self, order_id: str, amount: int | None, reason: str, *, refund_id: str | None = None
    ) -> int:
        """Give back what an ended order was charged, in part or whole.

        Args:
            order_id: the order.
            amount: winston, or None for all that was not given back yet.
            reason: why; it stands in the account's statement.
            refund_id: the idempotency key, a UUID; drawn where none is given.

        Returns:
            The winston given back.

        Raises:
            OrderNotFound: there is no such order.
            RefundRefused: it was not charged, or not as much.
            IdempotencyKeyReused: the id stands for another transfer.
            InvalidRequest: the amount or the id is not valid.
        """
        transfer_id = refund_id or self._new_id()

        def step(connection: Connection) -> int:
            # Locked before the accounts are, as everywhere.
            order = order_sql.get_orders(connection, [order_id], lock=True).get(order_id)
            if order is None:
                raise OrderNotFound(order_id)
            if order.charged == 0:
                raise RefundRefused(f"Order {order_id} is {order.state} and was not charged.")
            charged_by = ledger.post_id(order.hold_id)
            tags = {"reason": reason[:1000]}
            try:
                with money_errors("revenue"):
                    given = self._ledger.refund(connection, transfer_id, charged_by, amount, tags)
            except ledger.ExceedsRefundable as error:
                raise RefundRefused(
                    f"Order {order_id} was charged {order.charged} winston, of which "
                    f"{error.refundable} can still be refunded.",
                    refundable=error.refundable,
                ) from None
            if not given.replayed:
                order_sql.add_refund(connection, order_id, given.amount)
                subject = Subject(order_id, order.attempt, None, f"{given.amount}: {reason[:1000]}")
                order_sql.add_events(connection, "refunded", self._clock_us(), [subject])
            return given.amount

        return self._database.settle(step)


def _left_nothing(order: Order) -> bool:
    """Return whether an order was cancelled before anything was delivered that is paid for."""
    return order.state is State.CANCELLED and order.charged == 0


def _is_for_what_fits(call: OrderRequest, priced: OrderPrice) -> bool:
    """Return whether the worker may cut the tokens to what the prompt leaves.

    Where unused tokens are paid a number that was named stands as it is: cut, it would be paid.
    """
    if call.wish is None or call.quote is not None:
        return False
    return not priced.charge_unused or priced.tokens != call.wish.named
