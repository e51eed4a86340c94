"""A worker that takes messages and does nothing: `celery -A tests.support.idle_worker worker`.

It beats and answers hellos, and what it is sent is gone. With `IDLE_DEAF` it answers none.
"""

from __future__ import annotations

import os

from workers.agent.agent import Agent
from workers.celery import app
from workers.wire import Hello, InferenceJob

__all__ = ["app"]


def _lose(_agent: Agent, _job: InferenceJob) -> dict[str, str | int]:
    return {"status": "lost", "tokens": 0}


def _ignore(_agent: Agent, _hello: Hello) -> dict[str, str | int]:
    return {"status": "ignored", "tokens": 0}


Agent.run = _lose  # type: ignore[method-assign]
if os.environ.get("IDLE_DEAF"):
    Agent.answer_hello = _ignore  # type: ignore[method-assign]
