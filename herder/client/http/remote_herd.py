"""A herd over HTTP, for programs that wait."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Unpack
from uuid import uuid4

import httpx

from herder.client.http.answers import (
    STOPPED,
    balance_of,
    count_of,
    info_of,
    obstacle_of,
    orders_of,
    quote_of,
    receipt_of,
    result_of,
    statement_of,
    taken_of,
)
from herder.client.http.calls import (
    ANSWER_S,
    HOT_S,
    Call,
    count_call,
    held_s,
    of_order,
    order_call,
    quote_call,
)
from herder.client.http.connection import Connection
from herder.client.http.ends import RemoteEnds
from herder.client.http.retrying import MAX_STREAM_TRIES, Cut, Retries
from herder.client.http.sse import TextOf
from herder.domain.paging import MAX_HTTP_PAGE, require_limit
from herder.errors import HerdError, InvalidRequest, ResultTimeout
from herder.interface import CountOptions, OrderCall, QuoteCall, raise_if_not_completed
from herder.local.callbacks import CallbackRunner
from herder.local.cancellations import Cancellations
from herder.types import Info, NamedBalance, Quote, Receipt, Result, StatementEntry, TokenCount

if TYPE_CHECKING:
    from workers.wire import PublicKey


class RemoteHerd:
    """A herd behind a gateway; what `herder.local.local_herd.LocalHerd` is to a program beside it.

    Args:
        url: of the gateway.
        api_key: as `herd key create` showed it.
        transport: carries the requests; a test's own, else httpx's.
    """

    def __init__(
        self, url: str, api_key: str, *, transport: httpx.BaseTransport | None = None
    ) -> None:
        """Prepare it; nothing is sent yet.

        Raises:
            SetupError: the address or the key is not valid.
        """
        self._gateway = Connection(url, api_key, transport)
        ends = RemoteEnds(self.answer, self.orders)
        self._callbacks = CallbackRunner(ends, lambda order_id: self.result(order_id, None))
        self._cancellations = Cancellations(
            lambda order_id, account: self._cancel(order_id),  # noqa: ARG005 (the key's, as all)
            behind="the gateway",
        )

    def submit(self, prompt: str | None, tokens: int | None, **given: Unpack[OrderCall]) -> Receipt:
        """Take an order; arguments and errors as `herder.submit`."""
        # Sent again after a lost answer, it is still one order.
        asked = given.get("idempotency_key")
        key = str(uuid4()) if asked is None else asked
        call = order_call(prompt, tokens, given, key)
        return taken_of(self._gateway.send(call, retries=self._gateway.retrying(key=key)))

    def quote(self, prompt: str | None, tokens: int | None, **given: Unpack[QuoteCall]) -> Quote:
        """Return the price and the expected wait of an order placed now."""
        return quote_of(self._gateway.send(quote_call(prompt, tokens, given)))

    def count_tokens(self, prompt: str | None, **asked: Unpack[CountOptions]) -> TokenCount:
        """Count the tokens of a prompt."""
        return count_of(self._gateway.send(count_call(prompt, asked)))

    def info(self) -> Info:
        """Return the herd's name, rates, queues and workers."""
        return info_of(self._gateway.send(Call("GET", "/v1/info")))

    def attended(self, model: str) -> bool:
        """Return whether that herd counts a worker of this model."""
        return any(one.workers for one in self.info().models if one.name == model)

    def obstacle(self) -> str | None:
        """Return the fault that the gateway tells of; None also where it says nothing."""
        return obstacle_of(self._gateway.glance("/readyz"))

    def receipt(self, order_id: str) -> Receipt:
        """Return an order's receipt, as it stands now."""
        return self.answer(order_id).receipt

    def signed_receipt(self, order_id: str) -> str:
        """Return the same as a JWS that the herder signed."""
        return self._gateway.ask(of_order("GET", order_id, "/receipt")).text

    def public_keys(self) -> Mapping[str, PublicKey]:
        """Return the public keys that verify that herd's signed receipts, by `kid`."""
        from herder.domain.signed_tokens import from_jwks

        return from_jwks(self._gateway.ask(Call("GET", "/.well-known/jwks.json")).text)

    def answer(
        self,
        order_id: str,
        wait_s: int = 0,
        *,
        until_s: float | None = None,
        retries: Retries | None = None,
    ) -> Result:
        """Return an order's answer so far, or at its end if that comes within `wait_s`."""
        call = replace(of_order("GET", order_id), query={"wait": wait_s})
        timeout_s = ANSWER_S + wait_s
        return result_of(
            self._gateway.send(call, timeout_s=timeout_s, until_s=until_s, retries=retries)
        )

    def result(self, order_id: str, timeout_s: float | None) -> Result:
        """Wait for an order's end, however often the gateway is away meanwhile.

        Raises:
            HerdUnavailable: it was away when the time was over, and for some seconds before.
            HerdError: as `herder.orders.reader.OrderReader.result`.
        """
        until_s = None if timeout_s is None else time.monotonic() + timeout_s

        def has_time() -> bool:
            return until_s is None or time.monotonic() < until_s

        while True:
            asked_s = time.monotonic()
            wait_s = held_s(None if until_s is None else until_s - asked_s)
            found = self.answer(
                order_id,
                wait_s,
                until_s=until_s,
                retries=self._gateway.retrying(is_awaited=has_time),
            )
            if found.receipt.state in STOPPED:
                raise_if_not_completed(found)
                return found
            if not has_time():
                raise ResultTimeout(order_id, found.receipt.state, f"{timeout_s:g}")
            if time.monotonic() - asked_s < HOT_S:
                time.sleep(HOT_S)

    def stream(self, order_id: str) -> Iterator[str]:
        """Yield an order's text as it is generated; a line that breaks is taken up where it broke.

        Raises:
            StreamRestarted: text was shown of an attempt that was lost.
            OrderFailed, OrderCancelled, OrderExpired: at its end, if it ended so.
        """
        text = TextOf(order_id)
        retries: Retries | None = None
        while True:
            broken: httpx.RequestError | Cut = Cut()
            try:
                for more in self._gateway.listen(order_id, text):
                    retries = None
                    yield more
            except (httpx.RequestError, Cut) as cut:
                broken = cut
            if text.ended:
                break
            if retries is None:
                retries = self._gateway.retrying(max_tries=MAX_STREAM_TRIES)
                next(retries)
            time.sleep(retries.send(broken))
        # As patiently as the text was read: its gateway may have ended with it.
        retries = self._gateway.retrying(max_tries=MAX_STREAM_TRIES)
        raise_if_not_completed(self.answer(order_id, retries=retries))

    def orders(
        self,
        *,
        account: str | None = None,
        state: str | None = None,
        before: str | None = None,
        limit: int = 100,
    ) -> list[Receipt]:
        """Return the account's orders, the newest first.

        As `herder.local.local_herd.LocalHerd.orders`.
        """
        require_limit(limit)
        self._require_own(account)
        found: list[Receipt] = []
        while len(found) < limit:
            asked = {
                "state": state,
                "before": before,
                "limit": min(MAX_HTTP_PAGE, limit - len(found)),
            }
            query = {name: value for name, value in asked.items() if value is not None}
            page, before = orders_of(self._gateway.send(Call("GET", "/v1/orders", query=query)))
            found += page
            if before is None:
                break
        return found[:limit]

    def cancel(self, order_id: str) -> Receipt:
        """End an order; as `herder.local.cancellations.Cancellations.cancel`."""
        return self._cancellations.cancel(order_id)

    def _cancel(self, order_id: str) -> Receipt:
        return receipt_of(self._gateway.send(of_order("POST", order_id, "/cancel")))

    def rebid(self, order_id: str, fee: int) -> Receipt:
        """Raise the fee of a queued order."""
        return receipt_of(self._gateway.send(of_order("POST", order_id, "/rebid", {"fee": fee})))

    def balance(self, account: str | None = None) -> NamedBalance:
        """Return the balance of the API key's account."""
        found = balance_of(self._gateway.send(Call("GET", "/v1/account")))
        if account is not None and account != found.account:
            raise InvalidRequest(
                f"The API key belongs to account {found.account!r} and can show no other."
            )
        return found

    def statement(
        self, account: str | None = None, *, after: int = 0, limit: int = 100
    ) -> list[StatementEntry]:
        """Return that account's statement.

        As `herder.local.local_herd.LocalHerd.statement`.
        """
        require_limit(limit)
        self._require_own(account)
        found: list[StatementEntry] = []
        cursor: int | None = after
        while cursor is not None and len(found) < limit:
            query = {"after": cursor, "limit": min(MAX_HTTP_PAGE, limit - len(found))}
            call = Call("GET", "/v1/account/statement", query=query)
            page, cursor = statement_of(self._gateway.send(call))
            found += page
        return found[:limit]

    def _require_own(self, account: str | None) -> None:
        if account is not None:
            self.balance(account)

    def call_back(
        self,
        order_id: str,
        callback: Callable[[str], object] | None,
        on_error: Callable[[HerdError], object] | None,
    ) -> None:
        """Call one of them once, at an order's end; as `herder.submit` says."""
        self._callbacks.add(order_id, callback, on_error)

    def close(self) -> None:
        """Give the connections back, once nobody waits to be called back any more.

        Cancellations that could not be made are tried for some seconds more, and logged if they
        still fail.
        """
        self._cancellations.close()
        self._callbacks.afterwards(self._gateway.close)
