"""The pages that need no API key: what this is, and whether it answers."""

from __future__ import annotations

from fastapi import APIRouter

from herder.gateway.auth import Context
from herder.gateway.prices import digits
from herder.gateway.schemas.answers import AboutAnswer, HealthAnswer, NextPrice
from herder.version import __version__
from herder.web.errors import ApiResponse

router = APIRouter(tags=["herd"], default_response_class=ApiResponse)


@router.get("/")
async def about(context: Context) -> AboutAnswer:
    """Say what this is, where its routes are described, and what the next order would cost."""
    prices = [
        NextPrice(
            model=one.model,
            default=one.is_default,
            multiplier=digits(one),
            prompt_fee=one.rates.prompt_fee,
            fee_per_token=one.rates.fee_per_token,
        )
        for one in await context.prices.all()
    ]
    return AboutAnswer(version=__version__, next_prices=prices)


@router.get("/v1")
async def about_v1(context: Context) -> AboutAnswer:
    """Say what this is, where its routes are described, and what the next order would cost."""
    return await about(context)


@router.get("/health")
async def health() -> HealthAnswer:
    """Return whether this process answers, as `/healthz`."""
    return HealthAnswer()


@router.get("/healthz")
async def healthz() -> HealthAnswer:
    """Return whether this process answers."""
    return HealthAnswer()
