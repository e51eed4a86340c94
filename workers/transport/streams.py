"""The Redis streams beside Celery: beats to the herders, control to a worker, text to clients.

All are bounded, and nothing that only stands in one of them decides about money: beats and
control are signed, text is provisional.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, cast

import redis
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

from workers.transport import delivery
from workers.transport.delivery import Delivery, Reach
from workers.wire import BEATS_STREAM, control_stream, counted_key, prompt_key, text_stream

MAX_BEATS = 20_000
MAX_CONTROL = 10_000
CONTROL_TTL_S = 3600
TEXT_TTL_S = 86_400
COUNT_TTL_S = 10
"""The time for which a prompt waits to be counted, and its count to be read."""
TEXT_AFTER_END_TTL_S = 120
GROUP = "herders"

PROBE_KEY = "nudge:@"
"""The key that is written to see whether Redis stores anything; no model has that name."""

Entry = tuple[str, dict[str, str]]
ENDED_CHANNEL = "ended"
INBOX = "@"
"""The prefix of an account's name on that channel; no order's id begins so."""
NUDGE_TTL_MS = 1000
"""After which a nudge counts as lost; the herders' sweep looks as often by itself."""

LIMIT_S = 2.0
"""Seconds that Redis is given to answer: a server that stands still keeps nobody any longer."""
SILENT_S = 1.0
"""Seconds after such a call in which no other one waits, but fails at once."""
WAITS_S = 1.0
"""Seconds for which a read may wait for something to come, beside that limit."""

RedisState = Literal["ok", "silent", "full", "read_only"]


def connect(url: str, *, limit_s: float = LIMIT_S, waits_s: float = 0.0) -> redis.Redis:
    """Return a client of Redis as all of this project uses it; it connects at its first command.

    Args:
        url: of the server.
        limit_s: seconds that it is given to answer, and to be connected to.
        waits_s: for clients that wait for something to come: how long, besides that limit.
    """
    return redis.Redis.from_url(
        url,
        decode_responses=True,
        # Anybody with access may write bytes that are not text; they are read all the same.
        encoding_errors="replace",
        socket_timeout=limit_s + waits_s,
        socket_connect_timeout=limit_s,
        socket_keepalive=True,
        health_check_interval=10,
        retry=one_more_try(),
    )


def one_more_try() -> Retry:
    """Return the rule for a connection that died while nobody used it: one more try.

    None for a server that does not answer in time: it would take as long once more.
    """
    return Retry(ExponentialBackoff(cap=0.5, base=0.05), 1, (redis.ConnectionError,))


@dataclass(frozen=True, slots=True)
class NewText:
    """A piece of an attempt's text on its way out.

    Attributes:
        offset: characters of the attempt's text before this piece.
        generated: tokens of the attempt up to the end of this piece.
        end: whether the text is whole with it.
        most: entries that the stream may hold: one for each token and a few.
        reasoning: characters at the piece's beginning that are reasoning.
    """

    order: str
    attempt: int
    offset: int
    text: str
    generated: int
    end: bool
    most: int
    reasoning: int = 0


@dataclass(frozen=True, slots=True)
class TextPiece:
    """A piece of an attempt's provisional text.

    Attributes:
        offset: characters before it.
        generated: tokens of the attempt up to its end; 0 where its worker does not say.
        end: whether the text is whole with it.
        reasoning: characters at its beginning that are reasoning; the answer comes after them.
    """

    id: str
    offset: int
    text: str
    generated: int
    end: bool
    reasoning: int = 0


