"""The pages that need no API key: what this is, and whether it answers."""

from __future__ import annotations

from fastapi import APIRouter

from herder.gateway.schemas.answers import AboutAnswer, HealthAnswer
from herder.version import __version__
from herder.web.errors import ApiResponse

router = APIRouter(tags=["herd"], default_response_class=ApiResponse)


@router.get("/")
async def about() -> AboutAnswer:
    """Say what this is, and where its routes are described."""
    return AboutAnswer(version=__version__)


@router.get("/v1")
async def about_v1() -> AboutAnswer:
    """Say what this is, and where its routes are described."""
    return AboutAnswer(version=__version__)


@router.get("/health")
async def health() -> HealthAnswer:
    """Return whether this process answers, as `/healthz`."""
    return HealthAnswer()


@router.get("/healthz")
async def healthz() -> HealthAnswer:
    """Return whether this process answers."""
    return HealthAnswer()
