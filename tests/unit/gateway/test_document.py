"""The gateway's OpenAPI document: made at its start, when nobody waits."""

from __future__ import annotations

import asyncio
from contextlib import closing

from herder.gateway.app import make_app
from herder.gateway.settings import GatewaySettings
from herder.local.local_herd import LocalHerd


def test_the_document_is_made_before_anybody_is_served(make_house):
    settings = GatewaySettings(**make_house().settings.model_dump())

    async def start(app) -> None:
        async with app.router.lifespan_context(app):
            assert app.openapi_schema is not None
            assert app.openapi() is app.openapi_schema

    with closing(LocalHerd(settings)) as herd:
        asyncio.run(asyncio.wait_for(start(make_app(herd, settings)), 120))
