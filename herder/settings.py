"""The herder's settings, `HERD_*`: validated once, passed explicitly.

They come from the environment, then from the file `herd.env` of the home folder. What prices or
ranks is not here: it stands in the database, where `herd init` puts it and `herd model set`
changes it, so that no process prices from an environment of its own.
"""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Field
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from herder.domain.pricing import Policy, Rates, parse_multiplier
from herder.errors import HerdError, SetupError
from herder.webhooks.addresses import Network, Rules, parse_networks
from herder.webhooks.schedule import RETRIES_S
from workers.transport.settings import (
    MODEL_NAME,
    TransportSettings,
    WrongSetting,
    from_text,
    read_settings,
)
from workers.wire import MAX_PROMPT_BYTES, MAX_SCHEMA_CHARS

_Kind = TypeVar("_Kind", bound=BaseSettings)


def _networks(text: str) -> tuple[Network, ...]:
    try:
        return parse_networks(text)
    except ValueError:
        raise ValueError("it must be networks, separated by commas") from None


def _waits(text: str) -> tuple[int, ...]:
    waits = [one.strip() for one in text.split(",")]
    if len(waits) > 50 or not all(re.fullmatch(r"[0-9]{1,7}", one) for one in waits):
        raise ValueError("it must be whole numbers of seconds, separated by commas, at most 50")
    return tuple(map(int, waits))


def _factor(text: str) -> Fraction:
    try:
        fraction = parse_multiplier(text)
    except HerdError:
        fraction = Fraction(0)
    if fraction < 1:
        raise ValueError("it must be a finite number of at least 1")
    return fraction


class Settings(TransportSettings):
    """The settings of a herder, of clients beside it, and of the `herd` command."""

    database_url: Annotated[
        str,
        Field(
            description="The database, as postgresql://user:password@host/name; empty for SQLite "
            "in the home folder."
        ),
    ] = ""
    key_file: Annotated[
        str,
        Field(
            description="The file of the herder's private key; empty for herder.jwk in the home "
            "folder."
        ),
    ] = ""
    account: Annotated[str, Field(description="The account that pays where none is named.")] = (
        "default"
    )
    model: Annotated[
        str,
        Field(
            pattern=rf"^$|{MODEL_NAME}",
            description="The model that the herd serves; empty for the one that it serves.",
        ),
    ] = ""
    max_prompt_bytes: Annotated[
        int,
        Field(
            ge=1, le=MAX_PROMPT_BYTES, description="The longest prompt accepted, in UTF-8 bytes."
        ),
    ] = 65_536
    max_schema_bytes: Annotated[
        int,
        Field(
            ge=1,
            le=MAX_SCHEMA_CHARS,
            description="The longest JSON schema accepted, in UTF-8 bytes.",
        ),
    ] = 262_144
    claim_s: Annotated[
        int,
        Field(
            ge=1,
            le=3600,
            description="Seconds within which a worker must claim an order that it was sent while "
            "it has a free slot; then the order is sent to another, and the worker none until a "
            "message has reached it again.",
        ),
    ] = 5
    lease_s: Annotated[
        int,
        Field(
            ge=3,
            le=3600,
            description="Seconds that a worker may be silent before its orders are taken back.",
        ),
    ] = 20
    max_attempts: Annotated[
        int,
        Field(ge=1, le=100, description="How many workers may start an order before it fails."),
    ] = 3
    max_dispatches: Annotated[
        int,
        Field(
            ge=1, le=1000, description="How many times an order may be dispatched before it fails."
        ),
    ] = 20
    lookahead: Annotated[
        int,
        Field(
            ge=0,
            le=64,
            description="Orders per worker that are dispatched before a slot is free; a better "
            "order that comes later cannot overtake them.",
        ),
    ] = 0
    keep_text_days: Annotated[
        int,
        Field(
            ge=0,
            le=36_500,
            description="Days for which prompts and texts of ended orders are kept; 0 for ever. "
            "Receipts and transfers are always kept.",
        ),
    ] = 0
    webhook_allow_networks: Annotated[
        tuple[Network, ...],
        NoDecode,
        from_text(_networks),
        Field(
            description="Networks that webhooks may be sent to besides public addresses, "
            "separated by commas, such as 10.1.0.0/16, 127.0.0.1."
        ),
    ] = ()
    webhook_allow_http: Annotated[
        bool, Field(description="Whether webhooks may be sent over plain HTTP.")
    ] = False
    webhook_timeout_s: Annotated[
        int,
        Field(ge=1, le=60, description="Seconds within which a webhook's receiver must answer."),
    ] = 15
    webhook_at_once: Annotated[
        int, Field(ge=1, le=256, description="How many webhooks a herder sends at the same time.")
    ] = 16
    webhook_retries_s: Annotated[
        tuple[int, ...],
        NoDecode,
        from_text(_waits),
        Field(
            description="Seconds between the attempts to send a webhook, separated by commas; "
            "after the last it is given up until it is replayed."
        ),
    ] = RETRIES_S
    webhook_overlap_s: Annotated[
        int,
        Field(
            ge=0,
            le=31_536_000,
            description="Seconds for which a webhook's old secret signs together with the new one.",
        ),
    ] = 86_400
    webhook_keep_days: Annotated[
        int,
        Field(
            ge=0,
            le=36_500,
            description="Days for which delivered and given-up webhooks are kept; 0 for ever.",
        ),
    ] = 30

    @property
    def webhook_rules(self) -> Rules:
        """Where webhooks may be sent."""
        return Rules(self.webhook_allow_networks, self.webhook_allow_http)

    @property
    def database(self) -> str:
        """The database's address."""
        return self.database_url or f"sqlite:///{self.home / 'herd.db'}"

    @property
    def key_path(self) -> Path:
        """Where the herder's private key stands."""
        return Path(self.key_file) if self.key_file else self.home / "herder.jwk"


