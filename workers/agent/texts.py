"""Carries the text of running attempts to Redis, in small flushes, from a thread of its own.

The engine's thread only appends to a buffer: a slow Redis delays text and never the decoding.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Protocol

import structlog
from redis import RedisError

from workers.transport.loops import Loop
from workers.transport.reasons import reason_of
from workers.transport.streams import NewText, Streams

_log = structlog.get_logger("workers.agent.texts")

FLUSH_S = 0.025
"""Seconds between two flushes: what a reader sees as steady, and one round trip for all streams."""

SPARE_ENTRIES = 8
"""Entries of a stream beyond one for each token: the end, and pieces that an end lets go."""


class AddText(Protocol):
    """Takes an attempt's text, piece by piece."""

    def __call__(self, text: str, generated: int, reasoning: int, *, end: bool) -> None:
        """Take a piece.

        Args:
            text: the piece.
            generated: the attempt's tokens so far.
            reasoning: characters at the piece's beginning that are reasoning.
            end: whether it is the last.
        """


@dataclass(slots=True)
class _Buffer:
    order: str
    attempt: int
    tokens: int
    sent: int = 0
    generated: int = 0
    reasoning: int = 0
    pieces: list[str] = field(default_factory=list)
    ended: bool = False


class TextFlusher:
    """Buffers text by attempt and flushes all buffers together."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self._changed = threading.Condition()
        self._dirty: dict[str, _Buffer] = {}
        self._loop = Loop("texts", self._step, unblock=self._unblock, last=self.flush, log=_log)

    def start(self) -> None:
        """Begin to flush."""
        self._loop.start()

    def open(self, order: str, attempt: int, tokens: int) -> AddText:
        """Begin an attempt's text; returns what takes its pieces."""
        buffer = _Buffer(order, attempt, tokens)
        key = f"{order}:{attempt}"

        def add(text: str, generated: int, reasoning: int, *, end: bool) -> None:
            with self._changed:
                if text:
                    buffer.pieces.append(text)
                buffer.generated = generated
                buffer.reasoning += reasoning
                buffer.ended = buffer.ended or end
                self._dirty[key] = buffer
                self._changed.notify()

        return add

    def flush(self) -> None:
        """Send what waits. What Redis does not take is dropped: the stored text answers later."""
        with self._changed:
            ready, self._dirty = self._dirty, {}
            batch = []
            for buffer in ready.values():
                text = "".join(buffer.pieces)
                buffer.pieces.clear()
                batch.append(
                    NewText(
                        buffer.order,
                        buffer.attempt,
                        buffer.sent,
                        text,
                        buffer.generated,
                        buffer.ended,
                        buffer.tokens + SPARE_ENTRIES,
                        buffer.reasoning,
                    )
                )
                buffer.sent += len(text)
                buffer.reasoning = 0
        if batch:
            try:
                self._streams.add_texts(batch)
            except RedisError as error:
                _log.warning("text_not_streamed", reason=reason_of(error))

    def _step(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._dirty or self._loop.stopping)
        self.flush()
        self._loop.pause(FLUSH_S)

    def _unblock(self) -> None:
        with self._changed:
            self._changed.notify()

    def stop(self, timeout_s: float = 5.0) -> None:
        """Flush what waits and end the thread."""
        self._loop.stop(timeout_s)
