"""uvicorn's HTTP, with our answers to bad requests, and an end to callers who hold a connection.

What h11 refuses never reaches the app: a head without an end, or what is not HTTP. A caller who
sends half of a request and then nothing, or does not read the answer, would hold its connection for
ever, and what waits to be written with it. The app is told that the caller has gone away.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import h11
import structlog
from uvicorn.protocols.http.h11_impl import H11Protocol

from herder.web.errors import body_of

_log = structlog.get_logger("herder.gateway")

_MAPPED = "::ffff:"
"""Before an IPv4 address, on a socket that listens for both kinds."""


def make_protocol(
    *, max_request_s: int, max_header_bytes: int, slow_reader_s: int
) -> type[asyncio.Protocol]:
    """Return the protocol of one server's connections, as `uvicorn.Config` takes it.

    Args:
        max_request_s: seconds that a request may take to come in whole.
        max_header_bytes: the longest head of a request.
        slow_reader_s: seconds that a caller may read nothing of an answer.
    """

    class Protocol(_Protocol):
        pass

    Protocol.max_request_s = max_request_s
    Protocol.max_header_bytes = max_header_bytes
    Protocol.slow_reader_s = slow_reader_s
    return Protocol


class _Protocol(H11Protocol):
    max_request_s: int
    max_header_bytes: int
    slow_reader_s: int
    _for_request: asyncio.TimerHandle | None = None
    _for_reader: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if self.client is not None and self.client[0].startswith(_MAPPED):
            # One caller is one address, and a proxy is known by it, whichever socket they came to.
            self.client = (self.client[0].removeprefix(_MAPPED), self.client[1])
        self._await_request()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._await_request()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_request()
        self._forget_reader()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        # From here on uvicorn ends a line on which nothing comes; this one, where too little does.
        self._forget_request()

    def _await_request(self) -> None:
        """Wait for the rest of a request, counted from its first bytes; or for none."""
        cycle: Any = self.cycle
        if cycle is not None and not cycle.response_complete and not cycle.more_body:
            self._forget_request()
        elif self._for_request is None:
            self._for_request = self.loop.call_later(self.max_request_s, self.transport.abort)

    def _forget_request(self) -> None:
        if self._for_request is not None:
            self._for_request.cancel()
            self._for_request = None

    def pause_writing(self) -> None:
        """Pause: more is waiting than is kept for a reader."""
        super().pause_writing()
        self._await_reader()

    def resume_writing(self) -> None:
        """Resume: the reader has caught up."""
        super().resume_writing()
        self._forget_reader()

    def timeout_keep_alive_handler(self) -> None:
        """Close the connection once what was written has been read."""
        super().timeout_keep_alive_handler()
        if self.transport.get_write_buffer_size():
            self.loop.call_later(self.slow_reader_s, self._cut)

    def _await_reader(self) -> None:
        if self._for_reader is None:
            self._for_reader = self.loop.call_later(self.slow_reader_s, self._cut)

    def _forget_reader(self) -> None:
        if self._for_reader is not None:
            self._for_reader.cancel()
            self._for_reader = None

    def _cut(self) -> None:
        _log.info("slow_reader_cut", after_s=self.slow_reader_s)
        self.transport.abort()

    def send_400_response(self, msg: str) -> None:
        """Answer what is not a request. Called while h11's error is handled."""
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.close()  # an answer is on its way: nothing can be said any more
            return
        error = sys.exc_info()[1]
        status = error.error_status_hint if isinstance(error, h11.RemoteProtocolError) else 400
        if status == 431:
            said = f"The request's headers are longer than {self.max_header_bytes} bytes."
            body = body_of(said, 431, "head_too_long")
        else:
            status, body = 400, body_of(msg, 400, "invalid_request")
        content = json.dumps(body).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(content)).encode()),
            (b"connection", b"close"),
            (b"x-should-retry", b"false"),
        ]
        for event in (
            h11.Response(status_code=status, headers=headers),
            h11.Data(data=content),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
