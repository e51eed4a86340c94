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

from herder.errors import HerdError, ResultTimeout, SetupError
from herder.receipts import Info, Quote, Receipt, Result, raise_if_not_completed
from herder.remote.address import Address
from herder.remote.calls import (
    ANSWER_S,
    ENDED,
    STREAM_TRIES,
    TRIES,
    Call,
    CallOptions,
    EventReader,
    QuoteOptions,
    TextOf,
    decoded,
    held_s,
    info_of,
    of_order,
    order_call,
    passes,
    pause_s,
    quote_call,
    quote_of,
    receipt_of,
    require_events,
    result_of,
    taken_of,
)
from herder.remote.failures import PASSING, Refused, away, certificates, error_of, lasts


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
        """Where it stands; as `herder.Order.status`."""
        return (await self.receipt()).state

    async def receipt(self) -> Receipt:
        """What it costs and why, as it stands now."""
        return (await self._client.answer(self.id)).receipt

    async def result(self, timeout: float | None = None) -> Result:
        """Wait for its end; arguments and errors as `herder.Order.result`."""
        until_s = None if timeout is None else time.monotonic() + timeout
        while True:
            left_s = None if until_s is None else until_s - time.monotonic()
            found = await self._client.answer(self.id, held_s(left_s))
            if found.receipt.state in ENDED:
                raise_if_not_completed(found)
                return found
            if until_s is not None and time.monotonic() >= until_s:
                raise ResultTimeout(self.id, found.receipt.state, f"{timeout:g}")

    async def stream(self) -> AsyncIterator[str]:
        """Its text as it is generated; errors as `herder.Order.stream`."""
        text, failed = TextOf(self.id), 0
        while True:
            broken: HerdError | None = None
            try:
                async for more in self._client.listen(self.id, text):
                    failed = 0
                    yield more
            except httpx.RequestError as error:
                broken = away(error, self._client.url)
            except Refused as refused:
                broken = refused.error
            if text.ended:
                break
            failed += 1
            if failed >= STREAM_TRIES or isinstance(broken, SetupError):
                raise broken or away(None, self._client.url)
            await asyncio.sleep(self._client.pause_s(failed))
        raise_if_not_completed(await self._client.answer(self.id))

    async def cancel(self) -> Receipt:
        """End it; as `herder.Order.cancel`."""
        return receipt_of(await self._client.send(of_order("POST", self.id, "/cancel")))

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
            SetupError: the address or the key is none.
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
        **options: Unpack[CallOptions],
    ) -> AsyncOrder:
        """Submit a paid prompt; arguments and errors as `herder.submit`."""
        key = options.get("idempotency_key") or str(uuid4())
        found = await self.send(order_call(prompt, tokens, options, key))
        return AsyncOrder(self, taken_of(found))

    async def quote(
        self,
        prompt: str | None = None,
        tokens: int | None = None,
        **options: Unpack[QuoteOptions],
    ) -> Quote:
        """What an order would need, pay and wait for; arguments and errors as `herder.quote`."""
        return quote_of(await self.send(quote_call(prompt, tokens, options)))

    async def info(self) -> Info:
        """Who serves there, at what rates, and how the queues and the herd stand."""
        return info_of(await self.send(Call("GET", "/v1/info")))

    async def order(self, order_id: str) -> AsyncOrder:
        """An order that was submitted before.

        Raises:
            OrderNotFound: there is none, or it is another account's.
        """
        return AsyncOrder(self, (await self.answer(order_id)).receipt)

    async def answer(self, order_id: str, wait_s: int = 0) -> Result:
        """What there is of an order's answer now, or at its end if that comes within `wait_s`."""
        call = replace(of_order("GET", order_id), query={"wait": wait_s})
        return result_of(await self.send(call, timeout_s=ANSWER_S + wait_s))

    async def send(self, call: Call, *, timeout_s: float = ANSWER_S) -> Any:
        """Carry a call; sent again while its failure may pass."""
        tried = 0
        while True:
            tried += 1
            try:
                answer = await self._http.request(
                    call.method,
                    call.path,
                    json=call.body,
                    headers=dict(call.headers or {}),
                    params=dict(call.query or {}),
                    timeout=timeout_s,
                )
            except httpx.RequestError as error:
                if tried >= TRIES or lasts(error):
                    raise away(error, self.url) from error
                await asyncio.sleep(self.pause_s(tried))
                continue
            if answer.is_success:
                return decoded(answer.content)
            if not passes(answer.status_code, tried):
                raise error_of(answer.status_code, answer.content, answer.headers, self.url)
            await asyncio.sleep(self.pause_s(tried, answer.headers.get("retry-after")))

    def pause_s(self, tried: int, retry_after: str | None = None) -> float:
        """How long to wait before the next try, in seconds."""
        return pause_s(tried, retry_after, self._chance)

    async def listen(self, order_id: str, text: TextOf) -> AsyncIterator[str]:
        """The text of an order's events, until the line ends or breaks."""
        headers = {"Last-Event-ID": text.last} if text.last else {}
        path, reader = of_order("GET", order_id, "/events").path, EventReader()
        line_s = 2 * ANSWER_S
        async with self._http.stream("GET", path, headers=headers, timeout=line_s) as answer:
            if not answer.is_success:
                content = await answer.aread()
                error = error_of(answer.status_code, content, answer.headers, self.url)
                raise Refused(error) if answer.status_code in PASSING else error
            require_events(answer.headers)
            async for line in answer.aiter_lines():
                for event in reader.take(line):
                    if more := text.take(event):
                        yield more

    async def close(self) -> None:
        """Give the connections back."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
