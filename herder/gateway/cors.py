"""Pages of other origins, whose scripts a browser lets call the gateway (CORS)."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from herder.gateway.limits.guard import RATE_HEADERS
from herder.gateway.prices import HEADER

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
EXPOSED = (
    *("X-Request-Id", "X-Order", "Location", "Retry-After", "x-should-retry"),
    *("X-Max-Tokens", "X-Max-Tokens-Requested"),
    *(HEADER, *(name.decode() for name in RATE_HEADERS)),
)
"""The headers of answers that a page may read, beside those that it may anyway."""
PREFLIGHT_S = 600
"""Seconds for which a browser remembers what it may send."""


def allow(app: FastAPI, origins: tuple[str, ...]) -> None:
    """Have browsers let pages of these origins call an app; of none, they let none.

    What a browser asks ahead of a call (its preflight) is answered without a key, and counts for
    nobody. No cookies or passwords of a browser's own are taken: a page sends an API key.
    """
    if origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=METHODS,
            allow_headers=["*"],
            # A page from the web may call a gateway in the house, where the setting names it.
            allow_private_network=True,
            expose_headers=EXPOSED,
            max_age=PREFLIGHT_S,
        )
