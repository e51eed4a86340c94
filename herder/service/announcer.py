"""Tells workers and clients what was committed: nothing that is said here decides about money.

Whatever is lost on the way is asked for again: a worker's beats name what it waits to have
confirmed, and a client looks into the database each second.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import structlog
from redis import RedisError

from herder.orders.closing import ClosingResult, instances
from workers.transport.reasons import reason_of
from workers.transport.streams import Streams
from workers.wire import (
    BEATS_STREAM,
    MAX_HELD,
    Body,
    CancelAttempt,
    Confirm,
    Marker,
    PrivateKey,
    WireError,
    control_stream,
    seal,
)

_log = structlog.get_logger("herder.service.announcer")


class Announcer:
    """Speaks for a herder.

    Args:
        streams: that it speaks by.
        key: that it signs with.
        clock_us: the time, in microseconds since the epoch.
    """

    def __init__(self, streams: Streams, key: PrivateKey, clock_us: Callable[[], int]) -> None:
        self._streams = streams
        self._key = key
        self._clock_us = clock_us

    def tell(self, settled: ClosingResult) -> None:
        """Tell workers what is settled and what to stop, and clients what has ended."""
        messages: list[tuple[str, Body]] = []
        for instance, held in instances(settled.confirmed).items():
            for start in range(0, len(held), MAX_HELD):
                messages.append((instance, Confirm(held=tuple(held[start : start + MAX_HELD]))))
        messages += [
            (instance, CancelAttempt(held=held, reason=why))
            for instance, held, why in settled.stops
        ]
        self.control(messages)
        if settled.ended:
            try:
                self._streams.announce_ended(settled.ended)
                if settled.inboxes:
                    self._streams.announce_inboxes(sorted(settled.inboxes))
            except RedisError as error:
                _log.warning("redis_out_of_reach", reason=reason_of(error))

    def control(self, messages: Sequence[tuple[str, Body]]) -> None:
        """Send (instance, message) to workers."""
        tokens = []
        for instance, body in messages:
            try:
                tokens.append((instance, self._seal(body, control_stream(instance))))
            except (WireError, ValueError) as error:
                # One that cannot be put into words keeps no other worker from hearing.
                reason = type(error).__name__
                _log.error("control_not_made", instance=instance, kind=body.kind, reason=reason)
        if not tokens:
            return
        try:
            self._streams.add_controls(tokens)
        except RedisError as error:
            _log.warning("control_not_sent", reason=reason_of(error))

    def mark(self, number: int) -> None:
        """Send the listening clock's marker."""
        token = self._seal(Marker(number=number), BEATS_STREAM)
        try:
            self._streams.add_beat(token)
        except RedisError as error:
            _log.warning("redis_out_of_reach", reason=reason_of(error))

    def _seal(self, body: Body, audience: str) -> str:
        return seal(
            body,
            self._key,
            sender="herder",
            audience=audience,
            now_s=self._clock_us() // 1_000_000,
        )
