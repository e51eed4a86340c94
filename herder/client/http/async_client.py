"""A herd over HTTP, for programs that run an event loop."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, Self, Unpack
from uuid import uuid4

import httpx

from herder.client.http.address import Address
from herder.client.http.answers import (
    STOPPED,
    count_of,
    decoded,
    info_of,
    quote_of,
    receipt_of,
    result_of,
    taken_of,
)
from herder.client.http.bounds import aread_whole
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
from herder.client.http.failures import PASSING, certificates, error_of
from herder.client.http.retrying import (
    MAX_STREAM_TRIES,
    Cut,
    Outcome,
    Retries,
    RetryOptions,
    retrying,
)
from herder.client.http.sse import ANSWER_ALONE, TextOf, aread_events
from herder.errors import HerdUnavailable, ResultTimeout
from herder.interface import (
    CountOptions,
    OrderOptions,
    QuoteOptions,
    order_call_of,
    raise_if_not_completed,
)
from herder.types import Info, Quote, Receipt, Result, TokenCount


class AsyncOrder:
    """An order of yours, as `herder.Order`; what waits is awaited.

    Attributes:
        id, account, model, fee, needed, reference: as of `herder.Order`.
    """

    def __init__(self, client: AsyncClient, receipt: Receipt) -> None:
        self._client = client
        self.id = receipt.order
        self.account = receipt.account
        self.model = receipt.model
        self.fee = receipt.fee
        self.needed = receipt.needed
        self.reference = receipt.reference

    def __repr__(self) -> str:
        return f"<AsyncOrder {self.id} fee={self.fee} needed={self.needed}>"

    async def status(self) -> str:
        """Return its state; as `herder.Order.status`."""
        return (await self.receipt()).state

    async def receipt(self) -> Receipt:
        """Return its receipt, as it stands now."""
        return (await self._client.answer(self.id)).receipt

    async def result(self, timeout: float | None = None) -> Result:
        """Wait for its end; arguments and errors as `herder.Order.result`."""
        until_s = None if timeout is None else time.monotonic() + timeout

        def has_time() -> bool:
            return until_s is None or time.monotonic() < until_s

        while True:
            asked_s = time.monotonic()
            wait_s = held_s(None if until_s is None else until_s - asked_s)
            retries = self._client.retrying(is_awaited=has_time)
            found = await self._client.answer(self.id, wait_s, until_s=until_s, retries=retries)
            if found.receipt.state in STOPPED:
                raise_if_not_completed(found)
                return found
            if not has_time():
                raise ResultTimeout(self.id, found.receipt.state, f"{timeout:g}")
            if time.monotonic() - asked_s < HOT_S:
                await asyncio.sleep(HOT_S)

    async def stream(self) -> AsyncIterator[str]:
        """Yield its text as it is generated; errors as `herder.Order.stream`."""
        text = TextOf(self.id)
        retries: Retries | None = None
        while True:
            broken: httpx.RequestError | Cut = Cut()
            try:
                async for more in self._client.listen(self.id, text):
                    retries = None
                    yield more
            except (httpx.RequestError, Cut) as cut:
                broken = cut
            if text.ended:
                break
            if retries is None:
                retries = self._client.retrying(max_tries=MAX_STREAM_TRIES)
                next(retries)
            await asyncio.sleep(retries.send(broken))
        # As patiently as the text was read: its gateway may have ended with it.
        retries = self._client.retrying(max_tries=MAX_STREAM_TRIES)
        raise_if_not_completed(await self._client.answer(self.id, retries=retries))

    async def cancel(self) -> Receipt:
        """End it; as `herder.Order.cancel`, but nothing is remembered here.

        Raises:
            HerdUnavailable: the gateway was away for some seconds. Where `order` is in its data,
                the gateway remembers the cancellation; else the order may go on: call it again.
        """
        try:
            return receipt_of(await self._client.send(of_order("POST", self.id, "/cancel")))
        except HerdUnavailable as error:
            if error.data.get("order") == self.id:
                raise
            raise HerdUnavailable(
                f"Order {self.id} may not be cancelled, and may go on; call cancel() again when "
                f"the gateway answers. {error.message}"
            ) from error

    async def rebid(self, fee: int) -> Receipt:
        """Raise its fee while it is queued; as `herder.Order.rebid`."""
        call = of_order("POST", self.id, "/rebid", {"fee": fee})
        receipt = receipt_of(await self._client.send(call))
        self.fee = receipt.fee
        return receipt


class AsyncClient:
    """A herd elsewhere, bought from over HTTP, for programs that run an event loop.

        async with AsyncClient("https://herd.example", "herd_…") as herd:
            order = await herd.submit("What is a llama?", 40, fee=100)
            async for text in order.stream():
                print(text, end="")

    Args:
        url: of the gateway.
        api_key: as `herd key create` showed it; the account that pays is its.
        transport: carries the requests; a test's own, else httpx's.
    """

    def __init__(
        self, url: str, api_key: str, *, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        """Prepare it; nothing is sent yet.

        Raises:
            SetupError: the address or the key is not valid.
        """
        where = Address.of(url, api_key, called="The address")
        self.url = where.url
        self._chance = random.Random()  # noqa: S311 (it only spreads retries)
        with certificates():
            self._http = httpx.AsyncClient(
                base_url=where.url,
                headers={"Authorization": f"Bearer {where.api_key}"},
                timeout=ANSWER_S,
                transport=transport,
                limits=httpx.Limits(max_connections=None),
            )

    async def submit(
        self,
        prompt: str | None = None,
        tokens: int | None = None,
        **options: Unpack[OrderOptions],
    ) -> AsyncOrder:
        """Submit a paid prompt; arguments and errors as `herder.submit`."""
        given = options.get("idempotency_key")
        key = str(uuid4()) if given is None else given
        call = order_call(prompt, tokens, order_call_of(options), key)
        found = await self.send(call, retries=self.retrying(key=key))
        return AsyncOrder(self, taken_of(found))

    async def quote(
        self,
        prompt: str | None = None,
        tokens: int | None = None,
        **options: Unpack[QuoteOptions],
    ) -> Quote:
        """Return the price and the expected wait of an order.

        Arguments and errors as `herder.quote`.
        """
        return quote_of(await self.send(quote_call(prompt, tokens, options)))

    async def count_tokens(
        self, prompt: str | None = None, **options: Unpack[CountOptions]
    ) -> TokenCount:
        """Count the tokens of a prompt; arguments and errors as `herder.count_tokens`."""
        return count_of(await self.send(count_call(prompt, options)))

    async def info(self) -> Info:
        """Return the models served there, their rates, and the state of queues and herd."""
        return info_of(await self.send(Call("GET", "/v1/info")))

    async def order(self, order_id: str) -> AsyncOrder:
        """Return an order that was submitted before.

        Raises:
            OrderNotFound: there is no such order, or it is another account's.
        """
        return AsyncOrder(self, (await self.answer(order_id)).receipt)

    async def answer(
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
        found = await self.send(call, timeout_s=timeout_s, until_s=until_s, retries=retries)
        return result_of(found)

    async def send(
        self,
        call: Call,
        *,
        timeout_s: float = ANSWER_S,
        until_s: float | None = None,
        retries: Retries | None = None,
    ) -> Any:
        """Send a call until it is answered, or its failure lasts.

        Args:
            call: the call.
            timeout_s: seconds that its answer may take.
            until_s: by `time.monotonic`: no pause goes beyond it.
            retries: says whether and when it is sent again.
        """
        retries = retries or self.retrying()
        wait_s = next(retries)
        while True:
            if until_s is not None:
                wait_s = min(wait_s, max(0.0, until_s - time.monotonic()))
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            outcome: Outcome
            try:
                async with self._http.stream(
                    call.method,
                    call.path,
                    content=call.content,
                    headers=call.headers,
                    params=dict(call.query or {}),
                    timeout=timeout_s,
                ) as answer:
                    outcome = await aread_whole(answer)
            except httpx.RequestError as error:
                outcome = error
            try:
                wait_s = retries.send(outcome)
            except StopIteration as answered:
                return decoded(answered.value.content)

    def retrying(self, **how: Unpack[RetryOptions]) -> Retries:
        """Return whether and when a call is sent again.

        Arguments as `herder.client.http.retrying`.
        """
        return retrying(self.url, self._chance, time.time, **how)

    async def listen(self, order_id: str, text: TextOf) -> AsyncIterator[str]:
        """Yield the text of an order's events, until the line ends or breaks."""
        headers = {"Last-Event-ID": text.last} if text.last else {}
        path = of_order("GET", order_id, "/events").path
        line_s = 2 * ANSWER_S
        async with self._http.stream(
            "GET", path, params=ANSWER_ALONE, headers=headers, timeout=line_s
        ) as answer:
            if not answer.is_success:
                whole = await aread_whole(answer)
                error = error_of(
                    whole.status_code, whole.content, whole.headers, self.url, time.time()
                )
                raise Cut(error) if answer.status_code in PASSING else error
            async for event in aread_events(answer):
                if more := text.take(event):
                    yield more

    async def close(self) -> None:
        """Give the connections back."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
