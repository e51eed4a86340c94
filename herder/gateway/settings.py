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
    """What a gateway reads."""

    gateway_host: Annotated[
        str, Field(description="Where the gateway listens; 0.0.0.0 for every address of the host.")
    ] = "127.0.0.1"
    gateway_port: Annotated[int, Field(ge=0, le=65_535, description="Its port; 0: any.")] = 8080
    default_tokens: Annotated[
        int,
        Field(
            ge=1,
            le=MAX_TOKENS,
            description="Tokens of a call to OpenAI's routes that says no number.",
        ),
    ] = 256
    model_aliases: Annotated[
        str,
        Field(
            description="Other names for models, `name=model` with commas between, so that a "
            "program that asks for another provider's model runs unchanged."
        ),
    ] = ""
    max_body_bytes: Annotated[
        int, Field(ge=1024, le=2**26, description="The longest body of a request.")
    ] = 1_048_576
    max_streams: Annotated[
        int,
        Field(ge=1, le=10_000, description="Streams and held lines that a gateway has at once."),
    ] = 1000
    max_streams_per_key: Annotated[
        int,
        Field(ge=1, le=10_000, description="Those of one API key, at one gateway."),
    ] = 500
    max_header_bytes: Annotated[
        int,
        Field(ge=1024, le=2**20, description="The longest head of a request, its path included."),
    ] = 32_768
    max_request_s: Annotated[
        int,
        Field(ge=1, le=3600, description="Seconds in which a request has to have come in whole."),
    ] = 60
    slow_reader_s: Annotated[
        int,
        Field(
            ge=1,
            le=86_400,
            description="Seconds that an answer waits for a caller who does not read it; then the "
            "line is cut, as if he had gone away.",
        ),
    ] = 60
    requests_per_minute_per_key: Annotated[
        int,
        Field(
            ge=0,
            le=10**6,
            description="Requests that an API key may make in a minute, at all gateways of the "
            "herd together; 0: any number.",
        ),
    ] = 6000
    requests_per_minute_per_address: Annotated[
        int,
        Field(
            ge=0,
            le=10**6,
            description="The same of an address (of IPv6: a network of 64 bits), whatever keys it "
            "shows; 0: any number.",
        ),
    ] = 6000
    unauthorized_per_minute: Annotated[
        int,
        Field(
            ge=0,
            le=10**6,
            description="Calls without a good API key that an address may make in a minute, before "
            "it is heard only with keys that were good there lately; 0: any number.",
        ),
    ] = 600
    trusted_proxies: Annotated[
        str,
        Field(
            description="Addresses and networks of proxies, with commas between, whose "
            "`X-Forwarded-For` is believed: behind any other, all callers are one address. "
            "`*`: of everybody; empty: of nobody."
        ),
    ] = "127.0.0.1,::1"
    metrics: Annotated[
        Literal["key", "open", "off"],
        Field(
            description="Who may read `/metrics`: who shows an API key with the scope `operate`, "
            "anybody, or nobody."
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
                    "it must be addresses or networks (10.0.0.0/8), with commas between, or *"
                ) from None
        return value

    @field_validator("model_aliases")
    @classmethod
    def _pairs(cls, value: str) -> str:
        for pair in filter(None, map(str.strip, value.split(","))):
            name, _, model = pair.partition("=")
            if not name.strip() or not model.strip():
                raise ValueError("it must be `name=model`, with commas between")
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
