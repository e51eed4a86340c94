"""From tokens' bytes to text that may be shown: whole characters, and no part of a stop string.

A stop string may begin in one token and end in another, so the tail of what was generated is held
back while it could still be the beginning of one. Pure.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence


class TextSettler:
    """Takes bytes as they are generated and gives out the text that is settled.

    What it gave out, joined, is always the text so far; nothing that it gave out is ever taken
    back. Bytes that are not UTF-8 become U+FFFD; a character that is cut off by the end of
    generation is left out.

    Args:
        stop: strings that end the text; the earliest to begin counts, and is itself left out.
    """

    __slots__ = ("_decoder", "_held", "_stop", "stopped")

    def __init__(self, stop: Sequence[str] = ()) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._stop = tuple(s for s in stop if s)
        self._held = ""
        self.stopped = False
        """True once a stop string was found; then nothing more comes."""

    def feed(self, piece: bytes) -> str:
        """Take the bytes of one token; return the text that they settle, often none."""
        return "" if self.stopped else self.settle(self.decode(piece))

    def decode(self, piece: bytes) -> str:
        """Return the whole characters that more bytes make."""
        return self._decoder.decode(piece)

    def settle(self, text: str) -> str:
        """Take more text; return what of it is settled: no part of a stop string."""
        if self.stopped:
            return ""
        if not self._stop:
            return text
        text = self._held + text
        ends = [at for at in (text.find(s) for s in self._stop) if at >= 0]
        if ends:
            self.stopped = True
            self._held = ""
            return text[: min(ends)]
        keep = max(overlap(text, s) for s in self._stop)
        cut = len(text) - keep
        self._held = text[cut:]
        return text[:cut]

    def finish(self) -> str:
        """Return the generation ended: what was held back is text after all."""
        held, self._held = self._held, ""
        return held


def overlap(text: str, stop: str) -> int:
    """Return the length of the longest end of `text` that begins `stop` but is not all of it."""
    for length in range(min(len(stop) - 1, len(text)), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
