"""The herder's Celery tasks on queue `herder`: outcomes, and nudges.

They only hand over: what waits is settled together, on the herder's own thread. An outcome that
is lost on the way there was not confirmed, so its worker sends it again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import structlog
from celery import Celery

from herder.herd.trusted_keys import TrustedKeys
from herder.orders.settlement import ReceivedOutcome
from herder.service.loop import Service
from herder.store.herd import HERDER, WORKER
from workers.transport.guard import MessageGuard
from workers.wire import (
    HERDER_QUEUE,
    NUDGE_ID,
    NUDGE_TASK,
    OUTCOME_TASK,
    Envelope,
    Nudge,
    Outcomes,
    WireError,
    attempt_id,
    unseal,
)

_log = structlog.get_logger("herder.service.tasks")


def make_guard(keys: Callable[[], TrustedKeys]) -> MessageGuard:
    """Return the guard of queue `herder`: outcomes signed by workers, nudges signed by herders."""

    def check(name: str, token: str) -> tuple[Envelope, str, str]:
        if name == OUTCOME_TASK:
            envelope = unseal(token, keys().of(WORKER), audience=HERDER_QUEUE)
            if isinstance(envelope.body, Outcomes):
                first, *more = envelope.body.outcomes
                label = f"order={first.order}" + (f" +{len(more)}" if more else "")
                return envelope, attempt_id(first.held), label
        elif name == NUDGE_TASK:
            envelope = unseal(token, keys().of(HERDER), audience=HERDER_QUEUE)
            if isinstance(envelope.body, Nudge):
                return envelope, NUDGE_ID, f"model={envelope.body.model}"
        raise WireError("unknown_task", name[:80])

    return MessageGuard(check)


def register(app: Celery, service: Callable[[], Service | None]) -> None:
    """Add the tasks to a Celery app.

    Args:
        app: the herder's app, with its guard.
        service: gives the herder of this process, once it runs.
    """

    @app.task(name=OUTCOME_TASK, bind=True)  # type: ignore[untyped-decorator]
    def outcome(self: Any, token: str) -> None:
        envelope = app.herd_guard.take(self.request.id, token)
        herder = service()
        if envelope is not None and herder is not None:
            herder.answer(
                [
                    ReceivedOutcome(one, envelope.sender, envelope.kid)
                    for one in envelope.body.outcomes
                ]
            )

    @app.task(name=NUDGE_TASK, bind=True)  # type: ignore[untyped-decorator]
    def nudge(self: Any, token: str) -> None:
        envelope = app.herd_guard.take(self.request.id, token)
        herder = service()
        if envelope is not None and herder is not None:
            herder.nudged(envelope.body.model)
