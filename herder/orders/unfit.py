"""Finds orders that wait for more tokens than their model can hold, once that is known.

An order may be taken before any worker with its model is there, or while its context is larger.
What can never run is told at once then, and not when its turn comes: its money would be held for
nothing. The book is looked through once for each context that a model has, piece by piece.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection

from herder.domain.order import Order, State
from herder.store import models as model_sql
from herder.store import unfit as unfit_sql
from workers.wire import Failure


class UnfitOrders:
    """The walk of one herder through books in which orders may not fit. One thread at a time."""

    def __init__(self) -> None:
        self._seen: dict[str, int] = {}
        self._looking: tuple[str, int] | None = None
        self._after = 0

    def find(self, connection: Connection, limit: int) -> list[Order]:
        """Return orders that wait and cannot fit, of one model.

        Args:
            connection: a transaction that reads.
            limit: how many at most.
        """
        contexts = known_contexts(connection)
        changed = [one for one in sorted(contexts.items()) if self._seen.get(one[0]) != one[1]]
        if not changed:
            return []
        if changed[0] != self._looking:
            self._looking, self._after = changed[0], 0
        name, context = changed[0]
        return unfit_sql.longer_than(connection, name, context, self._after, limit)

    def go_on(self, found: Sequence[Order], limit: int) -> bool:
        """Go on behind what was found, and ended; whether there may be more."""
        if self._looking is None:
            return False
        if len(found) >= limit:
            self._after = found[-1].seq
            return True
        name, context = self._looking
        self._seen[name], self._looking = context, None
        return False


def known_contexts(connection: Connection) -> dict[str, int]:
    """Return the contexts of the models of which one is known."""
    models = model_sql.list_models(connection)
    return {one.name: one.context for one in models if one.context is not None}


def unfit(order: Order, contexts: dict[str, int]) -> Failure | None:
    """Return the sentence for the buyer of an order that cannot run; None where it can.

    One that has begun may still be answered.
    """
    context = contexts.get(order.model, order.tokens)
    if order.state is not State.QUEUED or order.begun or order.tokens <= context:
        return None
    said = (
        f"It asks for {order.tokens} tokens, but the context of {order.model} holds {context}, the "
        "prompt included."
    )
    return Failure(code="too_many_tokens", message=said, permanent=True)
