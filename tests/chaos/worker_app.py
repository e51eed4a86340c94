"""A worker that dies where it is told to: `celery -A tests.chaos.worker_app worker -Q inference`.

Its points are what it says (`say_claim`, `say_beat`, `say_farewell`) and `publish_outcome`.
"""

from __future__ import annotations

from tests.chaos.points import install
from workers.agent import Agent
from workers.wire import Body

_point = install()
_say = Agent._say


def _say_and_die(self: Agent, body: Body) -> None:
    step = f"say_{type(body).__name__.lower()}"
    _point.reach(step, "before")
    _say(self, body)
    _point.reach(step, "after")


Agent._say = _say_and_die  # type: ignore[method-assign]

from workers.celery import app  # noqa: E402

__all__ = ["app"]
