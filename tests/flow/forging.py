"""Messages that a stranger with access to the broker could send, and how they get there."""

from __future__ import annotations

import base64
import json
import pickle
import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import amqp

from workers.wire import (
    HERDER_QUEUE,
    INFER_TASK,
    INFERENCE_QUEUE,
    OUTCOME_TASK,
    Body,
    InferenceJob,
    PrivateKey,
    seal,
)

STRANGER = PrivateKey.generate()
OFF = 9
"""The Redis list of a queue's lowest level; the queues there are read best level first."""

HEADERS_ONLY = 0x2000
"""The flags of AMQP's properties where there is nothing but the table of headers."""


def job(**fields: Any) -> InferenceJob:
    given = {"order": "forged", "attempt": 1, "nonce": "n", "rank": 0, "model": "stub"}
    return InferenceJob(**{**given, "prompt": "Hi", "tokens": 5, "run_limit_s": 60, **fields})


def sealed(
    body: Body | None = None, key: PrivateKey = STRANGER, audience: str = INFERENCE_QUEUE
) -> str:
    return seal(body or job(), key, sender="herder", audience=audience)


@dataclass(frozen=True)
class Forged:
    """A Celery message, right or wrong."""

    body: bytes
    headers: Any
    content_type: str = "application/json"
    content_encoding: str = "utf-8"
    properties: dict[str, Any] = field(default_factory=dict)

    def for_redis(self) -> str:
        """As kombu keeps it in a list."""
        properties = {
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": INFERENCE_QUEUE},
            "priority": OFF,
            "body_encoding": "base64",
            "correlation_id": "forged",
            "delivery_tag": "forged",
            **self.properties,
        }
        return json.dumps(
            {
                "body": base64.b64encode(self.body).decode(),
                "content-encoding": self.content_encoding,
                "content-type": self.content_type,
                "headers": self.headers,
                "properties": properties,
            }
        )

    def for_rabbit(self) -> amqp.Message | None:
        """As RabbitMQ takes it; None where it would take no such thing."""
        if not isinstance(self.headers, dict | None):
            return None
        return amqp.Message(
            self.body,
            content_type=self.content_type,
            content_encoding=self.content_encoding,
            application_headers=self.headers,
            **{"correlation_id": "forged", **self.properties},
        )


class RawProperties(amqp.Message):  # type: ignore[misc]
    """A message whose properties are these bytes."""

    def __init__(self, body: bytes, raw: bytes) -> None:
        super().__init__(body)
        self._raw = raw

    def _serialize_properties(self) -> bytes:
        return self._raw


def message(
    args: Any,
    *,
    task: Any = INFER_TASK,
    task_id: Any = "forged.1",
    embed: Any = None,
    body: bytes | None = None,
    headers: Any = (),
    **over: Any,
) -> Forged:
    """A message as Celery makes it, but for what is said otherwise."""
    raw = json.dumps([args, {}, embed or {}]).encode() if body is None else body
    usual = {"lang": "py", "task": task, "id": task_id, "root_id": task_id, "retries": 0}
    given = {**usual, **headers} if isinstance(headers, dict) else usual
    return Forged(raw, given if isinstance(headers, dict | tuple) else headers, **over)


