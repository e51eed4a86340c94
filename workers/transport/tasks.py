"""A Celery task on its way out. Stands alone, so that who decides to send needs no Celery."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class NewTask:
    """A signed message, and where it goes.

    Attributes:
        queue: where to.
        task: the Celery task's name.
        token: the signed envelope.
        task_id: the Celery task's id.
        label: what people see of it; never a prompt.
        level: the broker's hint, 0 to 9, higher first.
    """

    queue: str
    task: str
    token: str
    task_id: str
    label: str
    level: int = 0


@dataclass(frozen=True, slots=True)
class LostTask:
    """A task whose end its worker could tell nobody.

    Attributes:
        task: the Celery task's name.
        task_id: the Celery task's id.
        label: what people see of it; never a prompt.
        worker: the name of the worker that it was sent to.
        code: why it counts as failed.
    """

    task: str
    task_id: str
    label: str
    worker: str
    code: str


class Publisher(Protocol):
    """Whatever puts signed messages on queues."""

    def publish_many(self, tasks: Sequence[NewTask]) -> None:
        """Send messages; raises OSError when the broker is out of reach."""
