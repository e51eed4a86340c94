"""Reads an order's events: its text, and where a reader who was cut off goes on."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import httpx
from httpx_sse import EventSource, ServerSentEvent

from herder import errors
from herder.client.http.answers import decoded, no_answer, shaped
from herder.client.http.bounds import ByteCount

_HEAD = {"Content-Type": "text/event-stream"}
"""Without a charset: events are UTF-8 (WHATWG HTML, 9.2.5)."""


ANSWER_ALONE = {"reasoning": "hide"}
"""Asks for events without what the model thinks: who does not see it has not been given it."""


def read_events(answer: httpx.Response) -> Iterator[ServerSentEvent]:
    """Yield a stream's events.

    Raises:
        SetupError: it is no stream of events, or one of them is longer than any gateway's.
    """
    _require_events(answer.headers)
    count = ByteCount("An event")
    plain = httpx.Response(200, headers=_HEAD, content=count.through(answer.iter_bytes()))
    for event in EventSource(plain).iter_sse():
        count.begin()
        yield event


async def aread_events(answer: httpx.Response) -> AsyncIterator[ServerSentEvent]:
    """Yield them on an event loop; as `read_events`."""
    _require_events(answer.headers)
    count = ByteCount("An event")
    plain = httpx.Response(200, headers=_HEAD, content=count.athrough(answer.aiter_bytes()))
    async for event in EventSource(plain).aiter_sse():
        count.begin()
        yield event


def _require_events(headers: Mapping[str, str]) -> None:
    """Refuse an answer that is not a stream of events.

    Raises:
        SetupError: it is something else.
    """
    if not headers.get("content-type", "").startswith("text/event-stream"):
        raise no_answer()


class TextOf:
    """The text of an order's events, and where a reader who was cut off goes on."""

    def __init__(self, order_id: str) -> None:
        self._order = order_id
        self._shown = 0
        self.last: str | None = None
        self.ended = False

    def take(self, event: ServerSentEvent) -> str:
        """Return the text that an event brings; often none.

        Raises:
            StreamRestarted: what was shown counts for nothing.
            SetupError: it is not an event of a gateway.
        """
        if event.event == "text":
            text = _text_of(decoded(event.data.encode("utf-8", "replace")))
            self._shown += len(text)
            # It is sent back in a header.
            self.last = event.id if re.fullmatch(r"[!-~]{1,64}", event.id) else None
            return text
        if event.event == "restart" and not self._shown:
            self.last = None
            return ""
        if event.event == "restart":
            raise errors.StreamRestarted(self._order, self._shown)
        self.ended = self.ended or event.event == "receipt"
        return ""


@shaped
def _text_of(found: Any) -> str:
    text = found["text"]
    if not isinstance(text, str):
        raise TypeError("no text")
    return text
