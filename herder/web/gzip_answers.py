"""Compresses answers with gzip for who takes it. Streams pass as they are, piece by piece."""

from __future__ import annotations

import gzip
from functools import lru_cache

from anyio.to_thread import run_sync
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MIN_BYTES = 1500
"""The shortest answer that is compressed: a shorter one fits into one packet as it is."""
LONG_BYTES = 65_536
"""From here on it takes a thread: the event loop serves others meanwhile."""
LEVEL = 5


class GzipAnswers:
    """Compresses answers that come whole, and are long enough.

    What has no `Content-Length` is a stream, whose pieces are sent as they come. Starlette's own
    middleware does so too, but compresses for who refuses it (`gzip;q=0`), and costs each short
    answer ten times as much.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a call."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun: Message | None = None

        async def packed(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                if _is_long(message):
                    begun = message
                    return
            elif begun is not None:
                start, begun = begun, None
                message = await _pack(scope, start, message)
                await send(start)
            await send(message)

        await self._app(scope, receive, packed)


def _is_long(start: Message) -> bool:
    """Return whether an answer comes whole, and may be worth it."""
    for name, value in start["headers"]:
        if name == b"content-length":
            return int(value) >= MIN_BYTES
    return False


async def _pack(scope: Scope, start: Message, message: Message) -> Message:
    """Return a whole body as it is sent, and have the headers of its answer say how."""
    headers = [*start["headers"], (b"vary", b"Accept-Encoding")]
    body, is_coded = message.get("body", b""), any(one == b"content-encoding" for one, _ in headers)
    if not message.get("more_body", False) and not is_coded and _is_taken(scope):
        body = _compress(body) if len(body) < LONG_BYTES else await run_sync(_compress, body)
        headers = [one for one in headers if one[0] != b"content-length"]
        headers += [(b"content-encoding", b"gzip"), (b"content-length", b"%d" % len(body))]
        message = {**message, "body": body}
    start["headers"] = headers
    return message


def _compress(body: bytes) -> bytes:
    return gzip.compress(body, LEVEL, mtime=0)


def _is_taken(scope: Scope) -> bool:
    return _takes_gzip(
        b",".join(value for name, value in scope["headers"] if name == b"accept-encoding")
    )


@lru_cache(maxsize=256)
def _takes_gzip(accepted: bytes) -> bool:
    """Return whether who sends this `Accept-Encoding` takes gzip (RFC 9110, section 12.5.3)."""
    weights = {}
    for one in accepted.decode("latin-1").lower().split(","):
        coding, _, weight = one.partition(";")
        weights[coding.strip()] = weight.replace(" ", "").removeprefix("q=")
    weight = weights.get("gzip", weights.get("x-gzip", weights.get("*", "0")))
    return weight.strip("0.") != "" or weight == ""
