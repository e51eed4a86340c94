"""The peers of `pipeline.py`: a no-op with a callback, on Celery as it comes and on Celery with
this project's settings."""

from __future__ import annotations

import os

import redis
from celery import Celery

REDIS = os.environ["BENCH_REDIS"]
COUNTER = "bench:done"

app = Celery("bare", broker=os.environ.get("BENCH_BROKER") or REDIS)
_client = redis.Redis.from_url(REDIS)


@app.task(name="bench.noop")
def noop(number):
    return number


@app.task(name="bench.done")
def done(number):
    _client.incr(COUNTER)
