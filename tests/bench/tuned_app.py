"""The tuned peer of `pipeline.py`: this project's Celery settings, a no-op, and a reply task."""

from __future__ import annotations

import os

import redis
from celery import Celery

from workers.transport.config import celery_config
from workers.transport.sender import CelerySender
from workers.transport.settings import TransportSettings
from workers.transport.tasks import NewTask

REDIS = os.environ["BENCH_REDIS"]
QUEUE = os.environ.get("BENCH_QUEUE", "inference")
PULLS = QUEUE == "inference"
COUNTER = "bench:done"

settings = TransportSettings(
    redis_url=REDIS, broker_url=os.environ.get("BENCH_BROKER", ""), events=False
)
app = Celery("tuned")
app.conf.update(
    celery_config(
        settings,
        queue=QUEUE,
        concurrency=16 if QUEUE == "inference" else 2,
        pulls=QUEUE == "inference",
    )
)
# Its messages are unsigned: Celery's own consumer takes them.
app.conf.worker_consumer = "celery.worker.consumer:Consumer"
_client = redis.Redis.from_url(REDIS)
_sender = CelerySender(app)


@app.task(name="bench.there", bind=True)
def there(self, body):
    _sender.publish_many([NewTask("herder", "bench.back", body, self.request.id, "")])


@app.task(name="bench.back")
def back(body):
    _client.incr(COUNTER)
