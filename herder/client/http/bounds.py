"""Reads from a server as much as any gateway sends, and no more: the memory is the caller's."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import httpx

from herder.errors import SetupError

MAX_ANSWER_BYTES = 16 * 2**20
"""Of an answer, and of one event: the longest text (2**20 characters) is 12 MiB of JSON at most."""

_HEADERS_OF_SENDING = {b"content-encoding", b"content-length", b"transfer-encoding"}


class ByteCount:
    """Counts the bytes of an answer, or of one event after the other, once they are unpacked.

    Args:
        what: what is counted; the sentence of its error begins with it.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._bytes = 0

    def begin(self) -> None:
        """Count the next one."""
        self._bytes = 0

    def through(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """Yield the pieces.

        Raises:
            SetupError: they are more than a gateway sends.
        """
        for piece in pieces:
            self._add(piece)
            yield piece

    async def athrough(self, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Yield the pieces; as `through`."""
        async for piece in pieces:
            self._add(piece)
            yield piece

    def _add(self, piece: bytes) -> None:
        self._bytes += len(piece)
        if self._bytes > MAX_ANSWER_BYTES:
            raise SetupError(
                f"{self._what} of the server is longer than {MAX_ANSWER_BYTES // 2**20} MiB, which "
                "no herd's gateway sends; is the address right?"
            )


def read_whole(answer: httpx.Response) -> httpx.Response:
    """Return a streamed answer as one that was read to its end.

    Raises:
        SetupError: it is longer than any gateway's.
    """
    whole = _unpacked(answer, ByteCount("An answer").through(answer.iter_bytes()))
    whole.read()
    return whole


async def aread_whole(answer: httpx.Response) -> httpx.Response:
    """Return it on an event loop; as `read_whole`."""
    whole = _unpacked(answer, ByteCount("An answer").athrough(answer.aiter_bytes()))
    await whole.aread()
    return whole


def _unpacked(
    answer: httpx.Response, content: Iterator[bytes] | AsyncIterator[bytes]
) -> httpx.Response:
    """Return an answer over what was unpacked already."""
    kept = [pair for pair in answer.headers.raw if pair[0].lower() not in _HEADERS_OF_SENDING]
    return httpx.Response(answer.status_code, headers=kept, content=content)
