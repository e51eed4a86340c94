"""The herder's settings, `HERD_*`: validated once, passed explicitly.

They come from the environment, then from the file `herd.env` of the home folder. What prices or
ranks is not here: it stands in the database, where `herd init` puts it and `herd model set`
changes it, so that no process prices from an environment of its own.
"""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from herder.domain.pricing import Policy, Rates, parse_multiplier
from herder.errors import HerdError, SetupError
from herder.webhooks.addresses import Rules, parse_networks
from workers.transport.settings import (
    MODEL_NAME,
    TransportSettings,
    WrongSetting,
    read_settings,
)
from workers.wire import MAX_PROMPT_BYTES


class Settings(TransportSettings):
    """What a herder, a client with the herder's settings, and the `herd` command read."""

    database_url: Annotated[
        str,
        Field(
            description="The database, as postgresql://user:password@host/name; "
            "empty: SQLite in the home folder."
        ),
    ] = ""
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
    keep_text_days: Annotated[
        int,
        Field(
            ge=0,
            le=36_500,
            description="Days that prompts and texts of ended orders are kept; 0: for ever. "
            "Receipts and transfers stay.",
        ),
    ] = 0
    webhook_allow_networks: Annotated[
        str,
        Field(
            description="Networks beside the public ones that webhooks may be sent to, with commas "
            "between: 10.1.0.0/16, 127.0.0.1."
        ),
    ] = ""
    webhook_allow_http: Annotated[
        bool, Field(description="Whether webhooks may go over plain HTTP.")
    ] = False
    webhook_timeout_s: Annotated[
        int, Field(ge=1, le=60, description="Seconds that a webhook's receiver has to answer.")
    ] = 15
    webhook_at_once: Annotated[
        int, Field(ge=1, le=256, description="Webhooks that a herder sends at once.")
    ] = 16
    webhook_retries_s: Annotated[
        str,
        Field(
            description="Seconds between the tries at a webhook, with commas between; after the "
            "last it is given up until it is replayed."
        ),
    ] = "5,300,1800,7200,18000,36000,50400,72000,86400"
    webhook_overlap_s: Annotated[
        int,
        Field(
            ge=0,
            le=31_536_000,
            description="Seconds for which a webhook's old secret signs beside the new one.",
        ),
    ] = 86_400
    webhook_keep_days: Annotated[
        int,
        Field(
            ge=0,
            le=36_500,
            description="Days that webhooks are kept that were delivered or given up; 0: for ever.",
        ),
    ] = 30

    @field_validator("webhook_allow_networks")
    @classmethod
    def _networks(cls, value: str) -> str:
        try:
            parse_networks(value)
        except ValueError:
            raise ValueError("it must be networks with commas between") from None
        return value

    @field_validator("webhook_retries_s")
    @classmethod
    def _waits(cls, value: str) -> str:
        waits = [one.strip() for one in value.split(",")]
        if len(waits) > 50 or not all(re.fullmatch(r"[0-9]{1,7}", one) for one in waits):
            raise ValueError("it must be whole numbers of seconds with commas between, 50 at most")
        return value

    @property
    def webhook_retries(self) -> tuple[int, ...]:
        """Seconds between the tries at a webhook."""
        return tuple(int(one) for one in self.webhook_retries_s.split(","))

    @property
    def webhook_rules(self) -> Rules:
        """Where webhooks may be sent."""
        return Rules(parse_networks(self.webhook_allow_networks), self.webhook_allow_http)

    @property
    def database(self) -> str:
        """The database's address."""
        return self.database_url or f"sqlite:///{self.home / 'herd.db'}"

    @property
    def key_path(self) -> Path:
        """Where the herder's private key stands."""
        return Path(self.key_file) if self.key_file else self.home / "herder.jwk"


class InitialPolicy(BaseSettings):
    """What prices and ranks: read from the environment once, by `herd init`, never again."""

    model_config = SettingsConfigDict(env_prefix="HERD_", extra="ignore", frozen=True)

    model: Annotated[str, Field(pattern=MODEL_NAME, description="The default model's name.")] = (
        "smollm2-135m-instruct"
    )
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
    aging_s: Annotated[
        int,
        Field(
            ge=0,
            le=10**9,
            description="Seconds of waiting that weigh as much as a multiplier 2.718 times higher; "
            "0: the multiplier alone ranks.",
        ),
    ] = 0
    max_open_orders: Annotated[
        int,
        Field(
            ge=0,
            le=10**9,
            description="Orders that an account may have open at once; 0: any number.",
        ),
    ] = 10_000
    tokens_per_minute: Annotated[
        int,
        Field(
            ge=0,
            le=10**12,
            description="Words and tokens that an account may order in a minute; 0: any number.",
        ),
    ] = 0

    @field_validator("fee_bump", "auto_multiplier_max")
    @classmethod
    def _at_least_one(cls, value: str) -> str:
        try:
            fraction = parse_multiplier(value)
        except HerdError:
            fraction = Fraction(0)
        if fraction < 1:
            raise ValueError("it must be a finite number of at least 1")
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
            self.aging_s,
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
    try:
        return read_settings(Settings, home, **values)
    except WrongSetting as error:
        raise SetupError(str(error), name=error.name) from None


def load_policy(home: Path | None = None) -> InitialPolicy:
    """Read what `herd init` puts into the database.

    Raises:
        SetupError: a value is wrong; the sentence names it.
    """
    try:
        return read_settings(InitialPolicy, home)
    except WrongSetting as error:
        raise SetupError(str(error), name=error.name) from None
