"""An order as its receipt and its result. Pure."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from math import ceil

from herder.domain.kept import KeptText
from herder.domain.order import Order, State
from herder.types import Rate, Receipt, Result, Usage

SET_ASIDE: dict[str, object] = {
    "code": "order_set_aside",
    "message": "It could not be settled, and the herd's operators have to look at it. Until they "
    "have decided, its fee stays held and nothing is charged.",
    "permanent": False,
}
"""The failure in the receipt of an order that is set aside; the reason itself is for operators."""


def decimal_text(value: Fraction, places: int = 6) -> str:
    """Return a multiplier as a short decimal: 1.25, not 5/4.

    Rounded up in its last place: who offers what was told never offers less than what it stands
    for, and as much wherever what the order needs is at most 10**places.
    """
    scaled = Decimal(ceil(value * 10**places)).scaleb(-places).normalize()
    return f"{scaled:f}"


def receipt_of(order: Order) -> Receipt:
    """Return an order's receipt, as it stands now."""
    started, ended = order.started_us, order.ended_us
    return Receipt(
        order=order.id,
        account=order.account,
        model=order.model,
        state=order.state.value,
        needed=order.needed,
        fee=order.fee,
        multiplier=decimal_text(order.multiplier),
        bid_factor=decimal_text(Fraction(order.bid_factor)),
        automatic=order.automatic,
        rates=Rate(order.rates.prompt_fee, order.rates.fee_per_token),
        words=order.words,
        tokens=order.tokens,
        generated=order.generated,
        charged=order.charged,
        returned=order.returned,
        held=order.held,
        refunded=order.refunded,
        attempts=order.tries,
        worker=order.worker,
        weights=order.weights,
        reference=order.reference,
        submitted_us=order.submitted_us,
        waited_ms=None if started is None else max(0, started - order.submitted_us) // 1000,
        took_ms=None if started is None or ended is None else max(0, ended - started) // 1000,
        failure=SET_ASIDE if order.state is State.SET_ASIDE else order.failure,
    )


def result_of(order: Order, kept: KeptText) -> Result:
    """Return an order's result, with what is kept of its text."""
    return Result(
        order=order.id,
        text=kept.answer or "",
        finish_reason=order.finish_reason,
        usage=Usage(order.prompt_tokens, order.generated, kept.reasoning_tokens),
        receipt=receipt_of(order),
        reference=order.reference,
        text_deleted=kept.answer is None,
        metadata=dict(kept.notes.metadata) or None,
        request_id=kept.notes.request_id,
        reasoning=kept.reasoning,
    )
