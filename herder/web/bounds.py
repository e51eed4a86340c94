"""The bounds of every HTTP server of ours, as settings: for long heads and slow callers."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field


class HttpBounds(BaseModel):
    """The bounds of a server; its settings' class inherits them."""

    max_header_bytes: Annotated[
        int,
        Field(
            ge=1024, le=2**20, description="The longest request headers, path included, in bytes."
        ),
    ] = 32_768
    max_request_s: Annotated[
        int,
        Field(ge=1, le=3600, description="Seconds within which a request must arrive completely."),
    ] = 60
    slow_reader_s: Annotated[
        int,
        Field(
            ge=1,
            le=86_400,
            description="Seconds that an answer waits for a caller who does not read it; then the "
            "connection is closed, as if the caller had gone away.",
        ),
    ] = 60
