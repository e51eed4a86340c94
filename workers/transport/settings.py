"""The settings that both sides need to find each other, `HERD_*`, and how settings are read."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BeforeValidator, Field, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from workers.wire.faults import fault_of

SETTINGS_FILE = "herd.env"
MODEL_NAME = r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,126}$"
_REDIS = ("redis://", "rediss://", "unix://")
_BROKERS = (*_REDIS, "amqp://", "amqps://")

_Settings = TypeVar("_Settings", bound=BaseSettings)


class WrongSetting(Exception):
    """A setting is wrong; the sentence names it, and leaves its value out: it may be a secret."""

    def __init__(self, error: ValidationError) -> None:
        first = error.errors(include_url=False, include_input=False)[0]
        self.name = "HERD_" + "_".join(str(part) for part in first["loc"]).upper()
        told = first.get("ctx", {})
        # Our own validators say what a value must be, and never which it is.
        said = f"is invalid: {told['error']}" if first["type"] == "value_error" else None
        super().__init__(f"The setting {self.name} {said or fault_of(first['type'], told)}.")


def default_home() -> Path:
    """`HERD_HOME`, else `~/.llama-herder`."""
    return Path(os.environ.get("HERD_HOME") or Path.home() / ".llama-herder").expanduser()


def read_settings(kind: type[_Settings], home: Path | None = None, **values: Any) -> _Settings:
    """Read settings of the environment, then of the home folder's file `herd.env`.

    Args:
        kind: the class of settings.
        home: the home folder; None for `HERD_HOME`, else `~/.llama-herder`.
        values: settings that go before both.

    Raises:
        WrongSetting: a value is wrong.
    """
    folder = (home or default_home()).absolute()
    try:
        return kind(_env_file=folder / SETTINGS_FILE, home=folder, **values)
    except ValidationError as error:
        raise WrongSetting(error) from None


def from_text(parse: Callable[[str], object]) -> BeforeValidator:
    """Have a setting that holds more than one value parsed once, where it is read.

    Beside it stands pydantic-settings' `NoDecode`: the text is no JSON. What a program gives as
    it is, parsed, stays.

    Args:
        parse: raises ValueError with what the setting must be.
    """
    return BeforeValidator(lambda value: parse(value) if isinstance(value, str) else value)


class TransportSettings(BaseSettings):
    """The settings with which both Celery apps find each other."""

    model_config = SettingsConfigDict(env_prefix="HERD_", extra="ignore", frozen=True)

    home: Annotated[
        Path, Field(description="The folder of keys and settings (~/.llama-herder by default).")
    ] = Path()
    redis_url: Annotated[
        str,
        Field(
            description="The Redis for heartbeats, control, texts and, unless HERD_BROKER_URL is "
            "set, Celery's queues."
        ),
    ] = "redis://127.0.0.1:6379/0"
    broker_url: Annotated[str, Field(description="Celery's broker; empty for the same Redis.")] = ""
    events: Annotated[
        bool,
        Field(
            description="Whether to send task events, which Flower shows; they make each order "
            "about half as expensive again for the process, apart from the model's own work."
        ),
    ] = True
    log_level: Annotated[
        Literal["DEBUG", "INFO", "WARNING", "ERROR"],
        Field(description="The lowest level that is logged."),
    ] = "INFO"

    @field_validator("redis_url", "broker_url")
    @classmethod
    def _known_address(cls, value: str, info: ValidationInfo) -> str:
        known = _BROKERS if info.field_name == "broker_url" else _REDIS
        if not value.startswith(known) and not (info.field_name == "broker_url" and value == ""):
            raise ValueError(f"it must begin with one of {', '.join(known)}")
        return value

    @property
    def broker(self) -> str:
        """Celery's broker."""
        return self.broker_url or self.redis_url

    @property
    def broker_is_redis(self) -> bool:
        """Whether Celery's queues stand in Redis too."""
        return self.broker.startswith(("redis", "rediss", "unix"))
