"""The table of charges in README.md of `herder/`, as pure functions.

What was not delivered to anybody is never charged. Delivered is:

- the text of an order that nobody cancelled, once it has ended with one (`completed`, or `expired`
  by its own run limit): it is stored, its account may fetch it, and is told of it;
- of an order that was cancelled while it ran, what a reader of its stream had been given by then,
  of the attempt that was running. The rest is not kept either, so that nobody can read what nobody
  paid for. Who is not shown what the model thinks was given it with the first of the answer.
"""

from __future__ import annotations

from herder.domain.order import Order, State
from herder.domain.pricing import charge
from workers.transport.delivery import Reach
from workers.wire import Outcome

ENDS: dict[str, State] = {
    "stop": State.COMPLETED,
    "length": State.COMPLETED,
    "deadline": State.EXPIRED,
    "cancelled": State.CANCELLED,
}
"""The end of an order, by the finish reason of its worker's outcome."""

CALLED_OFF: dict[str, State] = {"cancelled": State.CANCELLED, "deadline": State.EXPIRED}
"""The end of an order whose attempt was called off, by the reason."""


def was_cancelled(order: Order) -> bool:
    """Return whether somebody cancelled an order while it ran."""
    return order.call_off == "cancelled"


def delivered_part(order: Order, outcome: Outcome, reach: Reach) -> Outcome:
    """Return the part of an outcome that counts: what was delivered of its text, and its tokens.

    Where readers were given all of a text before the order was called off, all of it counts, and
    the order ends as it would have.

    Args:
        order: as it stands.
        outcome: a completed one, of its current attempt.
        reach: how far readers of that attempt were given it.
    """
    if not was_cancelled(order):
        return outcome
    is_whole = outcome.finish_reason != "cancelled"
    if is_whole and 0 < len(outcome.text) <= reach.characters:
        return outcome
    return outcome.model_copy(
        update={
            "finish_reason": "cancelled",
            "text": outcome.text[: reach.characters],
            "generated": (generated := min(outcome.generated, reach.tokens)),
            "reasoning": min(outcome.reasoning, reach.characters),
            "reasoning_tokens": min(outcome.reasoning_tokens, generated),
        }
    )


def charge_of(order: Order, state: State, generated: int) -> int:
    """Return the charge of an order, in winston, by the table of charges.

    Args:
        order: as it was submitted.
        state: how it ends.
        generated: tokens of the accepted attempt that were delivered; 0 where there are none.
    """
    if state is State.FAILED or (state is not State.COMPLETED and generated == 0):
        return 0
    whole = order.charge_unused and state is State.COMPLETED
    return charge(order.fee, order.needed, order.rates, order.words, generated, whole=whole)
