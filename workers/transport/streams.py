"""The Redis streams beside Celery: beats to the herders, control to a worker, text to clients.

All are bounded, and nothing that only stands in one of them decides about money: beats and
control are signed, text is provisional.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import redis
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

from workers.wire import BEATS_STREAM, control_stream, text_stream

MAX_BEATS = 20_000
MAX_CONTROL = 10_000
CONTROL_TTL_S = 3600
TEXT_TTL_S = 86_400
TEXT_AFTER_END_TTL_S = 120
GROUP = "herders"

Entry = tuple[str, dict[str, str]]
ENDED_CHANNEL = "ended"
INBOX = "@"
"""The prefix of an account's name on that channel; no order's id begins so."""
NUDGE_TTL_MS = 1000
"""After which a nudge counts as lost; the herders' sweep looks as often by itself."""


def connect(url: str) -> redis.Redis:
    """Return a client of Redis as all of this project uses it; it connects at its first command."""
    return redis.Redis.from_url(
        url,
        decode_responses=True,
        # Anybody with access may write bytes that are not text; they are read all the same.
        encoding_errors="replace",
        socket_timeout=15,
        socket_connect_timeout=5,
        socket_keepalive=True,
        health_check_interval=10,
        # One try more, for a connection that died while nobody used it.
        retry=Retry(ExponentialBackoff(cap=0.5, base=0.05), 1),
    )


@dataclass(frozen=True, slots=True)
class NewText:
    """A piece of an attempt's text on its way out.

    Attributes:
        offset: characters of the attempt's text before this piece.
        end: whether the text is whole with it.
        most: entries that the stream may hold: one for each token and a few.
    """

    order: str
    attempt: int
    offset: int
    text: str
    end: bool
    most: int


@dataclass(frozen=True, slots=True)
class TextPiece:
    """A piece of an attempt's provisional text; `offset` counts the characters before it."""

    id: str
    offset: int
    text: str
    end: bool


class Streams:
    """Writes and reads the streams. Errors are redis-py's own: `redis.RedisError`."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client

    def answers(self) -> bool:
        """Return whether Redis is in reach."""
        try:
            return bool(self._redis.ping())
        except redis.RedisError:
            return False

    # Beats

    def add_beat(self, token: str) -> None:
        """Add a worker's message or a herder's marker, for whichever herder reads next."""
        self._redis.xadd(BEATS_STREAM, {"token": token}, maxlen=MAX_BEATS, approximate=True)

    def read_beats(self, consumer: str, *, count: int, block_ms: int) -> list[tuple[int, str]]:
        """(when, token) of what no other herder has read yet; empty when none came in time.

        `when` is Redis's own time, in microseconds since the epoch.

        They are not acknowledged: a batch lost with its herder is said again by the next beats.
        """
        try:
            answer = self._redis.xreadgroup(
                GROUP, consumer, {BEATS_STREAM: ">"}, count=count, block=block_ms, noack=True
            )
        except redis.ResponseError as error:
            if "NOGROUP" not in str(error):
                raise
            self._make_group()
            return []
        return [
            (int(entry_id.partition("-")[0]) * 1000, fields.get("token", ""))
            for entry_id, fields in _entries(answer)
        ]

    def _make_group(self) -> None:
        try:
            self._redis.xgroup_create(BEATS_STREAM, GROUP, id="0", mkstream=True)
        except redis.ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    # Control

    def add_controls(self, messages: Sequence[tuple[str, str]]) -> None:
        """Herders' messages to worker instances: (instance, token) each."""
        with self._redis.pipeline(transaction=False) as pipe:
            for instance, token in messages:
                key = control_stream(instance)
                pipe.xadd(key, {"token": token}, maxlen=MAX_CONTROL, approximate=True)
                pipe.expire(key, CONTROL_TTL_S)
            pipe.execute()

    def read_control(self, instance: str, after: str, *, block_ms: int) -> list[tuple[str, str]]:
        """(id, token) of what came for an instance after an id; empty when nothing did in time."""
        answer = self._redis.xread({control_stream(instance): after}, count=100, block=block_ms)
        return [(entry_id, fields.get("token", "")) for entry_id, fields in _entries(answer)]

    # Text

    def add_texts(self, pieces: Sequence[NewText]) -> None:
        """Pieces of the texts of any number of attempts, for whoever reads along."""
        with self._redis.pipeline(transaction=False) as pipe:
            for piece in pieces:
                key = text_stream(piece.order, piece.attempt)
                fields: dict[Any, Any] = {"o": piece.offset, "t": piece.text}
                if piece.end:
                    # From here on the stored text answers for it.
                    fields["end"] = "1"
                pipe.xadd(key, fields, maxlen=piece.most, approximate=False)
                if piece.end or piece.offset == 0:
                    pipe.expire(key, TEXT_AFTER_END_TTL_S if piece.end else TEXT_TTL_S)
            pipe.execute()

    def read_text(self, order: str, attempt: int, after: str, *, block_ms: int) -> list[TextPiece]:
        """Pieces of an attempt's text after an id; empty when none came in time."""
        return pieces_of(
            self._redis.xread({text_stream(order, attempt): after}, count=500, block=block_ms)
        )

    # The ends of orders, and nudges

    def announce_ended(self, orders: Sequence[str]) -> None:
        """Wake the clients that wait for these orders. Whoever misses it looks again anyway."""
        self._redis.publish(ENDED_CHANNEL, " ".join(orders))

    def announce_inboxes(self, accounts: Sequence[str]) -> None:
        """Wake the clients that wait for messages to these accounts; who misses it looks again."""
        self._redis.publish(ENDED_CHANNEL, " ".join(f"{INBOX}{name}" for name in accounts))

    def first_nudge(self, model: str) -> bool:
        """Return whether nobody else's nudge about a model is on its way.

        Then one has to be sent.
        """
        return bool(self._redis.set(f"nudge:{model}", "1", nx=True, px=NUDGE_TTL_MS))

    def nudge_arrived(self, model: str) -> None:
        """Let the next submission nudge again."""
        self._redis.delete(f"nudge:{model}")


def pieces_of(answer: Any) -> list[TextPiece]:
    """Return the pieces of text read from an attempt's stream."""
    return [
        TextPiece(entry_id, int(fields["o"]), fields["t"], "end" in fields)
        for entry_id, fields in _entries(answer)
    ]


def _entries(answer: Any) -> list[Entry]:
    """Return the entries of the one stream that was read, whichever form redis-py gives them in."""
    if not answer:
        return []
    if isinstance(answer, dict):
        batches = next(iter(answer.values()))
        return cast(
            "list[Entry]",
            [entry for batch in batches for entry in batch]
            if batches and isinstance(batches[0], list)
            else batches,
        )
    return cast("list[Entry]", answer[0][1])
