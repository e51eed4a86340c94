"""The calls of `herder` over HTTP, as methods, for programs that wait."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self, Unpack

import httpx

from herder.client.http.remote_herd import RemoteHerd
from herder.client.order import Order
from herder.errors import HerdError
from herder.interface import CountOptions, OrderOptions, QuoteOptions, order_call_of
from herder.types import Info, Quote, TokenCount


class Client:
    """A herd elsewhere, bought from over HTTP: the calls of `herder`, as methods.

        with Client("https://herd.example", "herd_…") as herd:
            print(herd.submit("What is a llama?", 40, fee=100).result().text)

    Args:
        url: of the gateway.
        api_key: as `herd key create` showed it; the account that pays is its.
        transport: carries the requests; a test's own, else httpx's.
    """

    def __init__(
        self, url: str, api_key: str, *, transport: httpx.BaseTransport | None = None
    ) -> None:
        self._herd = RemoteHerd(url, api_key, transport=transport)

    def submit(
        self,
        prompt: str | None = None,
        tokens: int | None = None,
        *,
        callback: Callable[[str], object] | None = None,
        on_error: Callable[[HerdError], object] | None = None,
        **options: Unpack[OrderOptions],
    ) -> Order:
        """Submit a paid prompt; arguments and errors as `herder.submit`."""
        order = Order(self._herd, self._herd.submit(prompt, tokens, **order_call_of(options)))
        if callback is not None or on_error is not None:
            self._herd.call_back(order.id, callback, on_error)
        return order

    def quote(
        self,
        prompt: str | None = None,
        tokens: int | None = None,
        **options: Unpack[QuoteOptions],
    ) -> Quote:
        """Return the price and the expected wait of an order.

        Arguments and errors as `herder.quote`.
        """
        return self._herd.quote(prompt, tokens, **options)

    def count_tokens(
        self, prompt: str | None = None, **options: Unpack[CountOptions]
    ) -> TokenCount:
        """Count the tokens of a prompt; arguments and errors as `herder.count_tokens`."""
        return self._herd.count_tokens(prompt, **options)

    def info(self) -> Info:
        """Return the models served there, their rates, and the state of queues and herd."""
        return self._herd.info()

    def order(self, order_id: str) -> Order:
        """Return an order that was submitted before.

        Raises:
            OrderNotFound: there is no such order, or it is another account's.
        """
        return Order(self._herd, self._herd.receipt(order_id))

    def close(self) -> None:
        """Give the connections back."""
        self._herd.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
