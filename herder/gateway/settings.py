"""The settings of a gateway, `HERD_*`, beside those of the herder."""

from __future__ import annotations

import re
from ipaddress import ip_network
from typing import Annotated, Literal

from pydantic import Field
from pydantic_settings import NoDecode

from herder.domain.parsing import parse_model
from herder.errors import InvalidName
from herder.settings import Settings
from herder.web.bounds import HttpBounds
from workers.transport.settings import from_text
from workers.wire import MAX_TOKENS

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]{1,5})?")
_OWN_PORTS = {"http": ":80", "https": ":443"}


def _proxies(text: str) -> tuple[str, ...]:
    if text.strip() == "*":
        return ("*",)
    found = tuple(one for one in map(str.strip, text.split(",")) if one)
    for one in found:
        try:
            ip_network(one)
        except ValueError:
            raise ValueError(
                "it must be addresses or networks such as 10.0.0.0/8, separated by commas, or *"
            ) from None
    return found


def _origins(text: str) -> tuple[str, ...]:
    found = tuple(_origin(one) for one in map(str.strip, text.split(",")) if one)
    if "*" in found and len(found) > 1:
        raise ValueError("`*` stands for every origin, and must stand alone")
    return found


def _origin(text: str) -> str:
    if text == "*":
        return text
    origin = text.lower()
    if not _ORIGIN.fullmatch(origin):
        raise ValueError(
            "it must be origins such as https://app.example.com, without a path and separated by "
            "commas, or *"
        )
    # Browsers leave the port out where it is the scheme's own.
    return origin.removesuffix(_OWN_PORTS.get(origin.partition(":")[0], ""))


def _aliases(text: str) -> dict[str, str]:
    found = {}
    for pair in filter(None, map(str.strip, text.split(","))):
        name, _, model = (part.strip() for part in pair.partition("="))
        if not name or not model:
            raise ValueError("it must be `name=model` pairs, separated by commas")
        try:
            found[name] = parse_model(model)
        except InvalidName:
            raise ValueError("one of its models has a name that no model can have") from None
    return found


class GatewaySettings(Settings, HttpBounds):
    """The settings of a gateway."""

    gateway_host: Annotated[
        str,
        Field(
            description="The address that the gateway listens on; 0.0.0.0 for every address of "
            "the host, :: for its IPv6 addresses too."
        ),
    ] = "127.0.0.1"
    gateway_port: Annotated[
        int, Field(ge=0, le=65_535, description="The gateway's port; 0 for any free one.")
    ] = 8080
    gateway_grace_s: Annotated[
        int,
        Field(
            ge=0,
            le=3600,
            description="Seconds that streams and calls that wait have to end when the gateway is "
            "told to stop; then they are answered with an error, and their orders go on.",
        ),
    ] = 8
    disconnect_grace_s: Annotated[
        int,
        Field(
            ge=0,
            le=3600,
            description="Seconds that a caller who disconnected has to come back before the order "
            "that is cancelled by it is; OpenAI's packages repeat a call within 8.",
        ),
    ] = 10
    join_retries: Annotated[
        bool,
        Field(
            description="Whether a call without an `Idempotency-Key` that its client marks as a "
            "repetition (`x-stainless-retry-count`) joins the order of the same call before it, "
            "whose caller disconnected less than a minute ago."
        ),
    ] = True
    default_tokens: Annotated[
        int,
        Field(
            ge=0,
            le=MAX_TOKENS,
            description="How many tokens a call to OpenAI's routes gets at most if it gives no "
            "number; 0 for as many as fit.",
        ),
    ] = 0
    model_aliases: Annotated[
        dict[str, str],
        NoDecode,
        from_text(_aliases),
        Field(
            description="Other names for models, as `name=model`, separated by commas, so that a "
            "program that asks for another provider's model runs unchanged."
        ),
    ] = {}  # noqa: RUF012 (pydantic copies it)
    max_body_bytes: Annotated[
        int, Field(ge=1024, le=2**26, description="The longest request body, in bytes.")
    ] = 1_048_576
    max_streams: Annotated[
        int,
        Field(
            ge=1,
            le=10_000,
            description="Open streams and long polls that a gateway serves at once.",
        ),
    ] = 1000
    max_streams_per_key: Annotated[
        int,
        Field(
            ge=1,
            le=10_000,
            description="Open streams and long polls of one API key at one gateway.",
        ),
    ] = 500
    requests_per_minute_per_key: Annotated[
        int,
        Field(
            ge=0,
            le=10**6,
            description="Requests per minute that an API key may make at all gateways of the herd "
            "together; 0 for no limit.",
        ),
    ] = 6000
    requests_per_minute_per_address: Annotated[
        int,
        Field(
            ge=0,
            le=10**6,
            description="Requests per minute that an address (for IPv6, a /64 network) may make, "
            "whatever keys it uses; 0 for no limit.",
        ),
    ] = 6000
    unauthorized_per_minute: Annotated[
        int,
        Field(
            ge=0,
            le=10**6,
            description="Calls per minute without a valid API key that an address may make; "
            "beyond that, only keys that were valid there recently are accepted from it. 0 for "
            "no limit.",
        ),
    ] = 600
    trusted_proxies: Annotated[
        tuple[str, ...],
        NoDecode,
        from_text(_proxies),
        Field(
            description="Addresses and networks of proxies, separated by commas, whose "
            "`X-Forwarded-For` is trusted; behind any other proxy, all callers count as one "
            "address. `*` for every proxy, empty for none."
        ),
    ] = ("127.0.0.1", "::1")
    cors_origins: Annotated[
        tuple[str, ...],
        NoDecode,
        from_text(_origins),
        Field(
            description="Origins of web pages, separated by commas, that browsers let call the "
            "gateway (CORS); `*` for every page, empty for none."
        ),
    ] = ()
    metrics: Annotated[
        Literal["key", "open", "off"],
        Field(
            description="Who may read `/metrics`: `key` for callers whose API key has the scope "
            "`operate`, `open` for everybody, `off` for nobody."
        ),
    ] = "key"