class Exploit:
    """Runs a command where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (open, (str(self.path), "w"))


def hostile(trap: Path) -> dict[str, Forged]:
    """Messages that must not run: their name, and what they are."""
    token = sealed()
    signature = {"task": OUTCOME_TASK, "args": [token], "kwargs": {}, "options": {}}
    packed = zlib.compress(json.dumps([[token], {}, {}]).encode())
    return {
        "no JSON": message([], body=b"{never closed"),
        "null": message([], body=b"null"),
        "a number": message([], body=b"5"),
        "no arguments": message([]),
        "two arguments": message([token, token]),
        "an argument that is no text": message([{"token": token}]),
        "not UTF-8": message([], body=b"\xff\xfe\xfa"),
        "nested a lot": message([], body=b"[" * 50_000),
        "a list where headers should be": message([token], headers=[1, 2]),
        "null where headers should be": message([token], headers=None),
        "no task": message([token], headers={"task": None}),
        "a task that is a list": message([token], headers={"task": [INFER_TASK]}),
        "no id": message([token], headers={"id": None}),
        "an unknown task": message([token], task="os.system"),
        "a task of Celery's own": message([token], task="celery.backend_cleanup"),
        "a pickle": message(
            [], body=pickle.dumps(Exploit(trap)), content_type="application/x-python-serialize"
        ),
        "a pickle that says JSON": message([], body=pickle.dumps(Exploit(trap))),
        "plain text": message([], body=token.encode(), content_type="text/plain"),
        "yaml": message([], body=b"!!python/object", content_type="application/x-yaml"),
        "an unknown encoding": message([token], content_encoding="utf-77"),
        "compressed nonsense": message([token], headers={"compression": "application/x-gzip"}),
        "compressed": message([], body=packed, headers={"compression": "application/x-gzip"}),
        "unsigned": message(["not a token"]),
        "signed by a stranger": message([token]),
        "callbacks": message([token], embed={"callbacks": [signature], "errbacks": [signature]}),
        "a chain": message([token], embed={"chain": [signature], "chord": signature}),
        "far in the future": message([token], headers={"eta": "2999-01-01T00:00:00+00:00"}),
        "expired": message([token], headers={"expires": "1999-01-01T00:00:00+00:00"}),
        "an eta that is none": message([token], headers={"eta": "soon", "expires": [], "group": 5}),
        "a timelimit of words": message([token], headers={"timelimit": "none"}),
        "retries without end": message([token], headers={"retries": "many", "stamps": {"a": 1}}),
        "an answer to somewhere": message([token], properties={"reply_to": HERDER_QUEUE}),
        "an old protocol": message([], body=json.dumps({"task": INFER_TASK, "id": "1"}).encode()),
    }


def hostile_bytes(broker: str) -> dict[str, Any]:
    """What breaks already where the broker's own form is read."""
    if broker == "redis":
        raw = ("not json", "null", "5", "[]", "{}", '{"body": 5}')
        return {f"the bytes {one}": one for one in raw}
    body = json.dumps([[sealed()], {}, {}]).encode()
    return {
        "a type that is not UTF-8": amqp.Message(body, content_type=b"\xff\xfe"),
        "an id that is not UTF-8": amqp.Message(
            body, content_type="application/json", correlation_id=b"\xff\xfe"
        ),
        "a time beyond all calendars": RawProperties(
            body, struct.pack(">H", HEADERS_ONLY) + table(b"\x01t" + b"T" + b"\xff" * 8)
        ),
        "tables in tables": RawProperties(
            body, struct.pack(">H", HEADERS_ONLY) + nested_tables(3000)
        ),
        "no properties": amqp.Message(body),
        "nothing at all": amqp.Message(b""),
    }


def table(entries: bytes) -> bytes:
    """A table of AMQP."""
    return struct.pack(">I", len(entries)) + entries


def nested_tables(depth: int) -> bytes:
    """A table in a table in a table."""
    inner = table(b"")
    for _ in range(depth):
        inner = table(b"\x00F" + inner)
    return inner


class Post:
    """A way into a herd's queues."""

    def __init__(self, herd: Any, rabbit: Any) -> None:
        self._redis, self._rabbit = herd.redis, rabbit

    @property
    def broker(self) -> str:
        return "redis" if self._rabbit is None else "rabbitmq"

    def fits(self, attacks: dict[str, Forged]) -> dict[str, Any]:
        """Those that this broker takes, in its own form."""
        made = {
            name: one.for_redis() if self._rabbit is None else one.for_rabbit()
            for name, one in attacks.items()
        }
        return {name: one for name, one in made.items() if one is not None}

    def push(self, queue: str, *messages: Any) -> None:
        """Put messages into a queue, with every right that there is."""
        if self._rabbit is None:
            self._redis.client().lpush(queue, *messages)
            return
        with self._rabbit.channel() as channel:
            for one in messages:
                channel.basic_publish(one, exchange="", routing_key=queue)

    def waiting(self, queue: str) -> int:
        """How many messages wait there."""
        if self._rabbit is not None:
            return int(self._rabbit.waiting(queue))
        client = self._redis.client()
        levels = [queue, *(f"{queue}\x06\x16{level}" for level in range(10))]
        return sum(client.llen(level) for level in levels)
