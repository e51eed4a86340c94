"""Reads what workers say of themselves, and the herders' markers, from the beats' stream."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import structlog

from herder.duties.runner import OUTAGES, each_alone
from herder.herd.heartbeats import HeartbeatProcessor, HeartbeatResult
from herder.herd.trusted_keys import TrustedKeys
from herder.store import herd as herd_sql
from workers.transport.streams import Streams
from workers.wire import (
    BEATS_STREAM,
    ClockReading,
    ClockRequest,
    Envelope,
    Marker,
    PublicKey,
    WireError,
    unseal,
)

_log = structlog.get_logger("herder.service.beats")

MAX_BEATS = 500
"""Messages of one batch."""


class BeatReader:
    """Takes in beats, claims and farewells, those of one batch in one transaction.

    Args:
        streams: that they come by.
        herd: takes them in.
        keys: whom to believe.
        name: this herder's, among all.
        clock_us: the time, in microseconds since the epoch, which workers ask for.
        act: is given what each transaction led to, once it is committed.
        failed: is told what could not be taken in, and was left out.
    """

    def __init__(
        self,
        streams: Streams,
        herd: HeartbeatProcessor,
        keys: TrustedKeys,
        name: str,
        clock_us: Callable[[], int],
        act: Callable[[HeartbeatResult], object],
        failed: Callable[[Exception], object],
    ) -> None:
        self._streams = streams
        self._herd = herd
        self._keys = keys
        self._name = name
        self._clock_us = clock_us
        self._act = act
        self._failed = failed

    def read(self, block_ms: int) -> list[tuple[int, str]]:
        """Return unread beats: (microseconds since the epoch, token)."""
        return self._streams.read_beats(self._name, count=MAX_BEATS, block_ms=block_ms)

    def take_in(self, tokens: list[tuple[int, str]]) -> None:
        """Take in what was read; one that cannot be taken in is left out, and stops no other.

        Raises:
            HerdUnavailable: the database is out of reach. What was not taken in is lost with it,
                and said again by the workers' next beats.
        """
        herders = self._keys.of(herd_sql.HERDER)
        everybody = self._keys.of_everybody()
        envelopes = []
        for at_us, token in tokens:
            envelope = self._open(token, herders, everybody)
            if envelope is not None:
                envelopes.append(replace(envelope, at_us=at_us))
        envelopes = self._tell_the_time(envelopes)
        heard = HeartbeatResult()
        try:
            each_alone(envelopes, lambda batch: heard.add(self._herd.hear(batch)), self._drop)
        finally:
            # What was taken in before an outage is acted on all the same.
            self._act(heard)

    def _open(
        self, token: str, herders: Mapping[str, PublicKey], everybody: Mapping[str, PublicKey]
    ) -> Envelope | None:
        """Return the content of a message, if it is to be believed."""
        try:
            envelope = unseal(token, everybody, audience=BEATS_STREAM)
            right_side = isinstance(envelope.body, Marker) == (envelope.kid in herders)
        except WireError as error:
            _log.warning("beat_refused", reason=str(error))
            return None
        except OUTAGES:
            raise  # the keys are in the database
        except Exception as error:  # noqa: BLE001 (counted; its text could quote a nonce)
            _log.error("beat_unreadable", reason=type(error).__name__)
            self._failed(error)
            return None
        if not right_side:
            _log.warning("beat_refused", reason="signed by the wrong side")
            return None
        return envelope

    def _tell_the_time(self, envelopes: list[Envelope]) -> list[Envelope]:
        """Answer the workers that ask for the time, before anything else; return the rest.

        The sooner the answer, the smaller its error. Who poses as another's instance is told
        nothing, nor is that one.
        """
        told = HeartbeatResult()
        asking, rest = [], []
        workers = self._keys.of(herd_sql.WORKER)
        for envelope in envelopes:
            if not isinstance(envelope.body, ClockRequest):
                rest.append(envelope)
            elif envelope.kid in workers:
                asking.append(envelope)
        for envelope in self._keys.own_names(asking):
            if isinstance(envelope.body, ClockRequest):
                nonce = envelope.body.nonce
                reading = ClockReading(nonce=nonce, herder=self._name, now_us=self._clock_us())
                told.control.append((envelope.sender, reading))
        if told.control:
            self._act(told)
        return rest

    def _drop(self, envelope: Envelope, error: Exception) -> None:
        # Neither its text nor its trace: they could quote the nonces of running attempts.
        _log.error(
            "beat_dropped",
            instance=envelope.sender,
            kid=envelope.kid,
            kind=envelope.body.kind,
            reason=type(error).__name__,
        )
        self._failed(error)
