"""`/v1/orders` and `/v1/quotes`."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator
from contextlib import closing
from functools import partial
from typing import Annotated, Literal

from anyio.to_thread import run_sync
from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import PlainTextResponse
from sse_starlette import EventSourceResponse, ServerSentEvent

from herder.accounts.api_keys import require
from herder.domain.notes import Notes
from herder.domain.order import Order, State
from herder.domain.paging import page_of
from herder.domain.receipts import receipt_of
from herder.errors import HerdUnavailable, shown
from herder.gateway.auth import Buyer, Context, GatewayContext, Reader
from herder.gateway.openapi import LOCATION, streamed
from herder.gateway.outages import accept, accepted, ride_out
from herder.gateway.schemas.answers import (
    EndData,
    ErrorAnswer,
    RestartData,
    StartData,
    TextData,
)
from herder.gateway.schemas.orders import (
    OrderAnswer,
    OrderBody,
    OrdersAnswer,
    QuoteBody,
    RebidBody,
    TokenizeAnswer,
    TokenizeBody,
)
from herder.gateway.schemas.paging import IdCursor, Limit
from herder.gateway.short_reads import look
from herder.gateway.streams.event_stream import EventStream, OnDisconnect
from herder.gateway.streams.given_text import StreamMark
from herder.interface import CountOptions, OrderCall, QuoteCall
from herder.types import Place, Quote, Receipt, Result
from herder.web.errors import ApiResponse
from herder.web.request_ids import id_of

router = APIRouter(prefix="/v1", tags=["orders"], default_response_class=ApiResponse)

MAX_WAIT_S = 60
PING_S = 15
"""Seconds of silence after which a stream says that it is still there."""


EVENTS = (Place, StartData, TextData, RestartData, EndData, Receipt, ErrorAnswer)
"""The types that the data of an order's events may have."""


class Signed(PlainTextResponse):
    """A JWS in its compact form (RFC 7515)."""

    media_type = "application/jose"


@router.post("/orders", status_code=202, responses={202: {"headers": LOCATION}})
async def submit(
    body: OrderBody,
    request: Request,
    context: Context,
    key: Buyer,
    response: Response,
    idempotency_key: Annotated[str | None, Header()] = None,
) -> OrderAnswer:
    """Submit a paid prompt; the fee is held, and what is not used of it comes back."""
    call: OrderCall = {
        **body.call(),
        "model": context.model(body.model),
        "account": key.account,
        "idempotency_key": idempotency_key,
    }
    request.state.priced_model = call["model"]
    taken = await accept(
        context.herd.cancellations,
        partial(
            context.herd.take,
            body.prompt,
            body.tokens,
            call,
            api_key=key.id,
            notes=Notes(request_id=id_of(request)),
        ),
        has_key=idempotency_key is not None,
    )
    response.headers["Location"] = f"/v1/orders/{taken.id}"
    with accepted(taken.id):
        return await look(context.herd.database, partial(_shown, context, taken))


@router.get("/orders")
async def orders(
    context: Context,
    key: Reader,
    state: Annotated[str | None, Query(max_length=20)] = None,
    before: IdCursor = None,
    limit: Limit = 20,
) -> OrdersAnswer:
    """Return the account's orders, the newest first, a page at a time."""
    found = await run_sync(
        partial(
            context.herd.orders, account=key.account, state=state, before=before, limit=limit + 1
        )
    )
    page = page_of(found, limit, lambda one: one.order)
    return OrdersAnswer(orders=page.items, next=page.next)


@router.get("/orders/{order_id}")
async def order(
    order_id: str,
    context: Context,
    key: Reader,
    wait: Annotated[int, Query(ge=0, le=MAX_WAIT_S, description="Seconds to wait.")] = 0,
) -> OrderAnswer:
    """Return an order as it stands; with `wait`, the answer comes at its end or after that time."""

    def as_it_stands() -> OrderAnswer:
        return _answered(*context.herd.standing(order_id, account=key.account))

    until_s = time.monotonic() + wait
    read = partial(look, context.herd.database, as_it_stands)
    found = await ride_out(read, within_s=wait)
    if wait == 0 or State(found.state).stopped:
        return found
    with context.follower.acquire(key.id), closing(context.readers.enter(order_id)):
        await context.follower.wait(order_id, until_s - time.monotonic())
    return await ride_out(read, within_s=until_s - time.monotonic())


