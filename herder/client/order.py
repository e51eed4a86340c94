"""An order as the program that submitted it sees it."""

from __future__ import annotations

from collections.abc import Iterator

from herder.interface import BuyerHerd
from herder.types import Receipt, Result


class Order:
    """An order of yours: ask it how it stands, read its text, wait for its end.

    Attributes:
        id: what names it, here and for `herd order show`.
        account: who pays.
        model: what runs it.
        fee: winston held for it.
        needed: winston that it had to pay at least.
        reference: your own, given back with the answer.
    """

    def __init__(self, herd: BuyerHerd, receipt: Receipt) -> None:
        self._herd = herd
        self.id = receipt.order
        self.account = receipt.account
        self.model = receipt.model
        self.fee = receipt.fee
        self.needed = receipt.needed
        self.reference = receipt.reference

    def __repr__(self) -> str:
        return f"<Order {self.id} fee={self.fee} needed={self.needed}>"

    def status(self) -> str:
        """Say where it stands.

        Returns:
            `queued`, `dispatched`, `running`, `completed`, `failed`, `cancelled`, `expired`, or
            `set_aside`, which the herd's operator ends.
        """
        return self.receipt().state

    def receipt(self) -> Receipt:
        """Return its receipt, as it stands now."""
        return self._herd.receipt(self.id)

    def result(self, timeout: float | None = None) -> Result:
        """Wait for its end, through outages of the herd.

        Args:
            timeout: seconds, or None to wait for ever.

        Returns:
            Text, finish reason, usage and receipt.

        Raises:
            ResultTimeout: it did not end in time; it goes on, and may be asked again.
            OrderFailed, OrderCancelled, OrderExpired: it ended otherwise; `error.result` holds
                the partial text and the receipt.
            OrderSetAside: it could not be settled, and the herd's operators decide; its fee is
                held until then. Call again later.
        """
        return self._herd.result(self.id, timeout)

    def stream(self) -> Iterator[str]:
        """Yield its text as it is generated, from the beginning, however late you join.

        Raises:
            StreamRestarted: the worker was lost after text was shown; call again for the new text.
            OrderFailed, OrderCancelled, OrderExpired: at its end, if it ended so.
            OrderSetAside: as for `result`.
        """
        return self._herd.stream(self.id)

    def cancel(self) -> Receipt:
        """End it. While it waits, all of the fee comes back at once and the receipt says so.

        Once it runs, its worker stops it between two tokens, and what streams had handed out of its
        text by then is charged: `result()` waits for that and raises `OrderCancelled` with that
        text. An order that has ended stays as it is.

        Raises:
            HerdUnavailable: the herd does not answer. Where `order` is in its data, the
                cancellation is remembered, and made when the herd is back if this program still
                runs then.
        """
        return self._herd.cancel(self.id)

    def rebid(self, fee: int) -> Receipt:
        """Raise its fee while it is queued; it moves to its new place at once.

        Args:
            fee: the new fee in winston, for the whole order.

        Raises:
            RebidTooLow: it offers as much already.
            OrderNotWaiting: a worker has it, or it has ended.
            InsufficientBalance: the account has less than the difference.
        """
        receipt = self._herd.rebid(self.id, fee)
        self.fee = receipt.fee
        return receipt
