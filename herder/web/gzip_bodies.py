"""Request bodies that come with `Content-Encoding: gzip`, as the app is given them."""

from __future__ import annotations

import zlib

from starlette.types import Message, Receive, Scope

PIECE_BYTES = 65_536
"""The longest piece that is unpacked at once."""
CODINGS = frozenset({b"", b"identity", b"gzip", b"x-gzip"})
"""The codings that a body may come in (RFC 9110, section 8.4.1)."""
MAX_MEMBERS = 64
"""The most members that one body may have.

Each costs an object and a copy of what follows, be it empty, so that a body of nothing else would
cost its length squared. Programs that compress a body make one.
"""
_GZIP = 16 + zlib.MAX_WBITS


class BrokenGzip(BaseException):
    """The body is no gzip, or not all of it, or has too many members.

    No `Exception`: nobody on the way may take it for one of theirs.
    """


def coding_of(scope: Scope) -> bytes:
    """Return the coding of a request's body, in lower case; empty where none is named."""
    found = (value for name, value in scope["headers"] if name == b"content-encoding")
    return b",".join(found).strip().lower()


def is_gzip(coding: bytes) -> bool:
    """Return whether this coding is gzip, by either of its names."""
    return coding.endswith(b"gzip")


class Unpacking:
    """Unpacks one body, piece by piece: no more of it is held than a piece and what came last.

    Args:
        receive: gives the body as it was sent.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._gzip = zlib.decompressobj(_GZIP)
        self._members = 1
        self._packed = b""
        self._has_all = self._has_more = self._is_over = False

    async def receive(self) -> Message:
        """Return the next message: a piece of the body, or what else comes.

        Raises:
            BrokenGzip: the body is no gzip, or not all of it, or has too many members.
        """
        while not self._is_over:
            if not self._packed and not self._has_more:
                if self._has_all:
                    if not self._gzip.eof:
                        raise BrokenGzip
                    self._is_over = True
                    return {"type": "http.request", "body": b"", "more_body": False}
                message = await self._receive()
                if message["type"] != "http.request":
                    return message
                self._packed = message.get("body", b"")
                self._has_all = not message.get("more_body", False)
            elif self._gzip.eof:
                # Members may follow one another (RFC 1952, section 2.2).
                if self._members == MAX_MEMBERS:
                    raise BrokenGzip
                self._members += 1
                self._gzip = zlib.decompressobj(_GZIP)
                self._has_more = False
            elif piece := self._unpack():
                return {"type": "http.request", "body": piece, "more_body": True}
        return await self._receive()

    def _unpack(self) -> bytes:
        try:
            piece = self._gzip.decompress(self._packed, PIECE_BYTES)
        except zlib.error:
            raise BrokenGzip from None
        self._packed = self._gzip.unused_data or self._gzip.unconsumed_tail
        # A full piece may have left some behind that needs no more of the body.
        self._has_more = len(piece) == PIECE_BYTES and not self._gzip.eof
        return piece
