"""OpenAI's routes: `/v1/chat/completions` and `/v1/completions`, for programs written for those.

A caller who disconnects, and does not come back, cancels the order, unless the call said otherwise
(`on_disconnect`): nobody would read what it costs.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import ExitStack, suppress
from typing import Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, Request
from sse_starlette import ServerSentEvent
from starlette.requests import ClientDisconnect

from herder import errors
from herder.domain.order import State
from herder.gateway.auth import Buyer, Context, GatewayContext
from herder.gateway.buying import Purchase, buy
from herder.gateway.context_errors import ContextLengthExceeded, context_sentence
from herder.gateway.openapi import streamed, takes
from herder.gateway.routes.orders import PING_S
from herder.gateway.schemas.answers import ErrorAnswer
from herder.gateway.schemas.openai import (
    ChatChunk,
    ChatCompletion,
    Completion,
    CompletionChunk,
)
from herder.gateway.schemas.openai_call import PRICED, Asked, Kind, read
from herder.gateway.schemas.openai_requests import ChatBody, CompletionBody
from herder.gateway.streams.event_stream import EventStream
from herder.gateway.streams.given_text import Happened
from herder.gateway.streams.hang_up import HangUp
from herder.interface import raise_if_not_completed
from herder.orders.intake import CallerGone
from herder.store.api_keys import ApiKey
from herder.types import Receipt, Result
from herder.web.errors import ApiResponse, BadRequest, answer_to, body_of, refusal
from herder.web.request_ids import id_of

router = APIRouter(prefix="/v1", tags=["openai"], default_response_class=ApiResponse)

LOOK_S = 1.0
"""Seconds that are waited for an order's end before its caller is looked for."""

_AFTER_RESTART = "it is cancelled, and what was not read of it is not charged: send the call again"
"""The advice at the end of such a stream: OpenAI's clients have no way to go on with its order."""

_FINISH = {"stop": "stop", "length": "length", "deadline": "length"}
_OBJECTS: dict[Kind, tuple[str, str]] = {
    "chat": ("chat.completion", "chat.completion.chunk"),
    "completion": ("text_completion", "text_completion"),
}
_IDS: dict[Kind, str] = {"chat": "chatcmpl-", "completion": "cmpl-"}


@router.post(
    "/chat/completions",
    response_model=None,
    responses={200: {"model": ChatCompletion, "content": streamed(ChatChunk, ErrorAnswer)}},
    openapi_extra=takes(ChatBody, PRICED),
)
async def chat(request: Request, context: Context, key: Buyer) -> ApiResponse | EventStream:
    """Return a chat completion."""
    return await _complete("chat", request, context, key)


@router.post(
    "/completions",
    response_model=None,
    responses={200: {"model": Completion, "content": streamed(CompletionChunk, ErrorAnswer)}},
    openapi_extra=takes(CompletionBody, PRICED),
)
async def completion(request: Request, context: Context, key: Buyer) -> ApiResponse | EventStream:
    """Return a completion: the prompt reaches the model as it is."""
    return await _complete("completion", request, context, key)


async def _complete(
    kind: Kind, request: Request, context: GatewayContext, key: ApiKey
) -> ApiResponse | EventStream:
    asked = read(kind, await _json(request), request.headers)
    request.state.priced_model = context.model(asked.call["model"])
    with ExitStack() as held:
        slot = held.enter_context(context.follower.acquire(key.id))
        async with HangUp(request.receive) as line:
            try:
                bought = await buy(context, key, asked, request.headers, id_of(request), line)
            except CallerGone:
                return ApiResponse({}, 499)
            except (errors.PromptTooLong, errors.TooManyTokens) as error:
                raise ContextLengthExceeded(error.data) from error
            except errors.InvalidSchema as error:
                error.param = asked.form_names.get(error.param, error.param)
                raise
            held.callback(bought.end)
            request.state.order = bought.receipt.order
            if not asked.stream or line.is_gone:
                return await _whole(context, asked, bought, line)
        held.pop_all()  # the response gives the slot back, and says when the caller has gone
    stream = _Stream(context, asked, bought)
    return EventStream(
        stream.chunks(),
        slot,
        context.stopping,
        order_id=bought.receipt.order,
        broken=_broken,
        ping_event=stream.sign_of_life,
        ping=PING_S,
        after=stream.after,
        sep="\n",
        headers=_told(asked, bought.receipt),
    )


