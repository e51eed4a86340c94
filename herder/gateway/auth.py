"""Authentication of callers, and what each route works with."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

from fastapi import Depends, HTTPException, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from herder.accounts.api_keys import named_id, require
from herder.errors import Unauthorized
from herder.gateway.limits.guard import Limits, address_of
from herder.gateway.outages import ride_out
from herder.gateway.settings import GatewaySettings
from herder.gateway.short_reads import look
from herder.gateway.streams.following import Follower
from herder.gateway.telemetry.metrics import Metrics
from herder.local.local_herd import LocalHerd
from herder.store.api_keys import ApiKey
from herder.web.single_flight import Once

PATIENCE_S = 2.0
"""The time that a call waits for a database that is away before it is refused."""


@dataclass(frozen=True, slots=True)
class House:
    """The context that every route works with.

    Attributes:
        herd: the herd.
        follower: the lines that are held.
        settings: of this gateway.
        limits: on what callers may ask of it.
        ready: what is missing, as `herder.gateway.telemetry.readiness.check` finds it.
        metrics: what is counted here.
    """

    herd: LocalHerd
    follower: Follower
    settings: GatewaySettings
    limits: Limits
    ready: Once[dict[str, str]]
    metrics: Metrics

    def model(self, name: str | None) -> str | None:
        """Return a model by its own name or another one that stands for it."""
        return None if name is None else self.settings.model_aliases.get(name, name)


async def house_of(request: Request) -> House:
    """Return the parts that the app was made with."""
    house: House = request.app.state.house
    return house


_bearer = HTTPBearer(
    auto_error=False,
    description="An API key, from the herd's operator (`herd key create ACCOUNT`).",
)
AtHome = Annotated[House, Depends(house_of)]


async def recognised(
    request: Request,
    house: AtHome,
    shown: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> ApiKey:
    """Return the key that a caller shows; who shows none is counted as a stranger.

    Raises:
        Unauthorized: no valid API key was presented.
        RateLimited: too many invalid keys were presented.
    """
    address = address_of(request.scope)
    text = shown.credentials if shown is not None else ""
    house.limits.may_show(address, named_id(text))
    try:
        key = await _look_up(house, text)
    except Unauthorized:
        house.limits.was_none(address)
        raise
    house.limits.was_good(address, key.id)
    return key


async def _look_up(house: House, text: str) -> ApiKey:
    if not text:
        raise Unauthorized(
            "Send your API key as `Authorization: Bearer herd_…`; the herd's operator creates one."
        )
    read = partial(look, house.herd.database, partial(house.herd.api_keys.recognise, text))
    return await ride_out(read, within_s=PATIENCE_S)


async def _shown_key(house: AtHome, key: Annotated[ApiKey, Depends(recognised)]) -> ApiKey:
    house.limits.key(key.id)
    return key


async def scraper(
    request: Request,
    house: AtHome,
    shown: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> None:
    """Whoever may read `/metrics`, as `HERD_METRICS` says; a key is not counted for it."""
    if house.settings.metrics == "off":
        raise HTTPException(404)
    if house.settings.metrics == "key":
        require(await recognised(request, house, shown), "operate")


def _with(scope: str, *others: str) -> Any:
    """Return the dependency of a route whose callers need this scope, or one of the others."""

    async def scoped(key: Annotated[ApiKey, Depends(_shown_key)]) -> ApiKey:
        return key if set(others) & set(key.scopes) else require(key, scope)

    return Depends(scoped)


READS = _with("read")
Buyer = Annotated[ApiKey, _with("buy")]
Reader = Annotated[ApiKey, READS]
Operator = Annotated[ApiKey, _with("operate")]
ReaderOrOperator = Annotated[ApiKey, _with("read", "operate")]
