"""The settings of a gateway, `HERD_*`, beside those of the herder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator

from herder.errors import SetupError
from herder.settings import Settings
from herder.submission import parse_model
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