async def _json(request: Request) -> object:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise BadRequest(
            "The body must be JSON, sent with Content-Type: application/json.", "Content-Type"
        )
    try:
        found: object = json.loads(await request.body(), parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise BadRequest("The body is not valid JSON.") from None
    except ClientDisconnect:
        raise BadRequest("The body is shorter than its Content-Length.") from None
    return found


def _no_number(name: str) -> None:
    """NaN and Infinity, which Python reads and JSON has not."""
    raise ValueError(name)


async def _whole(
    context: GatewayContext, asked: Asked, bought: Purchase, line: HangUp
) -> ApiResponse:
    """Return the answer in one piece."""
    receipt = bought.receipt
    order_id = receipt.order
    try:
        async with context.follower.waking(order_id) as news:
            line.wakes(news)
            result = None
            while result is None and not line.is_gone:
                result = await _ended(context, order_id, news)
    except asyncio.CancelledError:
        bought.interrupt()
        raise
    if line.is_gone or result is None:
        bought.leave(has_begun=False)
        return ApiResponse({}, 499)
    if (failed := _failed(result)) is not None:
        return failed
    choice = {
        "index": 0,
        **_said(asked, result),
        "logprobs": None,
        "finish_reason": _finish(result),
    }
    body = _head(asked, receipt, 0) | {"choices": [choice], "usage": _usage(asked, result)}
    body["receipt"] = result.receipt.to_dict()
    return ApiResponse(body, headers=_told(asked, receipt))


def _said(asked: Asked, result: Result) -> dict[str, Any]:
    """Return an answer in its route's form."""
    if asked.kind == "completion":
        return {"text": result.text}
    message = {"role": "assistant", "content": result.text}
    if asked.shows_reasoning and result.reasoning:
        message["reasoning_content"] = result.reasoning
    return {"message": message}


async def _ended(context: GatewayContext, order_id: str, news: asyncio.Event) -> Result | None:
    """Return the result of an order that ends within a moment.

    None if it does not, or cannot be read.
    """
    with suppress(TimeoutError):
        await asyncio.wait_for(news.wait(), LOOK_S)
    if not news.is_set():
        return None
    news.clear()
    try:
        result = await run_sync(context.herd.answer, order_id)
    except errors.HerdUnavailable:
        return None
    return result if State(result.receipt.state).stopped else None


class _Stream:
    """The answer as it is generated, and what becomes of its order when it is cut."""

    def __init__(self, context: GatewayContext, asked: Asked, bought: Purchase) -> None:
        self._house = context
        self._asked = asked
        self._bought = bought
        self._receipt = bought.receipt
        self._notes = context.follower.notes(bought.receipt.order)
        self._ended = False
        self._restarted = False

    async def chunks(self) -> AsyncGenerator[ServerSentEvent, None]:
        """Yield what is sent."""
        asked, order_id = self._asked, self._receipt.order
        head = _head(asked, self._receipt, 1)
        try:
            if asked.kind == "chat":
                yield _chunk(head, asked, {"role": "assistant", "content": ""})
            follower = self._house.follower
            account = self._receipt.account
            async for one in follower.follow(
                order_id, self._notes, account=account, shows_reasoning=asked.shows_reasoning
            ):
                if one.kind == "text":
                    yield _chunk(head, asked, {"content": one.data["text"]})
                elif one.kind == "reasoning":
                    yield _chunk(head, asked, {"reasoning_content": one.data["text"]})
                elif one.kind == "restart":
                    self._restarted = True  # what was shown cannot be taken back
                    shown = one.data["shown"]
                    yield _broken(errors.StreamRestarted(order_id, shown, _AFTER_RESTART))
                    return
                elif one.result is not None:
                    self._ended = True
                    for last in _last(head, asked, one):
                        yield last
            yield ServerSentEvent("[DONE]", sep="\n")
        except errors.HerdError as error:
            error.data["order"] = order_id
            yield _broken(error)

    def sign_of_life(self) -> ServerSentEvent:
        """Return the chunk that is sent in silence.

        A chunk without a choice: not every client's idle time begins anew with a comment, and one
        that waits no longer would buy a second order.
        """
        head = _head(self._asked, self._receipt, 1)
        return ServerSentEvent(json.dumps(head | {"choices": []}), sep="\n")

    async def after(self, left: bool) -> None:
        """Have the order cancelled, if nobody will read what it costs."""
        # Before it is cancelled: what was given is what it is charged.
        await self._notes.leave(has_ended=self._ended)
        is_gone = left or self._restarted or not self._house.stopping.is_told
        if self._ended or not is_gone:
            self._bought.end()  # or the gateway goes, and not the caller
        else:
            self._bought.leave(has_begun=True)


def _last(head: dict[str, Any], asked: Asked, end: Happened) -> list[ServerSentEvent]:
    assert end.result is not None
    failed = _failed(end.result)
    if failed is not None:
        return [ServerSentEvent(bytes(failed.body).decode(), sep="\n")]
    last = [_chunk(head, asked, {}, _finish(end.result))]
    if asked.include_usage:
        counts = {"choices": [], "usage": _usage(asked, end.result)}
        counts["receipt"] = end.result.receipt.to_dict()
        last.append(ServerSentEvent(json.dumps(head | counts), sep="\n"))
    return last


def _failed(result: Result) -> ApiResponse | None:
    """Return the error of an order that ended otherwise; None if there is an answer.

    What its own run limit ended has one: it was paid for.
    """
    if result.finish_reason == "deadline":
        return None
    try:
        raise_if_not_completed(result)
    except errors.OrderSetAside as error:
        told = answer_to(error)
        told.headers["X-Order"] = result.order
        return told
    except errors.OrderEnded as error:
        failure = result.receipt.failure or {}
        code, message = str(failure.get("code", error.code)), error.message
        if code == "prompt_too_long":
            code = ContextLengthExceeded.code
            message = f"{context_sentence(failure.get('data'))} {message}"
        # A permanent failure is the request's own; any other may pass.
        status = 400 if failure.get("permanent") else 503 if failure else 409
        headers = {"X-Order": result.order}
        if status == 503:
            headers["Retry-After"] = "1"
        body = body_of(message, status, code, data={"order": result.order})
        return refusal(body, status, headers)
    return None


def _head(asked: Asked, receipt: Receipt, form: int) -> dict[str, Any]:
    head = {
        "id": _IDS[asked.kind] + receipt.order,
        "object": _OBJECTS[asked.kind][form],
        "created": receipt.submitted_us // 1_000_000,
        "model": receipt.model,
    }
    return head | {"service_tier": "default"} if asked.kind == "chat" else head


def _chunk(
    head: dict[str, Any], asked: Asked, delta: dict[str, Any], finish: str | None = None
) -> ServerSentEvent:
    said: dict[str, Any] = {"delta": delta}
    if asked.kind == "completion":
        said = {"text": delta.get("content", "")}
    choice = {"index": 0, **said, "logprobs": None, "finish_reason": finish}
    return ServerSentEvent(json.dumps(head | {"choices": [choice]}), sep="\n")


def _broken(error: errors.HerdError) -> ServerSentEvent:
    return ServerSentEvent(bytes(answer_to(error).body).decode(), sep="\n")


def _finish(result: Result) -> str:
    return _FINISH.get(result.finish_reason or "", "stop")


def _usage(asked: Asked, result: Result) -> dict[str, Any]:
    prompt, generated = result.usage.prompt_tokens, result.usage.generated
    return {
        "prompt_tokens": prompt,
        "completion_tokens": generated,
        "total_tokens": prompt + generated,
        "completion_tokens_details": {"reasoning_tokens": result.usage.reasoning_tokens},
        "cost": result.receipt.charged,
        **_most(asked, result.receipt),
    }


def _told(asked: Asked, receipt: Receipt) -> dict[str, str]:
    """Return the headers that say which order it is, and how long its answer may be."""
    most = {f"X-{name.replace('_', '-').title()}": n for name, n in _most(asked, receipt).items()}
    return {"X-Order": receipt.order, **{name: str(tokens) for name, tokens in most.items()}}


def _most(asked: Asked, receipt: Receipt) -> dict[str, int]:
    """Return the most tokens that an answer may have, and what was asked for, if that was more."""
    most = {"max_tokens": receipt.tokens}
    if asked.tokens is not None and asked.tokens > receipt.tokens:
        most["max_tokens_requested"] = asked.tokens
    return most
