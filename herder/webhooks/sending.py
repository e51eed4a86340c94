"""One try at sending a message: a POST whose address is judged at the moment it is connected to.

Written on httpcore, which follows no redirects and reads no proxies from the environment. The name
is resolved here, each of its addresses is judged, and the connection goes to one that was; the
name itself stays in the `Host` header, and in what TLS asks for and checks the certificate
against. So a name that resolves to one address when it is judged and to another when it is
connected to (DNS rebinding) gains nothing: it is resolved once.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import cache
from typing import Protocol

import certifi
import httpcore
import structlog

from herder.errors import InvalidWebhook
from herder.webhooks.addresses import Rules
from herder.webhooks.messages import WebhookRequest
from herder.webhooks.schedule import Reply
from workers.transport.loops import Loop

_log = structlog.get_logger("herder.webhooks")

Resolve = Callable[[str, int], Sequence[str]]
"""The numeric addresses of a name; raises OSError if it has none."""

CONNECT_S = 5.0
"""The longest that one address of a name gets."""

CLOSE_S = 3.0
"""The time that closing waits for the connections to be closed."""

COURTESY_BYTES = 16_384
COURTESY_S = 1.0
"""The bounds, in bytes and seconds, on reading an answer's body: its status says everything."""


class WebhookSender(Protocol):
    """Sends messages."""

    def send(self, request: WebhookRequest, done: Callable[[Reply], None]) -> None:
        """Try once, without waiting; `done` is called once, on any thread."""

    def close(self) -> None:
        """Give up what is on its way: `done` is not called for it."""


class AddressRefused(Exception):
    """The name resolves to where nothing is sent."""


class NameNotFound(Exception):
    """The name resolves to nothing."""


