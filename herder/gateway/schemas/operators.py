"""The shapes of what operators ask and are answered; what the values may be is not said here."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr

from herder.accounts.api_keys import MAX_EXPIRY_S
from herder.domain.periods import Every, moment_or_none
from herder.gateway.schemas.orders import Winston
from herder.store.accounts import Standing
from herder.store.api_keys import ApiKey
from herder.store.grants import Grant
from herder.store.herd import Worker
from herder.types import NamedBalance, Receipt


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


# Asked


class NewAccountBody(_Body):
    """An account to be opened."""

    name: StrictStr


class MoveBody(_Body):
    """Money that comes in from the outside, or goes out."""

    amount: Winston
    note: StrictStr | None = Field(None, description="A note of your own, shown in the statement.")


class RefundBody(_Body):
    """A refund of an order's charge."""

    reason: StrictStr = Field(description="The reason, shown in the account's statement.")
    amount: Winston | None = Field(
        None, description="Winston to refund; null for all that can still be refunded."
    )


class LimitsBody(_Body):
    """An account's own limits: 0 for any number, null for the herd's."""

    max_open_orders: StrictInt | None
    tokens_per_minute: StrictInt | None


class NewApiKeyBody(_Body):
    """An API key to be made."""

    name: StrictStr = ""
    scopes: list[Literal["buy", "read", "operate"]] = ["buy", "read"]
    expires_s: StrictInt | None = Field(
        None, ge=1, le=MAX_EXPIRY_S, description="Seconds until the key expires."
    )
    max_fee: Winston | None = Field(None, description="The highest fee that the key may offer.")
    spending_limit: Winston | None = Field(
        None, description="The most that the key may spend in total."
    )


class NewGrantBody(_Body):
    """An amount that an account is given anew in each period."""

    amount: Winston
    every: Every = Field(description="A calendar period in UTC; weeks begin on Monday.")
    starts: StrictStr | None = Field(
        None,
        description="A date such as 2026-11-25: start with the first period that begins on or "
        "after it. Null to start with the current period, which is posted at once.",
        json_schema_extra={"format": "date"},
    )
    note: StrictStr = ""


# Answered


class BalanceCard(BaseModel):
    """An account with what it has, in winston."""

    account: str
    posted: int
    held: int
    available: int

    @classmethod
    def of(cls, one: NamedBalance) -> BalanceCard:
        """Build it from the herd's own object."""
        return cls(account=one.account, posted=one.posted, held=one.held, available=one.available)


class AccountCard(BalanceCard):
    """An account, and where it stands against its limits: its own, or the herd's."""

    open_orders: int
    max_open_orders: int
    tokens_per_minute: int

    @classmethod
    def with_limits(cls, one: NamedBalance, limits: Standing) -> AccountCard:
        """Build it from the herd's own object."""
        return cls(
            **BalanceCard.of(one).model_dump(),
            open_orders=limits.open_orders,
            max_open_orders=limits.max_open_orders,
            tokens_per_minute=limits.tokens_per_minute,
        )


class AccountsAnswer(BaseModel):
    """A page of accounts, by name; `next` is the cursor of the page after it."""

    accounts: list[BalanceCard]
    next: str | None


class MovedAnswer(BaseModel):
    """Money that moved, and what the account has now; the id is the same if it moved before."""

    id: str
    amount: int
    account: BalanceCard


class RefundAnswer(BaseModel):
    """The refund of an order, and its receipt now."""

    id: str
    amount: int
    receipt: Receipt


class ApiKeyCard(BaseModel):
    """An API key, without what only its owner knows; amounts in winston."""

    id: str
    account: str
    name: str
    scopes: list[str]
    created: datetime | None
    expires: datetime | None
    revoked: datetime | None
    max_fee: int | None
    spending_limit: int | None
    held: int
    charged: int

    @classmethod
    def of(cls, key: ApiKey) -> ApiKeyCard:
        """Build it from the herd's own object."""
        return cls(
            id=key.id,
            account=key.account,
            name=key.name,
            scopes=list(key.scopes),
            created=moment_or_none(key.created_us),
            expires=moment_or_none(key.expires_us),
            revoked=moment_or_none(key.revoked_us),
            max_fee=key.max_fee,
            spending_limit=key.spending_limit,
            held=key.held,
            charged=key.charged,
        )


class NewApiKeyAnswer(ApiKeyCard):
    """A new API key; its text is shown here and never again."""

    key: str


class ApiKeysAnswer(BaseModel):
    """A page of an account's API keys, oldest first; `next` is the cursor of the page after it."""

    keys: list[ApiKeyCard]
    next: str | None


class GrantCard(BaseModel):
    """A grant; `next` is when the period begins that is to be posted next.

    A date that no calendar has is null.
    """

    id: str
    account: str
    amount: int
    every: str = Field(description="`day`, `week` or `month`.")
    note: str
    created: datetime | None
    next: datetime | None
    periods: int = Field(description="How many periods were posted.")
    ended: datetime | None
    failure: str | None = Field(
        description="Why it could not be posted: that ended it, or set it aside until it can be."
    )

    @classmethod
    def of(cls, grant: Grant) -> GrantCard:
        """Build it from the herd's own object."""
        return cls(
            id=grant.id,
            account=grant.account,
            amount=grant.amount,
            every=grant.every,
            note=grant.note,
            created=moment_or_none(grant.created_us),
            next=moment_or_none(grant.next_us) if grant.ended_us is None else None,
            periods=grant.periods,
            ended=moment_or_none(grant.ended_us),
            failure=grant.failure,
        )


class GrantsAnswer(BaseModel):
    """A page of an account's grants, oldest first; `next` is the cursor of the page after it."""

    grants: list[GrantCard]
    next: str | None


class WorkerCard(BaseModel):
    """A worker that is here."""

    name: str
    instance: str
    model: str
    state: str = Field(
        description="`alive`, `draining`, or `unreached`: it beats, and no message reaches it by "
        "the broker."
    )
    slots: int
    free: int
    context: int
    tokens_per_s: int = Field(description="The speed of each slot, as the worker measured it.")
    weights: str
    joined: datetime | None
    seen: datetime | None
    clock_ahead_s: int = Field(
        description="By how many seconds the worker's clock is ahead of the herder's; 0 up to 5."
    )

    @classmethod
    def of(cls, one: Worker) -> WorkerCard:
        """Build it from the herd's own object."""
        return cls(
            name=one.name,
            instance=one.instance,
            model=one.model,
            state=one.shown_state,
            slots=one.slots,
            free=one.free,
            context=one.context,
            tokens_per_s=one.tokens_per_s,
            weights=one.weights,
            joined=moment_or_none(one.joined_us),
            seen=moment_or_none(one.seen_us),
            clock_ahead_s=one.clock_ahead_s,
        )


class WorkersAnswer(BaseModel):
    """The workers that are here."""

    workers: list[WorkerCard]


class DrainAnswer(BaseModel):
    """A worker that was told to drain, and its instances."""

    worker: str
    instances: list[str]
