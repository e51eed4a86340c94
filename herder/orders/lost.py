"""An attempt that lapsed, as those who watch tasks are told of it. Pure."""

from __future__ import annotations

from herder.domain.order import Order
from herder.domain.receipts import decimal_text
from workers.transport.tasks import LostTask
from workers.wire import INFER_TASK, AttemptRef, attempt_id, job_label

LAPSED = "lapsed"
"""The code of what was not claimed, or whose worker fell silent."""

NOBODY = "unknown"


def lost_task(order: Order, held: AttemptRef, worker: str | None) -> LostTask:
    """Return the task of an attempt that lapsed.

    Args:
        order: as it stood.
        held: its current attempt.
        worker: the name of the worker that it was sent to; None where that is not known.
    """
    try:
        multiplier = decimal_text(order.multiplier, 3)
    except (ArithmeticError, TypeError, ValueError):
        # It needs nothing, or its numbers cannot be read. A label decides nothing about an order.
        multiplier = "0"
    return LostTask(
        task=INFER_TASK,
        task_id=attempt_id(held),
        label=job_label(order.id, multiplier, order.tokens),
        worker=worker or NOBODY,
        code=LAPSED,
    )
