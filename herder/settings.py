"""The herder's settings, `HERD_*`: validated once, passed explicitly.

They come from the environment, then from the file `herd.env` of the home folder. What prices or
ranks is not here: it stands in the database, where `herd init` puts it and `herd model set`
changes it, so that no process prices from an environment of its own.
"""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from herder.errors import HerdError, SetupError
from herder.pricing import Policy, Rates, parse_multiplier
from workers.wire import MAX_PROMPT_BYTES

SETTINGS_FILE = "herd.env"


def default_home() -> Path:
    """`HERD_HOME`, else `~/.llama-herder`."""
    return Path(os.environ.get("HERD_HOME") or Path.home() / ".llama-herder").expanduser()


class Settings(BaseSettings):
    """What a herder, a client with the herder's settings, and the `herd` command read."""

    model_config = SettingsConfigDict(env_prefix="HERD_", extra="ignore", frozen=True)

    home: Annotated[
        Path,
        Field(description="The folder of database, keys and settings (default ~/.llama-herder)."),
    ] = Path()
    database_url: Annotated[
        str, Field(description="The database; empty: SQLite in the home folder.")
    ] = ""
    redis_url: Annotated[
        str,
        Field(
            description="Redis, for beats, control, text and, unless HERD_BROKER_URL says "
            "otherwise, Celery's queues."
        ),
    ] = "redis://127.0.0.1:6379/0"
    broker_url: Annotated[str, Field(description="Celery's broker; empty: the same Redis.")] = ""
    key_file: Annotated[
        str, Field(description="The herder's private key; empty: herder.jwk in the home folder.")
    ] = ""
    account: Annotated[str, Field(description="The account that submits where none is named.")] = (
        "default"
    )
    max_prompt_bytes: Annotated[
        int,
        Field(ge=1, le=MAX_PROMPT_BYTES, description="The longest prompt taken, in UTF-8 bytes."),
    ] = 65_536
    claim_s: Annotated[
        int,
        Field(ge=1, le=3600, description="Seconds from dispatch until a worker must show up."),
    ] = 15
    lease_s: Annotated[
        int,
        Field(ge=3, le=3600, description="Seconds of silence that a worker is allowed."),
    ] = 20
    max_attempts: Annotated[
        int,
        Field(ge=1, le=100, description="Workers that an order may be begun by before it fails."),
    ] = 3
    max_dispatches: Annotated[
        int,
        Field(ge=1, le=1000, description="Times that an order may be sent out before it fails."),
    ] = 20
    lookahead: Annotated[
        int,
        Field(
            ge=0,
            le=64,
            description="Orders per worker dispatched ahead of a free slot; a "
            "better one that comes later cannot overtake those.",
        ),
    ] = 0
    events: Annotated[
        bool,
        Field(
            description="Send task events, which Flower shows (half as much again of "
            "worker CPU per order, without the engine's)."
        ),
    ] = True
    log_level: Annotated[
        str, Field(pattern="^(DEBUG|INFO|WARNING|ERROR)$", description="What is logged.")
    ] = "INFO"

    @property
    def database(self) -> str:
        """The database's address."""
        return self.database_url or f"sqlite:///{self.home / 'herd.db'}"

    @property
    def broker(self) -> str:
        """Celery's broker."""
        return self.broker_url or self.redis_url

    @property
    def key_path(self) -> Path:
        """Where the herder's private key stands."""
        return Path(self.key_file) if self.key_file else self.home / "herder.jwk"


class InitialPolicy(BaseSettings):
    """What prices and ranks: read from the environment once, by `herd init`, never again."""

    model_config = SettingsConfigDict(env_prefix="HERD_", extra="ignore", frozen=True)

    model: Annotated[str, Field(description="The default model's name.")] = "smollm2-135m-instruct"
    prompt_fee: Annotated[
        int, Field(ge=1, le=2**40, description="Winston for a prompt, whatever its length.")
    ] = 1
    fee_per_token: Annotated[
        int, Field(ge=0, le=2**40, description="Winston for each word and each token.")
    ] = 1
    fee_bump: Annotated[
        str, Field(description="What the automatic fee is raised by while anything waits.")
    ] = "1.005"
    auto_multiplier_max: Annotated[
        str, Field(description="The most that the automatic fee is of what is needed.")
    ] = "10"
    auto_half_life_s: Annotated[
        int,
        Field(
            ge=0,
            le=10**9,
            description="Seconds without a dispatch in which the last "
            "multiplier halves its way to 1; 0 keeps it.",
        ),
    ] = 600
    bytes_per_word: Annotated[
        int,
        Field(
            ge=0,
            le=10**6,
            description="UTF-8 bytes that count as one word at least; 0 counts "
            "runs of ASCII letters and digits alone.",
        ),
    ] = 16
    charge_unused: Annotated[
        bool,
        Field(description="The original's rule: a completed order is charged its whole fee."),
    ] = False

    @field_validator("fee_bump", "auto_multiplier_max")
    @classmethod
    def _at_least_one(cls, value: str) -> str:
        try:
            fraction = parse_multiplier(value)
        except HerdError as error:
            raise ValueError(str(error)) from None
        if fraction < 1:
            raise ValueError("it must be at least 1")
        return value

    @property
    def policy(self) -> Policy:
        """The values for every model."""
        return Policy(
            Fraction(self.fee_bump),
            Fraction(self.auto_multiplier_max),
            self.auto_half_life_s,
            self.bytes_per_word,
            self.charge_unused,
        )

    @property
    def rates(self) -> Rates:
        """The default model's rates."""
        return Rates(self.prompt_fee, self.fee_per_token)


def load_settings(home: Path | None = None, **values: Any) -> Settings:
    """Read the settings of a home folder.

    Args:
        home: the folder; None for `HERD_HOME`, else `~/.llama-herder`.
        values: settings that go before environment and file.

    Raises:
        SetupError: a value is wrong; the sentence names it.
    """
    folder = (home or default_home()).absolute()
    try:
        return Settings(_env_file=folder / SETTINGS_FILE, home=folder, **values)  # type: ignore[call-arg]
    except ValidationError as error:
        raise wrong_setting(error) from None


def load_policy(home: Path | None = None) -> InitialPolicy:
    """Read what `herd init` puts into the database.

    Raises:
        SetupError: a value is wrong; the sentence names it.
    """
    folder = (home or default_home()).absolute()
    try:
        return InitialPolicy(_env_file=folder / SETTINGS_FILE)  # type: ignore[call-arg]
    except ValidationError as error:
        raise wrong_setting(error) from None


def wrong_setting(error: ValidationError) -> SetupError:
    """One sentence of pydantic's many; the value is left out, for it may be a secret."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    name = "_".join(str(part) for part in first["loc"]).upper()
    return SetupError(f"The setting HERD_{name} is wrong: {first['msg'].lower()}.", name=name)
