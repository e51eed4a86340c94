"""The page parameters of every list over HTTP: how many rows, and from where on."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query

from herder.domain.paging import MAX_HTTP_PAGE, MAX_PAGE

Limit = Annotated[int, Query(ge=1, le=MAX_HTTP_PAGE)]
UsageLimit = Annotated[int, Query(ge=1, le=MAX_PAGE)]
"""Usage has one short row for an account or a model, so that more of them go on a page."""

IdCursor = Annotated[str | None, Query(max_length=64, description="The cursor.")]
SeqCursor = Annotated[int, Query(ge=0, le=2**62, description="The cursor.")]
