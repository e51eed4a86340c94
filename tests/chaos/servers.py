"""What stands below a herd, and what can be done to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.support.rabbit_server import RabbitServer
from tests.support.redis_server import RedisServer

WAYS = {"light": (None, None), "heavy": ("own_postgres", "own_rabbit")}
"""SQLite and Redis alone, or PostgreSQL and RabbitMQ: the fixtures of both."""


@dataclass
class Servers:
    """One of each, or None where the herd does without."""

    redis: RedisServer
    rabbit: RabbitServer | None
    postgres: Any | None

    def forget_tasks(self) -> None:
        """All that the broker holds is gone."""
        if self.rabbit is not None:
            self.rabbit.kill()
            self.rabbit.wipe()
            self.rabbit.start()
            return
        client = self.redis.client()
        for pattern in ("inference*", "herder*", "unacked*", "_kombu*"):
            for key in client.scan_iter(pattern):
                client.delete(key)

    def restart_redis(self) -> None:
        """It forgets everything: text, beats and control, and as broker all tasks."""
        self.redis.kill()
        self.redis.start()
