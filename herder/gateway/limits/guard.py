"""Limits of a caller at a gateway: the size of headers, and calls per minute.

Callers are counted by their address before anything else is done for them, and by their API key
once it is known to be one. Who shows no good key is counted once more: beyond that limit an address
is heard only with keys that were good there lately, so that guessing keys is slow, and a program
with a key that was revoked does not shut out its neighbours.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from starlette.types import ASGIApp, Receive, Scope, Send

from herder.errors import RateLimited
from herder.gateway.limits.rates import CallRate
from herder.gateway.settings import GatewaySettings
from herder.web.errors import answer_to

UNCOUNTED = frozenset({"/health", "/healthz", "/readyz", "/metrics"})
"""Asked by machines that look after this one, which must not be turned away."""
KNOWN_KEYS = 10_000
RATE_HEADERS = (
    b"x-ratelimit-limit-requests",
    b"x-ratelimit-remaining-requests",
    b"x-ratelimit-reset-requests",
)
"""The names that OpenAI gives to what a key may still do."""


def address_of(scope: Scope) -> str:
    """Return the caller under whom a call is counted.

    An address, or of IPv6 the network that it is in.

    A network of 64 bits is what one customer of a provider gets.
    """
    client = scope.get("client")
    try:
        address = ipaddress.ip_address(client[0] if client else "")
    except ValueError:
        return "unknown"  # by a UNIX socket, or a proxy that does not say
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)


def duration(us: int) -> str:
    """Return a time as OpenAI's headers have it, as Go writes durations; rounded up to 1 ms.

    >>> duration(0), duration(7_500), duration(1_200_000), duration(360_000_000)
    ('0s', '8ms', '1.2s', '6m0s')
    """
    ms = -(-us // 1000)
    if 0 < ms < 1000:
        return f"{ms}ms"
    minutes, ms = divmod(ms, 60_000)
    seconds, ms = divmod(ms, 1000)
    part = f".{ms:03}".rstrip("0") if ms else ""
    return (f"{minutes}m" if minutes else "") + f"{seconds}{part}s"


class CallLimits:
    """Counts the callers of one gateway."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._keys = CallRate("key", settings.requests_per_minute_per_key)
        self._addresses = CallRate("address", settings.requests_per_minute_per_address)
        self._strangers = CallRate("stranger", settings.unauthorized_per_minute)
        self._known: dict[tuple[str, str], None] = {}

    @property
    def rates(self) -> Sequence[CallRate]:
        """Those that gateways share."""
        return self._keys, self._addresses, self._strangers

    def address(self, address: str) -> None:
        """Count a call of an address.

        Raises:
            RateLimited: it made as many as it may.
        """
        wait_s = self._addresses.take(address)
        if wait_s:
            most = self._addresses.per_minute
            raise RateLimited(
                f"Your address may make {most} requests per minute; try again in {wait_s} s.",
                retry_after_s=wait_s,
                requests_per_minute=most,
            )

    def may_show(self, address: str, key_id: str) -> None:
        """Refuse an address whose keys are not looked at for now.

        Args:
            address: who shows it.
            key_id: the id that the key bears, be it one or not.

        Raises:
            RateLimited: too many that it showed lately were none, and this was not good there.
        """
        wait_s = self._strangers.wait_s(address)
        if wait_s and (address, key_id) not in self._known:
            raise RateLimited(
                f"Your address made too many calls without a valid API key; try again in {wait_s} "
                "s.",
                retry_after_s=wait_s,
            )

    def was_good(self, address: str, key_id: str) -> None:
        """Note that an address presented a valid key."""
        self._known.pop((address, key_id), None)
        self._known[address, key_id] = None  # the last of them, so that the oldest is forgotten
        if len(self._known) > KNOWN_KEYS:
            del self._known[next(iter(self._known))]

    def was_none(self, address: str) -> None:
        """Note that an address presented no valid key."""
        self._strangers.count(address)

    def told(self, key_id: str) -> list[tuple[bytes, bytes]]:
        """Return the headers, named as OpenAI's, that say how often a key may still call.

        None where keys are not limited. Tokens are not: an account's tokens a minute are counted
        when it orders.
        """
        if not self._keys.per_minute:
            return []
        left, reset_us = self._keys.standing(key_id)
        told = b"%d" % self._keys.per_minute, b"%d" % left, duration(reset_us).encode()
        return [*zip(RATE_HEADERS, told, strict=True)]

    def key(self, key_id: str) -> None:
        """Count a call that shows a key.

        Raises:
            RateLimited: it was used as often as it may be.
        """
        wait_s = self._keys.take(key_id)
        if wait_s:
            most = self._keys.per_minute
            raise RateLimited(
                f"API key {key_id} may make {most} requests per minute; try again in {wait_s} s.",
                retry_after_s=wait_s,
                requests_per_minute=most,
            )


class RequestGuard:
    """Stands before the app: refuses addresses that call too often."""

    def __init__(self, app: ASGIApp, limits: CallLimits) -> None:
        self._app = app
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a call."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        app = self._refusal(scope) or self._app
        await app(scope, receive, send)

    def _refusal(self, scope: Scope) -> ASGIApp | None:
        if scope["path"] not in UNCOUNTED:
            try:
                self._limits.address(address_of(scope))
            except RateLimited as error:
                return answer_to(error)
        return None
