"""Who calls, and what a route has at hand."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from herder.api_keys import require
from herder.errors import Unauthorized
from herder.gateway.following import Follower
from herder.gateway.looking import look
from herder.gateway.settings import GatewaySettings
from herder.local import LocalHerd
from herder.store.api_keys import ApiKey


@dataclass(frozen=True, slots=True)
class House:
    """What every route works with.

    Attributes:
        herd: the herd.
        follower: the lines that are held.
        settings: of this gateway.
    """

    herd: LocalHerd
    follower: Follower
    settings: GatewaySettings

    def model(self, name: str | None) -> str | None:
        """A model by its own name or another one that stands for it."""
        return None if name is None else self.settings.aliases.get(name, name)


async def house_of(request: Request) -> House:
    """What the app was made with."""
    house: House = request.app.state.house
    return house


_bearer = HTTPBearer(auto_error=False, description="An API key: `herd key create ACCOUNT`.")
AtHome = Annotated[House, Depends(house_of)]


async def _shown_key(
    house: AtHome, shown: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> ApiKey:
    if shown is None:
        raise Unauthorized(
            "Send an API key as `Authorization: Bearer herd_…`; `herd key create ACCOUNT` makes "
            "one."
        )
    return await look(
        house.herd.database, partial(house.herd.api_keys.recognise, shown.credentials)
    )


def _with(scope: str, *others: str) -> Any:
    """What a route asks for whose callers need this scope, or one of the others."""

    async def scoped(key: Annotated[ApiKey, Depends(_shown_key)]) -> ApiKey:
        return key if set(others) & set(key.scopes) else require(key, scope)

    return Depends(scoped)


READS = _with("read")
Buyer = Annotated[ApiKey, _with("buy")]
Reader = Annotated[ApiKey, READS]
Operator = Annotated[ApiKey, _with("operate")]
ReaderOrOperator = Annotated[ApiKey, _with("read", "operate")]