class Streams:
    """Writes and reads the streams. Errors are redis-py's own: `redis.RedisError`.

    No call takes longer than `LIMIT_S`, and those that wait for something to come than that and
    what they wait. Where Redis has left a call unanswered, those of the next `SILENT_S` fail at
    once, so that a thread with much to say is not held up by each word of it.

    Args:
        client: for what is answered at once.
        waiting: for reads that wait; the same client, where it is not given.
        clock_s: a clock that only rises, in seconds.
    """

    def __init__(
        self,
        client: redis.Redis,
        waiting: redis.Redis | None = None,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._redis = client
        self._waiting = client if waiting is None else waiting
        self._clock_s = clock_s
        self._silent_until_s = float("-inf")

    @contextmanager
    def _in_time(self) -> Iterator[None]:
        """Let a call through, unless Redis left one unanswered a moment ago.

        Raises:
            redis.TimeoutError: Redis does not answer.
        """
        if self._clock_s() < self._silent_until_s:
            raise redis.TimeoutError("Redis left a call unanswered a moment ago")
        try:
            yield
        except redis.TimeoutError:
            self._silent_until_s = self._clock_s() + SILENT_S
            raise

    def state(self) -> RedisState:
        """Return whether Redis answers, and stores what it is given."""
        try:
            with self._in_time():
                self._redis.set(PROBE_KEY, "1", px=NUDGE_TTL_MS)
        except redis.OutOfMemoryError:
            return "full"
        except redis.exceptions.NoPermissionError:
            return "ok"  # it answers, and this program need not write there
        except redis.ResponseError:
            return "read_only"
        except redis.RedisError:
            return "silent"
        return "ok"

    # Beats

    def add_beat(self, token: str) -> None:
        """Add a worker's message or a herder's marker, for whichever herder reads next."""
        with self._in_time():
            self._redis.xadd(BEATS_STREAM, {"token": token}, maxlen=MAX_BEATS, approximate=True)

    def read_beats(self, consumer: str, *, count: int, block_ms: int) -> list[tuple[int, str]]:
        """(when, token) of what no other herder has read yet; empty when none came in time.

        `when` is Redis's own time, in microseconds since the epoch.

        They are not acknowledged: a batch lost with its herder is said again by the next beats.
        """
        try:
            answer = self._waiting.xreadgroup(
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
        with self._in_time(), self._redis.pipeline(transaction=False) as pipe:
            for instance, token in messages:
                key = control_stream(instance)
                pipe.xadd(key, {"token": token}, maxlen=MAX_CONTROL, approximate=True)
                pipe.expire(key, CONTROL_TTL_S)
            pipe.execute()

    def read_control(self, instance: str, after: str, *, block_ms: int) -> list[tuple[str, str]]:
        """(id, token) of what came for an instance after an id; empty when nothing did in time."""
        answer = self._waiting.xread({control_stream(instance): after}, count=100, block=block_ms)
        return [(entry_id, fields.get("token", "")) for entry_id, fields in _entries(answer)]

    # Counting tokens

    def ask_count(self, instance: str, request: str, prompt: str, control: str) -> None:
        """Leave a prompt for a worker instance, and tell it; both are signed, and both expire."""
        with self._in_time(), self._redis.pipeline(transaction=False) as pipe:
            pipe.set(prompt_key(request), prompt, ex=COUNT_TTL_S)
            pipe.xadd(
                control_stream(instance), {"token": control}, maxlen=MAX_CONTROL, approximate=True
            )
            pipe.expire(control_stream(instance), CONTROL_TTL_S)
            pipe.execute()

    def take_prompt(self, request: str) -> str | None:
        """Take a prompt that was left to be counted; None if it has expired, or was taken."""
        with self._in_time(), self._redis.pipeline(transaction=True) as pipe:
            pipe.get(prompt_key(request))
            pipe.delete(prompt_key(request))
            found, _ = pipe.execute()
        return None if found is None else str(found)

    def answer_count(self, request: str, token: str) -> None:
        """Answer a number of tokens to whoever waits for it."""
        with self._in_time(), self._redis.pipeline(transaction=False) as pipe:
            pipe.rpush(counted_key(request), token)
            pipe.expire(counted_key(request), COUNT_TTL_S)
            pipe.execute()

    def await_count(self, request: str, timeout_s: float) -> str | None:
        """Wait for an answer, no longer than `WAITS_S`; None if none came in time."""
        wait_s = min(timeout_s, WAITS_S)
        found: Any = self._waiting.blpop([counted_key(request)], timeout=wait_s)
        return None if found is None else str(found[1])

    # Text

    def add_texts(self, pieces: Sequence[NewText]) -> None:
        """Pieces of the texts of any number of attempts, for whoever reads along."""
        with self._in_time(), self._redis.pipeline(transaction=False) as pipe:
            for piece in pieces:
                key = text_stream(piece.order, piece.attempt)
                fields: dict[Any, Any] = {"o": piece.offset, "t": piece.text, "n": piece.generated}
                if piece.reasoning:
                    fields["r"] = piece.reasoning
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
            self._waiting.xread({text_stream(order, attempt): after}, count=500, block=block_ms)
        )

    # What readers were given

    def note_deliveries(self, deliveries: Sequence[Delivery]) -> None:
        """Note how far readers were given texts."""
        with self._in_time(), self._redis.pipeline(transaction=True) as pipe:
            delivery.note(pipe, deliveries)
            pipe.execute()

    def delivered(self, attempts: Sequence[tuple[str, int]]) -> list[Reach]:
        """Return the furthest reach of any reader in each (order, attempt), in their order."""
        with self._in_time(), self._redis.pipeline(transaction=False) as pipe:
            delivery.furthest(pipe, attempts)
            return [delivery.reach_of(answer) for answer in pipe.execute()]

    # The ends of orders, and nudges

    def announce_ended(self, orders: Sequence[str]) -> None:
        """Wake the clients that wait for these orders. Whoever misses it looks again anyway."""
        with self._in_time():
            self._redis.publish(ENDED_CHANNEL, " ".join(orders))

    def announce_inboxes(self, accounts: Sequence[str]) -> None:
        """Wake the clients that wait for messages to these accounts; who misses it looks again."""
        with self._in_time():
            self._redis.publish(ENDED_CHANNEL, " ".join(f"{INBOX}{name}" for name in accounts))

    def first_nudge(self, model: str) -> bool:
        """Return whether nobody else's nudge about a model is on its way.

        Then one has to be sent.
        """
        with self._in_time():
            return bool(self._redis.set(f"nudge:{model}", "1", nx=True, px=NUDGE_TTL_MS))

    def nudge_arrived(self, model: str) -> None:
        """Let the next submission nudge again."""
        with self._in_time():
            self._redis.delete(f"nudge:{model}")


def open_streams(url: str) -> Streams:
    """Return the streams of a Redis; nothing is sent yet."""
    return Streams(connect(url), connect(url, waits_s=WAITS_S))


def pieces_of(answer: Any) -> list[TextPiece]:
    """Return the pieces of text read from an attempt's stream."""
    return [
        TextPiece(
            entry_id,
            int(fields["o"]),
            fields["t"],
            int(fields.get("n", 0)),
            "end" in fields,
            int(fields.get("r", 0)),
        )
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
