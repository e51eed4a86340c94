"""Errors of an order that was waited for and did not complete."""

from __future__ import annotations

from typing import TYPE_CHECKING

from herder.errors.base import HerdError

if TYPE_CHECKING:
    from herder.types import Result


class OrderEnded(HerdError):
    """The order ended without being completed. `result` holds the partial text and the receipt."""

    code = "order_ended"

    def __init__(self, message: str, result: Result) -> None:
        super().__init__(message, order=result.order, state=result.receipt.state)
        self.result = result


class OrderFailed(OrderEnded):
    """Raised when an order could not be run; nothing was charged."""

    code = "order_failed"


class OrderCancelled(OrderEnded):
    """Raised when an order was cancelled."""

    code = "order_cancelled"


class OrderExpired(OrderEnded):
    """Raised when an order did not start, or did not end, in time."""

    code = "order_expired"


class OrderSetAside(HerdError):
    """It could not be settled, and the herd's operators decide; until then its fee is held.

    `result` holds the receipt as it stands. The order may still be completed, or given back.
    """

    code = "order_set_aside"

    def __init__(self, message: str, result: Result) -> None:
        super().__init__(
            message,
            order=result.order,
            state=result.receipt.state,
            held=result.receipt.held,
        )
        self.result = result


class StreamRestarted(HerdError):
    """The worker was lost after text was shown, and another began anew; read again for it."""

    code = "stream_restarted"

    def __init__(
        self, order: str, shown: int, then: str = "call stream() again for the new text"
    ) -> None:
        super().__init__(
            f"Order {order} started again on another worker after {shown} characters were shown; "
            f"{then}.",
            order=order,
            shown=shown,
        )


class ResultTimeout(HerdError):
    """Raised when an order did not end within the caller's time-out; it continues.

    `state` of its data is `unknown` where the database did not answer all that time.
    """

    code = "result_timeout"

    def __init__(self, order: str, state: str, timeout_s: str) -> None:
        stands = (
            f"The database did not say within {timeout_s} s how order {order} stands"
            if state == "unknown"
            else f"Order {order} is still {state} after {timeout_s} s"
        )
        super().__init__(
            f"{stands}. It continues; call result() again to wait for it.",
            order=order,
            state=state,
        )
