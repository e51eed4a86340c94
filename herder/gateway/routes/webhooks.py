"""`/v1/webhooks`: where the key's account is told of its orders."""

from __future__ import annotations

from functools import partial
from typing import Any

from anyio.to_thread import run_sync
from fastapi import APIRouter
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StrictBool, StrictStr

from herder.domain.paging import MAX_HTTP_PAGE
from herder.gateway.auth import Buyer, Context, Reader
from herder.gateway.schemas.paging import IdCursor, Limit
from herder.web.errors import ApiResponse
from herder.webhooks.views import shown, shown_delivery

router = APIRouter(prefix="/v1/webhooks", tags=["webhooks"], default_response_class=ApiResponse)


class WebhookBody(BaseModel):
    """The address of a webhook, and its events."""

    model_config = ConfigDict(extra="forbid")

    url: StrictStr
    types: list[StrictStr] | None = Field(None, description="By default the ends of orders.")
    include_text: StrictBool = False


class ReplayBody(BaseModel):
    """The messages to send again: all that were given up, by default."""

    model_config = ConfigDict(extra="forbid")

    message: StrictStr | None = None
    since: AwareDatetime | None = None
    until: AwareDatetime | None = None
    delivered: StrictBool = False


@router.post("", status_code=201)
async def create(body: WebhookBody, context: Context, key: Buyer) -> dict[str, Any]:
    """Have the account told at an address; the answer holds the secret: this once."""
    made, secret = await run_sync(
        partial(
            context.herd.webhooks.create,
            key.account,
            body.url,
            types=body.types,
            include_text=body.include_text,
        )
    )
    return shown(made) | {"secret": secret}


@router.get("")
async def webhooks(context: Context, key: Reader) -> dict[str, Any]:
    """Return the account's webhooks, oldest first."""
    found = await run_sync(context.herd.webhooks.list, key.account)
    return {"webhooks": [shown(one) for one in found]}


@router.get("/{webhook}")
async def webhook_as_it_stands(webhook: str, context: Context, key: Reader) -> dict[str, Any]:
    """Return a webhook."""
    found = await run_sync(partial(context.herd.webhooks.get, webhook, account=key.account))
    return shown(found)


@router.delete("/{webhook}")
async def delete(webhook: str, context: Context, key: Buyer) -> dict[str, Any]:
    """Forget a webhook, and all that was to be sent there."""
    await run_sync(partial(context.herd.webhooks.delete, webhook, account=key.account))
    return {"id": webhook, "deleted": True}


@router.post("/{webhook}/rotate")
async def rotate(webhook: str, context: Context, key: Buyer) -> dict[str, Any]:
    """Give it another secret, which the answer holds; the old one signs as well for a while."""
    made, secret = await run_sync(
        partial(context.herd.webhooks.rotate, webhook, account=key.account)
    )
    return shown(made) | {"secret": secret}


@router.post("/{webhook}/disable")
async def disable(webhook: str, context: Context, key: Buyer) -> dict[str, Any]:
    """Send nothing there, until it is enabled."""
    return shown(
        await run_sync(partial(context.herd.webhooks.disable, webhook, account=key.account))
    )


@router.post("/{webhook}/enable")
async def enable(webhook: str, context: Context, key: Buyer) -> dict[str, Any]:
    """Send there again."""
    return shown(
        await run_sync(partial(context.herd.webhooks.enable, webhook, account=key.account))
    )


@router.get("/{webhook}/deliveries")
async def deliveries(
    webhook: str,
    context: Context,
    key: Reader,
    state: str | None = None,
    before: IdCursor = None,
    limit: Limit = MAX_HTTP_PAGE,
) -> dict[str, Any]:
    """Return the deliveries to an endpoint, sent and pending, newest first, a page at a time."""
    page = await run_sync(
        partial(
            context.herd.webhooks.deliveries.page,
            webhook,
            account=key.account,
            state=state,
            before=before,
            limit=limit,
        )
    )
    return {
        "deliveries": [shown_delivery(one) for one in page.items],
        "next": page.next,
    }


@router.post("/{webhook}/replay", status_code=202)
async def replay(
    webhook: str, context: Context, key: Buyer, body: ReplayBody | None = None
) -> dict[str, Any]:
    """Send again, under their old ids, the messages that were given up."""
    asked = body or ReplayBody()
    count = await run_sync(
        partial(
            context.herd.webhooks.deliveries.replay,
            webhook,
            account=key.account,
            message=asked.message,
            since_us=_us(asked.since),
            until_us=_us(asked.until),
            delivered=asked.delivered,
        )
    )
    return {"replayed": count}


@router.post("/{webhook}/test", status_code=202)
async def send_test(webhook: str, context: Context, key: Buyer) -> dict[str, Any]:
    """Have a message of type `webhook.test` sent; its id."""
    message = await run_sync(
        partial(context.herd.webhooks.deliveries.test, webhook, account=key.account)
    )
    return {"message": message}


def _us(moment: AwareDatetime | None) -> int | None:
    return None if moment is None else int(moment.timestamp() * 1_000_000)
