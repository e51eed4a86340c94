"""The rules that bind an attempt to a worker, and its time; they decide about money. Pure.

An attempt is sent to one worker, and its message may come twice. Of signed beats and outcomes that
quote the attempt's nonce only that worker's count; any other that shows up with it is told to stop.
One that an earlier version sent to anybody is bound to the first that shows up.
"""

from __future__ import annotations

import hmac
from typing import Literal

from herder.domain.order import Order
from workers.wire import MAX_RUN_LIMIT_S, AttemptRef

Verdict = Literal["current", "settled", "void"]
"""The state of an attempt that a worker names: it is the order's current one, which that worker may
end (`current`); that worker's outcome of it was taken in already (`settled`); or neither."""


def judge_attempt(order: Order | None, held: AttemptRef, instance: str) -> Verdict:
    """Judge an attempt that a worker names, in a beat, a claim or an outcome.

    Args:
        order: the order as it stands; None where there is none.
        held: the attempt, with the nonce that proves who was given it.
        instance: the worker instance whose signature was checked.
    """
    if (
        order is None
        or order.nonce is None
        or held.attempt != order.attempt
        or not hmac.compare_digest(held.nonce, order.nonce)
    ):
        return "void"
    if order.attempt_open and not order.state.ended:
        return "current" if order.instance in (None, instance) else "void"
    # Who delivered nothing is bound no longer once its order has ended.
    return "settled" if order.instance == instance else "void"


def is_too_late(order: Order, at_us: int) -> bool:
    """Return whether an order that never began was to have begun by a time.

    One that was called off while it was out began: somebody had read some of its text.

    Args:
        order: an open order.
        at_us: the time, in microseconds since the epoch.
    """
    if order.begun or order.call_off is not None:
        return False
    return order.start_by_us is not None and order.start_by_us < at_us


def may_run_s(order: Order) -> int:
    """Return the seconds for which an attempt that is claimed may run: none if it is to stop."""
    return min(order.run_limit_s or 0, MAX_RUN_LIMIT_S) if order.call_off is None else 0