def resolve(host: str, port: int) -> list[str]:
    """Return the addresses of a name, as the system has them, in its order."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class JudgedBackend(httpcore.AsyncNetworkBackend):
    """Connects to what a name resolves to, if all of it may be reached."""

    def __init__(
        self,
        rules: Rules,
        resolver: Resolve,
        inner: httpcore.AsyncNetworkBackend | None = None,
    ) -> None:
        """Judge by rules what a resolver says.

        Args:
            rules: which addresses may be reached.
            resolver: is called on a thread of its own.
            inner: what connects to numeric addresses.
        """
        self._rules = rules
        self._resolve = resolver
        self._inner = inner or httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect, as httpcore asks; `host` is still a name."""
        try:
            addresses = await _on_a_thread(lambda: self._resolve(host, port))
        except (OSError, UnicodeError):
            raise NameNotFound from None
        if not addresses:
            raise NameNotFound
        if self._rules.refused(addresses):
            raise AddressRefused
        trouble: Exception | None = None
        for address in addresses:
            try:
                return await self._inner.connect_tcp(
                    address, port, timeout, local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                trouble = error
        assert trouble is not None, "it has an address"
        raise trouble

    async def connect_unix_socket(self, *_: object, **__: object) -> httpcore.AsyncNetworkStream:
        """Refuse: nothing is sent to sockets of this machine."""
        raise AddressRefused

    async def sleep(self, seconds: float) -> None:
        """Sleep, as httpcore asks."""
        await self._inner.sleep(seconds)


async def _on_a_thread(call: Callable[[], Sequence[str]]) -> Sequence[str]:
    """Return the result of a blocking call.

    Whoever waits may go, and it ends nobody's program late.
    """
    loop = asyncio.get_running_loop()
    found: asyncio.Future[Sequence[str]] = loop.create_future()

    def settle(answer: Sequence[str] | BaseException) -> None:
        if found.done():
            return
        if isinstance(answer, BaseException):
            found.set_exception(answer)
        else:
            found.set_result(answer)

    def run() -> None:
        answer: Sequence[str] | BaseException
        try:
            answer = call()
        except Exception as error:  # noqa: BLE001  (raised where it is awaited)
            answer = error
        with suppress(RuntimeError):  # the loop was closed meanwhile: nobody waits any more
            loop.call_soon_threadsafe(settle, answer)

    # It takes one step, and whoever waits for it has a time limit: no loop.
    threading.Thread(target=run, name="webhook-name", daemon=True).start()
    return await found


@cache
def _tls() -> ssl.SSLContext:
    """Certificates of the authorities that are commonly trusted, and of those this system adds."""
    context = ssl.create_default_context(cafile=certifi.where())
    context.load_default_certs()
    return context


class HttpSender:
    """Sends over HTTP, several messages at once, on one thread of its own."""

    def __init__(
        self,
        rules: Rules,
        *,
        timeout_s: float,
        resolver: Resolve = resolve,
        tls: Callable[[], ssl.SSLContext] = _tls,
    ) -> None:
        """Start the thread.

        Args:
            rules: where messages may go.
            timeout_s: the longest that a try may take, all in all.
            resolver: looks names up.
            tls: whom to trust.
        """
        self._rules = rules
        self._timeout_s = timeout_s
        self._backend = JudgedBackend(rules, resolver)
        self._tls = tls
        self._loop = asyncio.new_event_loop()
        # What ends an event loop (a selector that fails, `SystemExit`) is logged, and it runs on:
        # else messages that were claimed would never be answered, and hold their places.
        self._runner = Loop(
            "webhook-sender", self._loop.run_forever, unblock=self._interrupt, log=_log
        )
        self._runner.start()

    def _interrupt(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)

    def send(self, request: WebhookRequest, done: Callable[[Reply], None]) -> None:
        """See `WebhookSender.send`."""
        future = asyncio.run_coroutine_threadsafe(self.post(request), self._loop)

        def ended(one: Future[Reply]) -> None:
            if one.cancelled():
                return
            error = one.exception()
            if error is not None:
                _log.error("webhook_try_broke", error=type(error).__name__)
            done(one.result() if error is None else Reply(None, "broken"))

        future.add_done_callback(ended)

    async def post(self, request: WebhookRequest) -> Reply:
        """Return one try, whatever comes of it."""
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._post(request)
        except TimeoutError:
            return Reply(None, "timeout")
        except Exception as error:  # noqa: BLE001  (a try that broke is a try that failed)
            trouble = trouble_of(error)
            if trouble == "broken":
                _log.error("webhook_try_broke", error=type(error).__name__)
            return Reply(None, trouble)

    async def _post(self, request: WebhookRequest) -> Reply:
        target = self._rules.parse(request.url)
        url = httpcore.URL(
            scheme=target.scheme.encode(),
            host=target.host.encode(),
            port=target.port,
            target=target.path.encode(),
        )
        headers = {
            "host": target.authority,
            **request.headers,
            "content-length": str(len(request.body)),
            "connection": "close",
        }
        # A connection of its own for each try: what was judged is what is written to.
        async with httpcore.AsyncConnectionPool(
            ssl_context=self._tls() if target.scheme == "https" else None,
            network_backend=self._backend,
            max_connections=1,
            max_keepalive_connections=0,
        ) as pool:
            timeouts = {"connect": min(CONNECT_S, self._timeout_s)}
            async with pool.stream(
                "POST",
                url,
                headers=list(headers.items()),
                content=request.body,
                extensions={"timeout": timeouts},
            ) as response:
                await _read_a_little(response)
                return Reply(response.status, None, _retry_after(response))

    def close(self) -> None:
        """See `WebhookSender.close`."""
        if self._loop.is_closed():
            return
        ending = asyncio.run_coroutine_threadsafe(_cancel_all(), self._loop)
        with suppress(TimeoutError):
            ending.result(CLOSE_S)
        if self._runner.stop(CLOSE_S):
            self._loop.close()


async def _cancel_all() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for one in others:
        one.cancel()
    await asyncio.gather(*others, return_exceptions=True)


async def _read_a_little(response: httpcore.Response) -> None:
    had = 0
    try:
        async with asyncio.timeout(COURTESY_S):
            async for part in response.aiter_stream():
                had += len(part)
                if had > COURTESY_BYTES:
                    return
    except (TimeoutError, httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException):
        return  # it said what it says in its status


def _retry_after(response: httpcore.Response) -> str | None:
    for name, value in response.headers:
        if name.lower() == b"retry-after":
            return value.decode("ascii", errors="replace")[:64]
    return None


def trouble_of(error: Exception) -> str:
    """Return a short stable word for what went wrong; nothing that a receiver wrote is in it."""
    if isinstance(error, (AddressRefused, InvalidWebhook)):
        return "address_refused"
    if isinstance(error, NameNotFound):
        return "name_not_found"
    if isinstance(error, (TimeoutError, httpcore.TimeoutException)):
        return "timeout"
    if isinstance(error, httpcore.ConnectError):
        return "tls" if isinstance(error.__context__, ssl.SSLError) else "unreachable"
    if isinstance(error, httpcore.ProtocolError):
        return "no_http"
    if isinstance(error, (httpcore.NetworkError, OSError)):
        return "cut_off"
    return "broken"
