"""Kombu's transports for Redis and RabbitMQ, which survive bytes that are not a message.

Kombu unpacks what stands in a queue before any consumer sees it, and whatever that raises ends the
worker: one message by a stranger would stop every worker that reads it, and each that is started
after it. Here what cannot be read is logged and dropped; the guard looks at all the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import structlog
from amqp.method_framing import frame_handler  # type: ignore[import-untyped]
from amqp.serialization import decode_properties_basic  # type: ignore[import-untyped]
from kombu import compression, transport
from kombu.transport import pyamqp
from kombu.transport import redis as kombu_redis

from workers.wire import WORKER_QUEUES

_log = structlog.get_logger("workers.transport")

_UNREADABLE = (ValueError, TypeError, AttributeError, LookupError, RecursionError)
"""The errors of unpacking, but none of the connection's own (kombu counts KeyError among them)."""

_HEADER_FRAME = 2
_PROPERTIES_AT = 12
"""The offset of a header frame's properties, after class, weight and the body's size."""

MAX_OWN = 1024
"""Messages that a worker's own queue holds at most: it is sent no more than it has free slots, and
a hello now and then."""

OWN_TTL_S = 600
"""Seconds after which a message in a worker's own queue is of no use to anybody, and after which
the queue goes where nobody uses it."""

_NO_PROPERTIES = b"\0\0"


class SturdyChannel(kombu_redis.Channel):  # type: ignore[misc]
    """Reads queues of Redis, and goes on after what it cannot read.

    A worker's own queue is one list, whatever the priority of what is put there, which keeps the
    newest messages only and expires: a worker that is gone leaves nothing behind.
    """

    def _q_for_pri(self, queue: str, pri: int) -> str:
        if queue.startswith(WORKER_QUEUES):
            return queue
        return str(super()._q_for_pri(queue, pri))

    def _put(self, queue: str, message: dict[str, Any], **kwargs: Any) -> None:
        batch = kwargs.get("_publish_batch")
        super()._put(queue, message, **kwargs)
        if not queue.startswith(WORKER_QUEUES):
            return
        if batch is not None:
            batch.add("ltrim", queue, 0, MAX_OWN - 1)
            batch.add("expire", queue, OWN_TTL_S)
            return
        with self.conn_or_acquire() as client, client.pipeline(transaction=False) as pipe:
            pipe.ltrim(queue, 0, MAX_OWN - 1)
            pipe.expire(queue, OWN_TTL_S)
            pipe.execute()

    def _brpop_read(self, **options: Any) -> bool:
        try:
            return bool(super()._brpop_read(**options))
        except _UNREADABLE as error:
            _log.warning("message_refused", reason=f"unreadable: {type(error).__name__}")
            return True


class SturdyRedis(kombu_redis.Transport):  # type: ignore[misc]
    """Kombu's transport for Redis with that channel."""

    Channel = SturdyChannel


def _sturdy_frames(connection: Any, callback: Any) -> Callable[[Any], bool]:
    """Return py-amqp's reader of frames, made to skip properties that cannot be read.

    RabbitMQ passes on texts that are not UTF-8 and times that no calendar knows. Reading them
    would raise in the event loop, end the worker, and do so again with whoever gets the message
    next. A message without properties has no content type, and the guard rejects it.
    """
    on_frame = frame_handler(connection, callback)

    def on_sturdy_frame(frame: Any) -> bool:
        kind, channel, content = frame
        if kind == _HEADER_FRAME:
            try:
                decode_properties_basic(content, _PROPERTIES_AT)
            except Exception as error:  # noqa: BLE001 (whatever a stranger's bytes can raise)
                _log.warning("properties_unreadable", reason=type(error).__name__)
                frame = (kind, channel, bytes(content[:_PROPERTIES_AT]) + _NO_PROPERTIES)
        return bool(on_frame(frame))

    return on_sturdy_frame


class SturdyMessage(pyamqp.Message):  # type: ignore[misc]
    """A message of RabbitMQ's that may be acknowledged too late.

    Its number counts on its own channel alone: where that is gone, RabbitMQ has given the message
    back, and whoever gets it again refuses it. Celery would log that as critical, with a trace.
    """

    def ack_log_error(self, logger: Any, errors: Any, multiple: bool = False) -> None:
        """Acknowledge it, if its channel is still there."""
        if self._is_current():
            super().ack_log_error(logger, errors, multiple=multiple)

    def reject_log_error(self, logger: Any, errors: Any, requeue: bool = False) -> None:
        """Reject it, if its channel is still there."""
        if self._is_current():
            super().reject_log_error(logger, errors, requeue=requeue)

    def _is_current(self) -> bool:
        current = self.channel is not None and self.channel.connection is not None
        if not current:
            _log.info("acknowledged_too_late", task_id=str(self.headers.get("id"))[:80])
        return current


class SturdyAmqpChannel(pyamqp.Channel):  # type: ignore[misc]
    """Kombu's channel of RabbitMQ with such messages."""

    Message = SturdyMessage


class SturdyConnection(pyamqp.Connection):  # type: ignore[misc]
    """Kombu's connection to RabbitMQ with that reader of frames, and such channels."""

    Channel = SturdyAmqpChannel

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, frame_handler=_sturdy_frames, **kwargs)


class SturdyAmqp(pyamqp.Transport):  # type: ignore[misc]
    """Kombu's transport for RabbitMQ with that connection."""

    Connection = SturdyConnection


class SturdyAmqps(pyamqp.SSLTransport):  # type: ignore[misc]
    """The same over TLS."""

    Connection = SturdyConnection


_STURDY = {
    "redis": SturdyRedis,
    "rediss": SturdyRedis,
    "amqp": SturdyAmqp,
    "amqps": SturdyAmqps,
}


def use_sturdy_transports() -> None:
    """From here on, the schemes of both brokers mean these transports in this process."""
    for scheme, kind in _STURDY.items():
        transport.TRANSPORT_ALIASES[scheme] = f"{__name__}:{kind.__name__}"


def refuse_compression() -> None:
    """From here on, no message is unpacked in this process: none of ours is compressed.

    Kombu would do it before the guard sees the message, and a megabyte of a stranger's may hold a
    thousand of them.
    """

    def refuse(_packed: bytes) -> bytes:
        raise ValueError("no message is compressed here")

    for name in compression.encoders():
        encoder, _ = compression.get_encoder(name)
        compression.register(encoder, refuse, name)