class InitialPolicy(BaseSettings):
    """The settings for prices and ranks, which only `herd init` reads from the environment."""

    model_config = SettingsConfigDict(env_prefix="HERD_", extra="ignore", frozen=True)

    model: Annotated[
        str, Field(pattern=MODEL_NAME, description="The name of the default model.")
    ] = "smollm2-135m-instruct"
    prompt_fee: Annotated[
        int, Field(ge=1, le=2**40, description="Winston per prompt, whatever its length.")
    ] = 1
    fee_per_token: Annotated[
        int, Field(ge=0, le=2**40, description="Winston per word and per token.")
    ] = 1
    fee_bump: Annotated[
        Fraction,
        from_text(_factor),
        Field(
            description="The factor by which the automatic fee is raised while orders are waiting."
        ),
    ] = Fraction("1.005")
    auto_multiplier_max: Annotated[
        Fraction,
        from_text(_factor),
        Field(description="The automatic fee is at most this many times what the order needs."),
    ] = Fraction("10")
    auto_half_life_s: Annotated[
        int,
        Field(
            ge=0,
            le=10**9,
            description="Seconds without a dispatch after which the last multiplier is halfway "
            "back to 1; 0 to keep it.",
        ),
    ] = 600
    bytes_per_word: Annotated[
        int,
        Field(
            ge=0,
            le=10**6,
            description="A prompt counts at least one word for this many UTF-8 bytes; 0 to count "
            "only runs of ASCII letters and digits.",
        ),
    ] = 16
    charge_unused: Annotated[
        bool,
        Field(
            description="Whether a completed order is charged its whole fee, as in the original "
            "system, instead of only what it used."
        ),
    ] = False
    aging_s: Annotated[
        int,
        Field(
            ge=0,
            le=10**9,
            description="Seconds of waiting that count as much as a multiplier 2.718 times "
            "higher; 0 to rank by the multiplier alone.",
        ),
    ] = 0
    max_open_orders: Annotated[
        int,
        Field(
            ge=0,
            le=10**9,
            description="Orders that an account may have open at once; 0 for no limit.",
        ),
    ] = 10_000
    tokens_per_minute: Annotated[
        int,
        Field(
            ge=0,
            le=10**12,
            description="Words and tokens that an account may order per minute; 0 for no limit.",
        ),
    ] = 0

    @property
    def policy(self) -> Policy:
        """The values for every model."""
        return Policy(
            self.fee_bump,
            self.auto_multiplier_max,
            self.auto_half_life_s,
            self.bytes_per_word,
            self.charge_unused,
            self.aging_s,
        )

    @property
    def rates(self) -> Rates:
        """The default model's rates."""
        return Rates(self.prompt_fee, self.fee_per_token)


def load(kind: type[_Kind], home: Path | None = None, **values: Any) -> _Kind:
    """Read settings of a home folder: a herder's, a gateway's, a room's or the first policy.

    Args:
        kind: the class of settings.
        home: the folder; None for `HERD_HOME`, else `~/.llama-herder`.
        values: settings that go before environment and file.

    Raises:
        SetupError: a value is wrong; the sentence names it.
    """
    try:
        return read_settings(kind, home, **values)
    except WrongSetting as error:
        raise SetupError(str(error), name=error.name) from None


def load_settings(home: Path | None = None, **values: Any) -> Settings:
    """Read the herder's settings; arguments and errors as `load`."""
    return load(Settings, home, **values)


def load_policy(home: Path | None = None) -> InitialPolicy:
    """Read what `herd init` puts into the database; arguments and errors as `load`."""
    return load(InitialPolicy, home)
