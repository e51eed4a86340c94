"""`/v1/usage`: what was ordered between two days, as JSON or CSV."""

from __future__ import annotations

from datetime import date
from functools import partial
from typing import Annotated, Any
from urllib.parse import urlencode

from anyio.to_thread import run_sync
from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field

from herder.accounts.usage import Report, read_usage, to_sheet
from herder.clock import clock_us
from herder.domain.paging import MAX_PAGE
from herder.errors import Forbidden
from herder.gateway.auth import Context, ReaderOrOperator
from herder.gateway.schemas.paging import UsageLimit
from herder.store.api_keys import ApiKey
from herder.web.errors import ApiResponse

router = APIRouter(prefix="/v1", tags=["usage"], default_response_class=ApiResponse)

CSV = "text/csv"


class EndsCard(BaseModel):
    """The numbers of orders by how they ended."""

    completed: int
    failed: int
    cancelled: int
    expired: int


class UsageCard(BaseModel):
    """The usage of one account or model; amounts in winston."""

    name: str
    orders: EndsCard
    prompt_tokens: int
    generated: int
    charged: int
    returned: int
    refunded: int


class UsageAnswer(BaseModel):
    """A page of what was used, by name; `next` is the cursor of the page after it."""

    by: str
    first: date = Field(alias="from")
    last: date = Field(alias="to", description="The last day, inclusive.")
    account: str | None
    rows: list[UsageCard]
    next: str | None


@router.get(
    "/usage",
    response_model=UsageAnswer,
    responses={200: {"content": {CSV: {"schema": {"type": "string"}}}}},
)
async def usage(
    context: Context,
    key: ReaderOrOperator,
    request: Request,
    response: Response,
    by: Annotated[str, Query(max_length=20, description="account or model.")] = "account",
    first: Annotated[
        str | None,
        Query(
            alias="from",
            max_length=40,
            description="The first day (UTC), such as 2026-11-25; by default the first of the "
            "last day's month.",
        ),
    ] = None,
    last: Annotated[
        str | None,
        Query(alias="to", max_length=40, description="The last day, inclusive; today by default."),
    ] = None,
    account: Annotated[
        str | None,
        Query(
            max_length=64,
            description="Only this account's usage; for operators, all accounts' by default.",
        ),
    ] = None,
    after: Annotated[str, Query(max_length=200, description="The cursor.")] = "",
    limit: UsageLimit = MAX_PAGE,
) -> Any:
    """Return the usage between two days, by the day on which each order ended.

    With the scope `operate` for every account or the one that is named; without it for the key's
    own. `Accept: text/csv` gives CSV that is safe for spreadsheets, with the page after it in the
    header `Link`.
    """
    whose = _whose(key, account)
    if whose not in (None, key.account):
        await run_sync(context.herd.accounts.balance, whose)  # an unknown one is an error
    report = await run_sync(
        partial(
            read_usage,
            context.herd.database,
            clock_us(),
            by=by,
            first=first,
            last=last,
            account=whose,
            after=after,
            limit=limit,
        )
    )
    if prefers_csv(request.headers.get("accept", "")):
        return _sheet(report, limit)
    response.headers["Vary"] = "Accept"
    return report.to_dict()


def _whose(key: ApiKey, account: str | None) -> str | None:
    """Return the account whose usage a key asks for, if the key may see it.

    Raises:
        Forbidden: it is another account's, and the key is not an operator's.
    """
    if "operate" in key.scopes:
        return account
    if account not in (None, key.account):
        raise Forbidden(key.id, "operate")
    return key.account


def _sheet(report: Report, limit: int) -> Response:
    name = f"usage-{report.first}-{report.last}.csv"
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Vary": "Accept"}
    if report.next is not None:
        given = {"by": report.by, "from": report.first, "to": report.last, "limit": limit}
        if report.account is not None:
            given["account"] = report.account
        query = urlencode(given | {"after": report.next})
        headers["Link"] = f'</v1/usage?{query}>; rel="next"'
    return Response(to_sheet(report.by, report.rows), media_type=CSV, headers=headers)


def prefers_csv(accept: str) -> bool:
    """Return whether a caller would rather have CSV than JSON (RFC 9110, 12.5.1).

    >>> prefers_csv("text/csv"), prefers_csv("*/*"), prefers_csv("text/csv;q=0.5, */*")
    (True, False, False)
    """
    weights: dict[str, float] = {}
    for offer in accept.split(","):
        kind, *parameters = (part.strip().lower() for part in offer.split(";"))
        weight = next((one[2:] for one in parameters if one.startswith("q=")), "1")
        try:
            weights[kind] = float(weight)
        except ValueError:
            weights[kind] = 0.0

    def of(*kinds: str) -> float:
        return next((weights[kind] for kind in kinds if kind in weights), 0.0)

    csv = of(CSV, "text/*", "*/*")
    return csv > of("application/json", "application/*", "*/*")
