"""The herd, its models, the caller's account; and whether this gateway can serve."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from functools import partial
from typing import Annotated, Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends, Header, Response
from fastapi.responses import PlainTextResponse

from herder.domain.paging import MAX_HTTP_PAGE, page_of
from herder.domain.parsing import EPOCH
from herder.domain.signed_tokens import to_jwks
from herder.errors import ModelNotFound, shown
from herder.gateway.auth import READS, Context, GatewayContext, Reader, scraper
from herder.gateway.openapi import refusals
from herder.gateway.schemas.answers import (
    KeysAnswer,
    ModelCard,
    ModelsAnswer,
    ReadyAnswer,
)
from herder.gateway.schemas.orders import AccountAnswer, KeyAnswer, StatementAnswer
from herder.gateway.schemas.paging import Limit, SeqCursor
from herder.local.readiness import OK
from herder.types import Info
from herder.web.errors import ApiResponse

router = APIRouter(tags=["herd"], default_response_class=ApiResponse)


@router.get("/v1/info", dependencies=[READS])
async def info(context: Context) -> Info:
    """Return the herd's name, rates, queues and workers."""
    return await run_sync(context.herd.info)


@router.get("/v1/models", dependencies=[READS])
async def models(context: Context) -> ModelsAnswer:
    """Return the models, in OpenAI's form, with their rates; other names for them too."""
    return ModelsAnswer(data=await _cards(context))


@router.get("/v1/models/{model:path}", dependencies=[READS])
async def model(model: str, context: Context) -> ModelCard:
    """Return one model, by its name or another name for it."""
    cards = {card.id: card for card in await _cards(context)}
    if model not in cards:
        raise ModelNotFound(shown(model), list(cards))
    return cards[model]


async def _cards(context: GatewayContext) -> list[ModelCard]:
    found = await run_sync(context.herd.info)
    return [
        ModelCard(
            id=name,
            owned_by=found.name,
            alias_of=one.name if name != one.name else None,
            default=name == found.default_model,
            context=one.context,
            default_tokens=context.settings.default_tokens,
            rates=one.rates,
            weights=one.weights,
            queue_length=one.queue_length,
            wait_s=one.wait_s,
            workers=one.workers,
        )
        for one in found.models
        for name in (
            one.name,
            *(
                alias
                for alias, model in context.settings.model_aliases.items()
                if model == one.name
            ),
        )
    ]


@router.get("/v1/account", response_model=AccountAnswer)
async def account(context: Context, key: Reader) -> dict[str, Any]:
    """Return the account's balance, and how much of it the key may still spend."""
    found = await run_sync(context.herd.accounts.balance, key.account)
    return {
        **asdict(found),
        "key": KeyAnswer(
            id=key.id,
            scopes=list(key.scopes),
            max_fee=key.max_fee,
            spending_limit=key.spending_limit,
            held=key.held,
            charged=key.charged,
        ),
    }


@router.get("/v1/account/statement", response_model=StatementAnswer)
async def statement(
    context: Context,
    key: Reader,
    after: SeqCursor = 0,
    limit: Limit = MAX_HTTP_PAGE,
) -> dict[str, Any]:
    """Return the account's statement, oldest entries first, a page at a time."""
    return await statement_of(context, key.account, after, limit)


async def statement_of(
    context: GatewayContext, name: str, after: int, limit: int
) -> dict[str, Any]:
    """Return a page of an account's statement, as it is answered."""
    entries = await run_sync(partial(context.herd.statement, name, after=after, limit=limit + 1))
    page = page_of(entries, limit, lambda one: one.seq)
    return {
        "entries": [
            asdict(one) | {"at": EPOCH + timedelta(microseconds=one.at_us)} for one in page.items
        ],
        "next": page.next,
    }


@router.get("/.well-known/jwks.json", response_model=KeysAnswer, responses=refusals(429, 503))
async def keys(context: Context) -> dict[str, Any]:
    """Return the public keys that verify signed receipts."""
    return to_jwks((await run_sync(context.herd.public_keys)).values())


@router.get(
    "/readyz",
    response_model=ReadyAnswer,
    responses={
        503: {"model": ReadyAnswer, "description": "Something that an order needs is missing."}
    },
)
async def readyz(context: Context) -> ApiResponse:
    """Return whether orders that come in now would be run: 503 with what is missing, else 200."""
    checks = await context.ready()
    ready = all(found == OK for found in checks.values())
    return ApiResponse({"ready": ready, "checks": checks}, 200 if ready else 503)


@router.get(
    "/metrics",
    response_class=PlainTextResponse,
    dependencies=[Depends(scraper)],
    responses=refusals(404),
)
async def metrics(
    context: Context, accept: Annotated[str, Header(include_in_schema=False)] = ""
) -> Response:
    """Return the metrics of the gateway and the herd, in Prometheus form."""
    page, content_type = await context.metrics.page(accept)
    return Response(page, headers={"Content-Type": content_type})