@router.get(
    "/orders/{order_id}/events",
    response_class=EventSourceResponse,
    responses={200: {"content": streamed(*EVENTS)}},
)
async def events(
    order_id: str,
    context: Context,
    key: Reader,
    on_disconnect: Annotated[
        OnDisconnect, Query(description="What happens to the order when the caller disconnects.")
    ] = "continue",
    reasoning: Annotated[
        Literal["include", "hide"],
        Query(description="Whether what the model thinks before its answer comes, too."),
    ] = "include",
    last_event_id: Annotated[str | None, Header()] = None,
) -> EventStream:
    """Stream what happens to an order, as server-sent events, until its end.

    `place`, `start`, `reasoning` (what the model thinks before its answer), `text`, `restart` (all
    of both so far counts for nothing), `end`, `receipt`. A caller who comes back with the
    `Last-Event-ID` of the last text misses nothing. Going away
    leaves the order running, or cancels it with `on_disconnect=cancel`, for which the key needs
    the scope `buy`, unless somebody still reads it or comes back within a grace. A gateway that
    is stopped ends the stream with an event `error`, and cancels nothing: come back with
    `Last-Event-ID`.
    """
    cancels = on_disconnect == "cancel"
    if cancels:
        require(key, "buy")
    mark = StreamMark.parse(last_event_id)
    notes, ended = context.follower.notes(order_id), False
    await run_sync(partial(context.herd.order, order_id, account=key.account))

    async def happening() -> AsyncGenerator[ServerSentEvent, None]:
        nonlocal ended
        follow = context.follower.follow
        async for one in follow(
            order_id,
            notes,
            account=key.account,
            mark=mark,
            shows_reasoning=reasoning == "include",
        ):
            ended = one.kind == "end"
            identity = str(one.mark) if one.mark else None
            yield ServerSentEvent(json.dumps(one.data), event=one.kind, id=identity)
            if one.result is not None:
                paid = json.dumps(one.result.receipt.to_dict())
                yield ServerSentEvent(paid, event="receipt")

    slot = context.follower.acquire(key.id)
    reading = context.readers.enter(order_id)

    async def after(left: bool) -> None:
        await notes.leave(has_ended=ended)
        if left and cancels:
            reading.leave(may_return=True)
        else:
            reading.close()

    return EventStream(
        happening(),
        slot,
        context.stopping,
        order_id=order_id,
        after=after,
        ping=PING_S,
    )


@router.get("/orders/{order_id}/receipt", response_class=Signed)
async def receipt(order_id: str, context: Context, key: Reader) -> Signed:
    """Return the order's receipt as it stands now, signed: a JWS.

    Its keys: /.well-known/jwks.json.
    """
    token = await run_sync(partial(context.herd.signed_receipt, order_id, account=key.account))
    return Signed(token)


@router.post("/orders/{order_id}/cancel")
async def cancel(order_id: str, context: Context, key: Buyer) -> Receipt:
    """End an order: all comes back while it waits; of one that runs, what was read is charged."""
    cancel = partial(context.herd.cancel, order_id, account=key.account)
    try:
        return await run_sync(cancel)
    except HerdUnavailable as error:
        if "order" not in error.data:
            raise HerdUnavailable("The database is away, and nothing is cancelled.") from error
        raise HerdUnavailable(
            f"The database is away. If you have an order {shown(order_id)!r}, it is cancelled as "
            f"soon as the database is back.",
            order=shown(order_id),
        ) from error


@router.post("/orders/{order_id}/rebid")
async def rebid(order_id: str, body: RebidBody, context: Context, key: Buyer) -> Receipt:
    """Raise the fee of an order that is queued."""
    return await run_sync(partial(context.herd.rebid, order_id, body.fee, account=key.account))


@router.post("/quotes")
async def quote(body: QuoteBody, context: Context, key: Reader) -> Quote:
    """Return the price and the expected wait of an order placed now; nothing is held.

    `quote` of the answer holds for a minute: an order that names it has those rates, and pays that
    fee if it names none. `curve` says what other bids would buy.
    """
    call: QuoteCall = {
        **body.call(),
        "account": key.account,
        "model": context.model(body.model),
    }
    return await run_sync(partial(context.herd.quote, body.prompt, body.tokens, **call))


@router.post("/tokenize")
async def tokenize(body: TokenizeBody, context: Context, _: Reader) -> TokenizeAnswer:
    """Count the tokens of a prompt, as a worker with the model is given it; costs nothing."""
    asked: CountOptions = {**body.asked(), "model": context.model(body.model)}
    found = await run_sync(partial(context.herd.count_tokens, body.prompt, **asked))
    return TokenizeAnswer(model=found.model, count=found.prompt_tokens, max_model_len=found.context)


def _place(context: GatewayContext, found: Order) -> Place | None:
    """Return its place, if it has one and can be told now.

    An order that was taken is told in any case.
    """
    try:
        return context.herd.quotes.place(found)
    except HerdUnavailable:
        return None


def _shown(context: GatewayContext, found: Order) -> OrderAnswer:
    """Return an order that was just taken, or found by its key, as a client sees it."""
    if found.state.ended:
        return _answered(*context.herd.standing(found.id))
    receipt, queue = receipt_of(found), _place(context, found)
    return OrderAnswer(id=found.id, state=receipt.state, receipt=receipt, queue=queue)


def _answered(result: Result, queue: Place | None) -> OrderAnswer:
    """Return an order as a client sees it; its text when it has ended."""
    has_ended = State(result.receipt.state).ended
    return OrderAnswer(
        id=result.order,
        state=result.receipt.state,
        receipt=result.receipt,
        queue=queue,
        text=result.text if has_ended else None,
        reasoning=result.reasoning if has_ended and result.reasoning else None,
        text_deleted=has_ended and result.text_deleted,
        finish_reason=result.finish_reason if has_ended else None,
        usage=result.usage if has_ended else None,
        metadata=result.metadata,
        request_id=result.request_id,
    )
