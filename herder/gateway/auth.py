"""Authentication of callers, and what each route works with."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

from fastapi import Depends, HTTPException, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from herder.accounts.api_keys import named_id, require
from herder.errors import Unauthorized
from herder.gateway.limits.guard import CallLimits, address_of
from herder.gateway.outages import ride_out
from herder.gateway.prices import Prices
from herder.gateway.repetitions import Repetitions
from herder.gateway.settings import GatewaySettings
from herder.gateway.short_reads import look
from herder.gateway.streams.following import Follower
from herder.gateway.streams.readers import Readers
from herder.gateway.telemetry.metrics import GatewayMetrics
from herder.local.local_herd import LocalHerd
from herder.store.api_keys import ApiKey
from herder.web.request_ids import add_headers
from herder.web.single_flight import Once
from herder.web.stopping import Stopping

PATIENCE_S = 2.0
"""The time that a call waits for a database that is away before it is refused."""


@dataclass(frozen=True, slots=True)
class GatewayContext:
    """The context that every route works with.

    Attributes:
        herd: the herd.
        follower: the lines that are held.
        settings: of this gateway.
        limits: on what callers may ask of it.
        ready: what is missing, as `herder.local.readiness.check` finds it.
        metrics: what is counted here.
        stopping: what becomes of open calls when the gateway is told to stop.
        readers: who reads an order; cancels what nobody reads any more.
        repetitions: the keys of calls that clients repeat by themselves.
        prices: of the next order.
    """

    herd: LocalHerd
    follower: Follower
    settings: GatewaySettings
    limits: CallLimits
    ready: Once[dict[str, str]]
    metrics: GatewayMetrics
    stopping: Stopping
    readers: Readers
    repetitions: Repetitions
    prices: Prices

    def model(self, name: str | None) -> str | None:
        """Return a model by its own name or another one that stands for it."""
        return None if name is None else self.settings.model_aliases.get(name, name)


async def context_of(request: Request) -> GatewayContext:
    """Return the parts that the app was made with."""
    context: GatewayContext = request.app.state.context
    return context


_bearer = HTTPBearer(
    auto_error=False,
    description="An API key, from the herd's operator.",
)
_Shown = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
Context = Annotated[GatewayContext, Depends(context_of)]


async def recognised(
    request: Request, context: GatewayContext, shown: HTTPAuthorizationCredentials | None
) -> ApiKey:
    """Return the key that a caller shows; who shows none is counted as a stranger.

    Raises:
        Unauthorized: no valid API key was presented.
        RateLimited: too many invalid keys were presented.
    """
    address = address_of(request.scope)
    text = shown.credentials if shown is not None else ""
    context.limits.may_show(address, named_id(text))
    try:
        key = await _look_up(context, text)
    except Unauthorized:
        context.limits.was_none(address)
        raise
    context.limits.was_good(address, key.id)
    return key


async def _look_up(context: GatewayContext, text: str) -> ApiKey:
    if not text:
        raise Unauthorized(
            "Send your API key as `Authorization: Bearer herd_…`; the herd's operator creates one."
        )
    read = partial(look, context.herd.database, partial(context.herd.api_keys.recognise, text))
    return await ride_out(read, within_s=PATIENCE_S)


async def scraper(
    request: Request,
    context: Context,
    shown: _Shown,
) -> None:
    """Whoever may read `/metrics`, as `HERD_METRICS` says; a key is not counted for it."""
    if context.settings.metrics == "off":
        raise HTTPException(404)
    if context.settings.metrics == "key":
        require(await recognised(request, context, shown), "operate")


def _with(scope: str, *others: str) -> Any:
    """Return the dependency of a route whose callers need this scope, or one of the others.

    It calls what it needs itself: each dependency of a dependency costs FastAPI, at every call,
    as much as a look into the database.
    """

    async def scoped(request: Request, shown: _Shown) -> ApiKey:
        context = await context_of(request)
        key = await recognised(request, context, shown)
        try:
            context.limits.key(key.id)
        finally:
            add_headers(request, context.limits.told(key.id))
        return key if set(others) & set(key.scopes) else require(key, scope)

    return Depends(scoped)


READS = _with("read")
Buyer = Annotated[ApiKey, _with("buy")]
Reader = Annotated[ApiKey, READS]
Operator = Annotated[ApiKey, _with("operate")]
ReaderOrOperator = Annotated[ApiKey, _with("read", "operate")]
