"""The settings of a gateway, `HERD_*`, beside those of the herder."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from herder.domain.parsing import parse_model
from herder.errors import SetupError
from herder.settings import Settings
from workers.transport.settings import WrongSetting, read_settings
from workers.wire import MAX_TOKENS


class GatewaySettings(Settings):
    """The settings of a gateway."""

    gateway_host: Annotated[
        str,
        Field(
            description="The address that the gateway listens on; 0.0.0.0 for every address of "
            "the host."
        ),
    ] = "127.0.0.1"
    gateway_port: Annotated[
        int, Field(ge=0, le=65_535, description="The gateway's port; 0 for any free one.")
    ] = 8080
    default_tokens: Annotated[
        int,
        Field(
            ge=1,
            le=MAX_TOKENS,
            description="How many tokens a call to OpenAI's routes gets if it gives no number.",
        ),
    ] = 256
    model_aliases: Annotated[
        str,
        Field(
            description="Other names for models, as `name=model`, separated by commas, so that a "
            "program that asks for another provider's model runs unchanged."
        ),
    ] = ""
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
    max_header_bytes: Annotated[
        int,
        Field(
            ge=1024, le=2**20, description="The longest request headers, path included, in bytes."
        ),
    ] = 32_768
    max_request_s: Annotated[
        int,
        Field(ge=1, le=3600, description="Seconds within which a request must arrive completely."),
    ] = 60
    slow_reader_s: Annotated[
        int,
        Field(
            ge=1,
            le=86_400,
            description="Seconds that an answer waits for a caller who does not read it; then the "
            "connection is closed, as if the caller had gone away.",
        ),
    ] = 60
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
        str,
        Field(
            description="Addresses and networks of proxies, separated by commas, whose "
            "`X-Forwarded-For` is trusted; behind any other proxy, all callers count as one "
            "address. `*` for every proxy, empty for none."
        ),
    ] = "127.0.0.1,::1"
    metrics: Annotated[
        Literal["key", "open", "off"],
        Field(
            description="Who may read `/metrics`: `key` for callers whose API key has the scope "
            "`operate`, `open` for everybody, `off` for nobody."
        ),
    ] = "key"

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: str) -> str:
        value = value.strip()
        for one in filter(None, map(str.strip, value.split(",")) if value != "*" else ()):
            try:
                ip_network(one)
            except ValueError:
                raise ValueError(
                    "it must be addresses or networks such as 10.0.0.0/8, separated by commas, or *"
                ) from None
        return value

    @field_validator("model_aliases")
    @classmethod
    def _pairs(cls, value: str) -> str:
        for pair in filter(None, map(str.strip, value.split(","))):
            name, _, model = pair.partition("=")
            if not name.strip() or not model.strip():
                raise ValueError("it must be `name=model` pairs, separated by commas")
            parse_model(model.strip())
        return value

    @property
    def aliases(self) -> dict[str, str]:
        """Other names for models."""
        pairs = (pair.partition("=") for pair in self.model_aliases.split(",") if pair.strip())
        return {name.strip(): model.strip() for name, _, model in pairs}


def load_settings(home: Path | None = None, **values: object) -> GatewaySettings:
    """Read the settings of a gateway.

    Args:
        home: the home folder; None for `HERD_HOME`, else `~/.llama-herder`.
        values: settings that go before environment and file.

    Raises:
        SetupError: a value is wrong; the sentence names it.
    """
    try:
        return read_settings(GatewaySettings, home, **values)
    except WrongSetting as error:
        raise SetupError(str(error), name=error.name) from None
