"""The rules for addresses that a webhook may be sent to. Pure.

A client names the address that a herder connects to. Without these rules it could name the
herder's own Redis, the machines beside it, or the cloud's service of credentials. A name is looked
up anew for each connection and what it resolved to is judged then: a name that was judged when it
was written down may resolve to anything later.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from urllib.parse import urlsplit

from herder.errors import InvalidWebhook

Network = IPv4Network | IPv6Network

MAX_URL_CHARS = 2048
MIN_OPEN_PORT = 1024
_PORTS = {"https": 443, "http": 80}
_LOW_PORTS = frozenset(_PORTS.values())
MAX_HOST_CHARS = 253
_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_TARGET = re.compile(r"[!-~]*")

# IANA's registries of special-purpose addresses, and multicast. Python's own lists differ from one
# version to the next.
_REFUSED_4 = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",  # this network
            "10.0.0.0/8",
            "100.64.0.0/10",  # shared by a provider's customers (CGNAT)
            "127.0.0.0/8",
            "169.254.0.0/16",  # link-local, and the clouds' metadata
            "172.16.0.0/12",
            "192.0.0.0/24",
            "192.0.2.0/24",
            "192.31.196.0/24",
            "192.52.193.0/24",
            "192.88.99.0/24",  # relays of 6to4
            "192.168.0.0/16",
            "192.175.48.0/24",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/4",
            "240.0.0.0/4",  # reserved, and broadcast
        ),
    )
)
_GLOBAL_6 = IPv6Network("2000::/3")
"""All that is given out. Outside are loopback, link-local, unique local, multicast, IPv4-mapped,
and both prefixes of NAT64."""
_REFUSED_6 = tuple(
    map(
        IPv6Network,
        (
            "2001::/23",  # protocols; Teredo among them
            "2001:db8::/32",
            "2002::/16",  # 6to4: an IPv4 address inside
            "3fff::/20",
        ),
    )
)


@dataclass(frozen=True, slots=True)
class Target:
    """The target of a request.

    Attributes:
        scheme: `https` or `http`.
        host: a name, or an address without brackets.
        port: as given, or the scheme's own.
        path: path and query.
    """

    scheme: str
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """The `Host` header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Rules:
    """The addresses that an operator allows besides public ones over HTTPS.

    Attributes:
        networks: private ones that may be sent to.
        http: whether plain HTTP may be spoken.
    """

    networks: tuple[Network, ...] = ()
    http: bool = False

    def may_reach(self, address: str) -> bool:
        """Return whether a numeric address may be connected to."""
        try:
            found = ip_address(address)
        except ValueError:
            return False
        return _is_public(found) or any(found in network for network in self.networks)

    def refused(self, addresses: Iterable[str]) -> list[str]:
        """Return those of a name's addresses that may not be connected to."""
        return [address for address in addresses if not self.may_reach(address)]

    def parse(self, url: object) -> Target:
        """Read the address of a webhook.

        Raises:
            InvalidWebhook: it is not a URL, or one that may not be sent to.
        """
        if not isinstance(url, str) or not 1 <= len(url) <= MAX_URL_CHARS:
            raise InvalidWebhook(
                f"A webhook's URL must be text of at most {MAX_URL_CHARS} characters."
            )
        # A parser that is lenient where another is not would look at one host and connect to
        # another: whatever is unusual is refused.
        if not _TARGET.fullmatch(url) or "\\" in url or "#" in url:
            raise InvalidWebhook(
                "A webhook's URL must be ASCII, without spaces, backslashes or a fragment."
            )
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise InvalidWebhook(
                "A webhook's URL must look like https://host[:port]/path."
            ) from None
        if parts.scheme not in _PORTS or not parts.hostname:
            raise InvalidWebhook("A webhook's URL must look like https://host[:port]/path.")
        if parts.scheme == "http" and not self.http:
            raise InvalidWebhook("A webhook's URL must begin with https:// here.")
        if "@" in parts.netloc or "%" in parts.netloc:
            raise InvalidWebhook(
                "A webhook's URL must not contain a user or a zone; the signature says who sends."
            )
        port = _PORTS[parts.scheme] if port is None else port
        if port not in _LOW_PORTS and not MIN_OPEN_PORT <= port <= 65_535:
            raise InvalidWebhook(
                f"A webhook's port must be 443, 80, or at least {MIN_OPEN_PORT}, not {port}."
            )
        host = parts.hostname
        self._check_host(host)
        query = f"?{parts.query}" if parts.query else ""
        return Target(parts.scheme, host, port, f"{parts.path or '/'}{query}")

    def _check_host(self, host: str) -> None:
        try:
            ip_address(host)
        except ValueError:
            labels = host.removesuffix(".").split(".")
            if len(host) > MAX_HOST_CHARS or not all(map(_LABEL.fullmatch, labels)):
                raise InvalidWebhook("The host of a webhook's URL is not a valid name.") from None
            return
        if not self.may_reach(host):
            raise InvalidWebhook(f"Webhooks are not sent to {host}: that address is not public.")


def _is_public(address: IPv4Address | IPv6Address) -> bool:
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _REFUSED_4)
    return address in _GLOBAL_6 and not any(address in network for network in _REFUSED_6)


def parse_networks(text: str) -> tuple[Network, ...]:
    """Networks with commas between, as the setting has them.

    Raises:
        ValueError: one of them is not a network.

    >>> parse_networks("10.0.0.0/8, ::1")
    (IPv4Network('10.0.0.0/8'), IPv6Network('::1/128'))
    """
    return tuple(ip_network(one.strip()) for one in text.split(",") if one.strip())
