"""`/messages`: the original's message interface, and the inbox that it answers into."""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from functools import partial
from typing import Annotated, Any
from uuid import uuid4

from anyio.to_thread import run_sync
from fastapi import APIRouter, Body, Header, Query
from pydantic import WithJsonSchema
from sse_starlette import EventSourceResponse, ServerSentEvent

from herder.domain.paging import MAX_HTTP_PAGE
from herder.domain.periods import moment_or_none
from herder.errors import Unauthorized
from herder.gateway.auth import Buyer, Context, GatewayContext, Reader
from herder.gateway.openapi import streamed
from herder.gateway.outages import ride_out
from herder.gateway.routes.orders import MAX_WAIT_S, PING_S
from herder.gateway.schemas.answers import ErrorAnswer
from herder.gateway.schemas.orders import InboxAnswer, MessageAnswer, SentAnswer
from herder.gateway.schemas.paging import Limit
from herder.gateway.streams.event_stream import EventStream
from herder.messages.inbox import InboxMessage
from herder.store.api_keys import ApiKey
from herder.web.errors import ApiResponse, BadRequest

router = APIRouter(tags=["messages"], default_response_class=ApiResponse)

LOOK_S = 10.0
"""The pause between checks of a stream's API key."""

_NUMBER = re.compile(r"[0-9]{1,18}")
_TAG = {"type": "string"}
_TAGS = WithJsonSchema(
    {
        "anyOf": [
            {"type": "object", "additionalProperties": _TAG},
            {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {"name": _TAG, "value": _TAG},
                    "required": ["name", "value"],
                    "additionalProperties": False,
                },
            },
        ],
        "examples": [{"Action": "Info"}],
    }
)
After = Annotated[
    int,
    Query(
        ge=0,
        lt=2**62,
        description="The number of the last message that was read; later ones are returned.",
    ),
]


@router.post("/messages", status_code=202)
async def send(
    body: Annotated[Any, _TAGS, Body()],
    context: Context,
    key: Buyer,
    idempotency_key: Annotated[str | None, Header()] = None,
) -> SentAnswer:
    """Send a message, as to the original herder: tags, all of them text.

    `Action` is `Transfer`, `Info` or `Balance`. The answer comes into the inbox.
    """
    # By its key a message whose commit was lost is looked for, and sent once.
    message_key = idempotency_key or str(uuid4())
    taken = await run_sync(
        partial(
            context.herd.send_message,
            body,
            account=key.account,
            api_key=key.id,
            idempotency_key=message_key,
        )
    )
    return SentAnswer(id=taken.id, order=taken.order)


@router.get("/messages")
async def inbox(
    context: Context,
    key: Reader,
    after: After = 0,
    limit: Limit = MAX_HTTP_PAGE,
    wait: Annotated[int, Query(ge=0, le=MAX_WAIT_S, description="Seconds to wait.")] = 0,
) -> InboxAnswer:
    """Return the inbox, oldest first, a page at a time.

    With `wait`, as soon as anything is there.
    """
    until_s = time.monotonic() + wait
    read = partial(run_sync, context.herd.inbox, key.account, after, limit)
    found = await ride_out(read, within_s=wait)
    if not found and wait:
        with context.follower.acquire(key.id):
            rest_s = until_s - time.monotonic()
            async with aclosing(_pages(context, key, after, limit, rest_s)) as pages:
                found = await anext(pages, [])
    last = found[-1].number if found else after
    return InboxAnswer(messages=[_shown(one) for one in found], next=last)


async def _pages(
    context: GatewayContext, key: ApiKey, after: int, limit: int, wait_s: float = math.inf
) -> AsyncGenerator[list[InboxMessage], None]:
    """Yield what is there after a message, and what comes within that time; a page at a time.

    Raises:
        Unauthorized: the key was ended meanwhile.
    """
    until_s = time.monotonic() + wait_s

    def read(after: int) -> list[InboxMessage]:
        context.herd.api_keys.require_live(key)
        return context.herd.inbox(key.account, after, limit)

    async with context.follower.waking(context.herd.inbox_topic(key.account)) as news:
        while True:
            # Before it is read: what comes after that wakes again.
            news.clear()
            left_s = None if math.isinf(until_s) else until_s - time.monotonic()
            found = await ride_out(partial(run_sync, read, after), within_s=left_s)
            if found:
                after = found[-1].number
                yield found
                continue
            rest_s = until_s - time.monotonic()
            if rest_s <= 0:
                return
            with suppress(TimeoutError):
                await asyncio.wait_for(news.wait(), min(rest_s, LOOK_S))


@router.get(
    "/messages/events",
    response_class=EventSourceResponse,
    responses={200: {"content": streamed(MessageAnswer, ErrorAnswer)}},
)
async def events(
    context: Context,
    key: Reader,
    after: After = 0,
    last_event_id: Annotated[str | None, Header()] = None,
) -> EventStream:
    """Return the inbox as server-sent events, `message` each, for as long as the caller listens.

    A caller who comes back with the `Last-Event-ID` of the last one misses none. The stream ends
    when its API key is ended, and with an event `error` when its gateway is stopped.
    """
    if last_event_id:
        if not _NUMBER.fullmatch(last_event_id):
            raise BadRequest("Last-Event-ID is not an id that this stream sent.", "Last-Event-ID")
        after = int(last_event_id)

    async def happening() -> AsyncGenerator[ServerSentEvent, None]:
        with suppress(Unauthorized):
            async with aclosing(_pages(context, key, after, MAX_HTTP_PAGE)) as pages:
                async for found in pages:
                    for one in found:
                        data = _shown(one).model_dump_json()
                        yield ServerSentEvent(data, event="message", id=str(one.number))

    return EventStream(happening(), context.follower.acquire(key.id), context.stopping, ping=PING_S)


def _shown(one: InboxMessage) -> MessageAnswer:
    return MessageAnswer(
        seq=one.number,
        at=moment_or_none(one.at_us),
        in_reply_to=one.in_reply_to,
        order=one.order,
        tags=one.tags,
        text_deleted=one.text_deleted,
    )
