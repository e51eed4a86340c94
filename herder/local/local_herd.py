"""The herd as a program on the herder's machine sees it: its database and its Redis, directly.

Every rule is order intake's; this file only wires the parts and waits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Unpack

from herder.accounts.accounts import Accounts, open_ledger, shown_entry
from herder.accounts.api_keys import ApiKeys
from herder.accounts.grants import Grants
from herder.clock import clock_us
from herder.db.database import Database
from herder.db.outages import CommitUnknown
from herder.domain.fitting import TokenWish
from herder.domain.ids import new_uuid
from herder.domain.notes import NO_NOTES, Notes
from herder.domain.order import Order, State
from herder.domain.paging import require_limit
from herder.domain.parsing import parse_bids, parse_model
from herder.domain.prompts import asked_of
from herder.domain.receipts import receipt_of
from herder.domain.signed_tokens import sign_receipt
from herder.errors import InvalidRequest, SetupError
from herder.herd.herder_key import load_herder_key
from herder.herd.roster import serving
from herder.interface import CountOptions, OrderCall, QuoteCall
from herder.local.announcements import Announcements
from herder.local.callbacks import CallbackRunner, ErrorCallback, TextCallback
from herder.local.calls import parse_call
from herder.local.cancellations import Cancellations
from herder.local.canceller import Canceller
from herder.local.readiness import obstacle
from herder.local.token_counts import TokenCounts
from herder.local.topics import ended_topics
from herder.local.workers import WorkerControl
from herder.market.quotes import Quotes
from herder.messages.handler import Messages, Taken
from herder.messages.inbox import InboxChanges, InboxMessage, read_inbox
from herder.orders.cancellation import Cancellation
from herder.orders.intake import OrderIntake
from herder.orders.reader import OrderReader
from herder.orders.retention import purge
from herder.orders.set_aside import SetAside
from herder.orders.watcher import LOOK_S, CompletionWatcher
from herder.service.nudge import Nudger
from herder.settings import Settings
from herder.store import herd as herd_sql
from herder.store import orders as order_sql
from herder.types import (
    Info,
    NamedBalance,
    Place,
    Quote,
    Receipt,
    Result,
    StatementEntry,
    TokenCount,
)
from herder.webhooks.endpoints import Webhooks
from herder.webhooks.signing import Sealer
from workers.transport.streams import INBOX, RedisState, connect, open_streams
from workers.wire import PublicKey


class LocalHerd:
    """A connection to a herd whose database and Redis are at hand. Safe among threads."""

    def __init__(self, settings: Settings) -> None:
        """Open it.

        Raises:
            SetupError: there is no herd in the home folder.
        """
        key = load_herder_key(settings)
        self.settings = settings
        self.database = Database(settings.database, settings.lease_s)
        books = open_ledger()
        self.accounts = Accounts(self.database, books, clock_us=clock_us)
        self.api_keys = ApiKeys(self.database, clock_us=clock_us)
        self.grants = Grants(self.database, books, clock_us=clock_us)
        self.webhooks = Webhooks(
            self.database,
            Sealer(key),
            settings.webhook_rules,
            overlap_s=settings.webhook_overlap_s,
            clock_us=clock_us,
        )
        self.intake = OrderIntake(self.database, books, clock_us=clock_us)
        self._key = key
        self.quotes = Quotes(self.database, key, clock_us=clock_us)
        self._messages = Messages(
            self.database,
            self.intake,
            self.accounts,
            self.quotes,
            max_prompt_bytes=settings.max_prompt_bytes,
            clock_us=clock_us,
        )
        self._news = InboxChanges(self.database)
        try:
            self._streams = open_streams(settings.redis_url)
        except ValueError:
            raise SetupError(
                "HERD_REDIS_URL is not a Redis URL; a valid one looks like "
                "redis://127.0.0.1:6379/0."
            ) from None
        self._announced = Announcements(self._streams)
        self._nudger = Nudger(settings, self._streams, key)
        cancellation = Cancellation(
            self.database, books, settings, self._streams, clock_us=clock_us
        )
        self._token_counts = TokenCounts(self.database, self._streams, key, new_id=new_uuid)
        self.workers = WorkerControl(self.database, self._streams, key, clock_us=clock_us)
        canceller = Canceller(cancellation, self._announced, self._nudger, key)
        self.cancellations = Cancellations(canceller.cancel)
        told = canceller.tell_resolved
        self.aside = SetAside(self.database, books, clock_us=clock_us, tell=told)
        self.watcher = CompletionWatcher(
            connect(settings.redis_url, limit_s=LOOK_S),
            partial(ended_topics, self.database, self._news),
        )
        self._answers = OrderReader(self.database, self._streams, self.watcher)
        self._callbacks = CallbackRunner(self.watcher, lambda order_id: self.result(order_id, None))

    def submit(self, prompt: str | None, tokens: int | None, **call: Unpack[OrderCall]) -> Receipt:
        """Take an order; arguments and errors as `herder.submit`."""
        return receipt_of(self.take(prompt, tokens, call))

    def take(
        self,
        prompt: str | None,
        tokens: int | None,
        call: OrderCall,
        *,
        api_key: str | None = None,
        notes: Notes = NO_NOTES,
        wish: TokenWish | None = None,
        is_wanted: Callable[[], bool] | None = None,
    ) -> Order:
        """Do as `submit`, for callers who need the order itself, or `wish` for what fits.

        Callers who may go meanwhile give `is_wanted`, as to `OrderIntake.submit`.
        """
        tokens = tokens if wish is None else wish.most
        parsed = parse_call(prompt, tokens, call, self.settings, self.public_keys, api_key=api_key)
        if wish is not None and wish.named is None and parsed.quote is not None:
            parsed = replace(parsed, tokens=parsed.quote.tokens)  # for these it was quoted
        parsed = self._token_counts.fit(replace(parsed, notes=notes, wish=wish))
        try:
            order = self.intake.submit(parsed, is_wanted)
        except CommitUnknown as error:
            if parsed.idempotency_key is None:
                raise self._given_up(error) from error
            raise
        if order.state is State.QUEUED:
            self._nudger.nudge(order.model)
        return order

    def _given_up(self, error: CommitUnknown) -> CommitUnknown:
        """Have an order cancelled that may have been taken; called again, it would be another."""
        order_id = str(error.data["order"])
        self.cancellations.remember(order_id, is_taken=False)
        return CommitUnknown(
            f"The database went away while it took order {order_id}, and does not answer. If there "
            f"is such an order, it is cancelled as soon as the database is back, if this program "
            f"still runs then; `herd order cancel {order_id}` does it too.",
            order=order_id,
        )

    def quote(self, prompt: str | None, tokens: int | None, **call: Unpack[QuoteCall]) -> Quote:
        """Return the price and the expected wait of an order placed now.

        It binds for a minute. Arguments and errors as `herder.quote`.
        """
        bids = parse_bids(call.get("bids"))
        parsed = parse_call(prompt, tokens, call, self.settings, self.public_keys)
        return self.quotes.quote(parsed, bids)

    def count_tokens(self, prompt: str | None, **asked: Unpack[CountOptions]) -> TokenCount:
        """Count the tokens of a prompt; arguments and errors as `herder.count_tokens`."""
        parsed, model = asked_of(prompt, asked, self.settings.max_prompt_bytes), asked.get("model")
        return self._token_counts.count(None if model is None else parse_model(model), parsed)

    def info(self) -> Info:
        """Return the models served here, their rates, and the state of the herd."""
        return self.quotes.info()

    def attended(self, model: str) -> bool:
        """Return whether a worker of this model was heard within a lease."""
        return serving(self.database, model, self.settings.lease_s)

    def balance(self, account: str | None = None) -> NamedBalance:
        """Return an account's balance; None: `HERD_ACCOUNT`.

        Raises:
            AccountNotFound: no account has that name.
        """
        return self.accounts.balance(self.settings.account if account is None else account)

    def statement(
        self, account: str | None = None, *, after: int = 0, limit: int = 100
    ) -> list[StatementEntry]:
        """Return an account's statement, oldest first; None: `HERD_ACCOUNT`.

        Args:
            account: whose.
            after: only what came after the entry with this `seq`.
            limit: how many at most, 1 to `herder.domain.paging.MAX_PAGE`.

        Raises:
            AccountNotFound: no account has that name.
            InvalidRequest: the limit or the cursor is not valid.
        """
        require_limit(limit)
        name = self.settings.account if account is None else account
        return [shown_entry(one) for one in self.accounts.statement(name, after, limit)]

    # Messages

    def send_message(
        self,
        tags: object,
        *,
        account: str,
        api_key: str | None = None,
        idempotency_key: str | None = None,
    ) -> Taken:
        """Take a message; arguments and errors as `herder.messages.handler.Messages.send`."""
        try:
            taken = self._messages.send(
                tags, account=account, api_key=api_key, idempotency_key=idempotency_key
            )
        except CommitUnknown as error:
            if idempotency_key is None and error.data["order"] is not None:
                raise self._given_up(error) from error
            raise
        if taken.model is not None:
            self._nudger.nudge(taken.model)
        if taken.told:
            self._announced.inboxes(taken.told)
        return taken

    def inbox(self, account: str, after: int, limit: int) -> list[InboxMessage]:
        """Messages of an account; arguments and errors as `herder.messages.inbox.read_inbox`.

        `watcher` tells of new ones to who waits for `inbox_topic`.
        """
        return read_inbox(self.database, account, after, limit)

    @staticmethod
    def inbox_topic(account: str) -> str:
        """Return the topic under which a reader of an account's messages waits at `watcher`.

        A waiter may be woken for nothing. It has to be added before the inbox is read, and to read
        again each time.
        """
        return f"{INBOX}{account}"

    # Orders

    def order(self, order_id: str, *, account: str | None = None) -> Order:
        """Return an order, as it stands now; arguments and errors as `OrderReader.order`."""
        return self._answers.order(order_id, account=account)

    def receipt(self, order_id: str) -> Receipt:
        """Return an order's receipt, as it stands now.

        Raises:
            OrderNotFound: there is no such order.
        """
        return receipt_of(self.order(order_id))

    def signed_receipt(self, order_id: str, *, account: str | None = None) -> str:
        """Return an order's current receipt, as a JWS signed by the herder.

        Raises:
            OrderNotFound: there is no such order, or it is another account's.
        """
        receipt = receipt_of(self.order(order_id, account=account))
        return sign_receipt(receipt, self._key, clock_us() // 1_000_000)

    def public_keys(self) -> dict[str, PublicKey]:
        """Return the public keys that verify this herd's signed receipts, by `kid`."""
        with self.database.read() as connection:
            return herd_sql.live_keys(connection, herd_sql.HERDER)

    def orders(
        self,
        *,
        account: str | None = None,
        state: str | None = None,
        before: str | None = None,
        limit: int = 100,
    ) -> list[Receipt]:
        """Orders, the newest first, a page at a time.

        Args:
            account: only this account's.
            state: only those that stand so.
            before: only those that came before this order: the last one of the page before.
            limit: how many at most, 1 to `herder.domain.paging.MAX_PAGE`.

        Raises:
            InvalidRequest: there is no such state, or the limit is out of its range.
            OrderNotFound: there is no order `before`.
        """
        if state is not None and state not in list(State):
            raise InvalidRequest(f"state must be one of {', '.join(State)}, not {state[:40]!r}.")
        require_limit(limit)
        before_seq = None if before is None else self.order(before, account=account).seq
        with self.database.read() as connection:
            found = order_sql.list_orders(
                connection,
                account=account,
                state=None if state is None else State(state),
                before_seq=before_seq,
                limit=limit,
            )
        return [receipt_of(order) for order in found]

    def cancel(self, order_id: str, *, account: str | None = None) -> Receipt:
        """End an order; one that runs is told to stop, and ends when its worker has answered.

        Args:
            order_id: the order.
            account: whose it has to be; None: anybody's.

        Raises:
            OrderNotFound: there is no such order, or it is another account's.
            HerdUnavailable: the database is away; it is cancelled when it is back, if this program
                still runs then.
        """
        return receipt_of(self.cancellations.cancel(order_id, account=account))

    def rebid(self, order_id: str, fee: int, *, account: str | None = None) -> Receipt:
        """Raise the fee of a queued order; arguments and errors as `OrderIntake.rebid`."""
        return receipt_of(self.intake.rebid(order_id, fee, account=account))

    def purge(
        self,
        *,
        older_than_days: int | None = None,
        account: str | None = None,
        order: str | None = None,
    ) -> int:
        """Delete prompts and texts of ended orders; arguments as `retention.purge`."""
        if order is not None:
            self.order(order)
        return purge(
            self.database,
            clock_us(),
            older_than_days=older_than_days,
            account=account,
            order_id=order,
        )

    def result(self, order_id: str, timeout_s: float | None) -> Result:
        """Wait for an order's end; errors as `OrderReader.result`."""
        return self._answers.result(order_id, timeout_s)

    def answer(self, order_id: str) -> Result:
        """Return an order's answer so far, however it ended."""
        return self._answers.answer(order_id)

    def standing(self, order_id: str, *, account: str | None = None) -> tuple[Result, Place | None]:
        """Return an order's answer so far and its place; errors as `OrderReader.standing`."""
        return self._answers.standing(order_id, self.quotes.place, account=account)

    def stream(self, order_id: str) -> Iterator[str]:
        """Yield an order's text as it is generated; errors as `OrderReader.stream`."""
        return self._answers.stream(order_id)

    def call_back(
        self, order_id: str, callback: TextCallback | None, on_error: ErrorCallback | None
    ) -> None:
        """Call one of them once, at an order's end, in a thread that outlives the program."""
        self._callbacks.add(order_id, callback, on_error)

    def redis_state(self) -> RedisState:
        """Return whether Redis, which carries text, beats and control, answers and stores."""
        return self._streams.state()

    def obstacle(self) -> str | None:
        """Return the reason for which no order is run now, whatever workers there are."""
        return obstacle(self)

    def close(self) -> None:
        """Send the nudges that wait, make cancellations that can be made, give connections back."""
        self.cancellations.close()
        self._announced.close()
        self._nudger.close()
        self.watcher.close()
        self.database.close()
