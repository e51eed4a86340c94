"""A connection to a gateway, for programs that wait: sends calls, and again where that may help."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from typing import Any, Unpack

import httpx

from herder.client.http.address import Address
from herder.client.http.answers import decoded
from herder.client.http.bounds import read_whole
from herder.client.http.calls import ANSWER_S, Call, of_order
from herder.client.http.failures import PASSING, certificates, error_of
from herder.client.http.retrying import Cut, Outcome, Retries, RetryOptions, retrying
from herder.client.http.sse import ANSWER_ALONE, TextOf, read_events
from herder.errors import HerdError

GLANCE_S = 5.0
"""Seconds that an answer may take of which nothing depends."""


class Connection:
    """A gateway, and the key that one calls it with.

    Args:
        url: of the gateway.
        api_key: as `herd key create` showed it.
        transport: carries the requests; None: httpx's own.
    """

    def __init__(self, url: str, api_key: str, transport: httpx.BaseTransport | None) -> None:
        """Prepare it; nothing is sent yet.

        Raises:
            SetupError: the address or the key is not valid.
        """
        where = Address.of(url, api_key, called="The address")
        self._url = where.url
        self._chance = random.Random()  # noqa: S311 (it only spreads retries)
        with certificates():
            self._http = httpx.Client(
                base_url=where.url,
                headers={"Authorization": f"Bearer {where.api_key}"},
                timeout=ANSWER_S,
                transport=transport,
                limits=httpx.Limits(max_connections=None),
            )

    def send(
        self,
        call: Call,
        *,
        timeout_s: float = ANSWER_S,
        until_s: float | None = None,
        retries: Retries | None = None,
    ) -> Any:
        """Return the JSON of a call's answer; arguments and errors as `ask`."""
        return decoded(self.ask(call, timeout_s, until_s=until_s, retries=retries).content)

    def ask(
        self,
        call: Call,
        timeout_s: float = ANSWER_S,
        *,
        until_s: float | None = None,
        retries: Retries | None = None,
    ) -> httpx.Response:
        """Send a call until it is answered, or its failure lasts.

        Args:
            call: the call.
            timeout_s: seconds that its answer may take.
            until_s: by `time.monotonic`: no pause goes beyond it.
            retries: says whether and when it is sent again.

        Raises:
            HerdError: what the gateway says, or that there is none.
        """
        retries = retries or self.retrying()
        wait_s = next(retries)
        while True:
            if until_s is not None:
                wait_s = min(wait_s, max(0.0, until_s - time.monotonic()))
            if wait_s > 0:
                time.sleep(wait_s)
            outcome: Outcome
            try:
                with self._http.stream(
                    call.method,
                    call.path,
                    content=call.content,
                    headers=call.headers,
                    params=dict(call.query or {}),
                    timeout=timeout_s,
                ) as answer:
                    outcome = read_whole(answer)
            except httpx.RequestError as error:
                outcome = error
            try:
                wait_s = retries.send(outcome)
            except StopIteration as answered:
                whole: httpx.Response = answered.value
                return whole

    def glance(self, path: str) -> Any:
        """Return the JSON of an answer whatever its status, tried once; None where there is none.

        Args:
            path: of what may be asked at any time, and is only told to people.
        """
        try:
            with self._http.stream("GET", path, timeout=GLANCE_S) as answer:
                return decoded(read_whole(answer).content)
        except (httpx.RequestError, HerdError):
            return None

    def retrying(self, **how: Unpack[RetryOptions]) -> Retries:
        """Return whether and when a call is sent again.

        Arguments as `herder.client.http.retrying`.
        """
        return retrying(self._url, self._chance, time.time, **how)

    def _error_of(self, answer: httpx.Response) -> HerdError:
        whole = read_whole(answer)
        return error_of(whole.status_code, whole.content, whole.headers, self._url, time.time())

    def listen(self, order_id: str, text: TextOf) -> Iterator[str]:
        """Yield the text of an order's events, until the line ends or breaks.

        Raises:
            Cut: it was refused for now.
        """
        headers = {"Last-Event-ID": text.last} if text.last else {}
        path = of_order("GET", order_id, "/events").path
        with self._http.stream(
            "GET", path, params=ANSWER_ALONE, headers=headers, timeout=2 * ANSWER_S
        ) as answer:
            if answer.status_code in PASSING:
                raise Cut(self._error_of(answer))
            if not answer.is_success:
                raise self._error_of(answer)
            for event in read_events(answer):
                if more := text.take(event):
                    yield more

    def close(self) -> None:
        """Give the connections back."""
        self._http.close()
