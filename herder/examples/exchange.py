"""The room and the exchange, as the sentiment agent sees them; and one that is an account."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from herder.examples.room.rules import Said

Tags = dict[str, str]


class ChatRoom(Protocol):
    """A place for messages; a `herder.examples.room.client.Room` is one."""

    def last(self, count: int) -> Sequence[Said]:
        """Return the latest messages, oldest first."""


class Exchange(Protocol):
    """A place to buy something."""

    def buy(self, trade: str) -> None:
        """Begin a trade, under a name that the messages about it bear as `X-Reference`."""

    def confirms(self, tags: Tags) -> bool:
        """Return whether a message about a trade says that it was done."""


class LedgerExchange:
    """A trade is a transfer to an account; that the ledger has it is the confirmation.

    Args:
        send: sends a message.
        account: the exchange's.
        price: of a trade, in winston.
    """

    def __init__(self, send: Callable[[Tags], str], account: str, price: int) -> None:
        self._send = send
        self._payment = {"Action": "Transfer", "Recipient": account, "Quantity": str(price)}

    def buy(self, trade: str) -> None:
        """Pay the price."""
        self._send({**self._payment, "X-Reference": trade})

    def confirms(self, tags: Tags) -> bool:
        """Return a payment that was made is told by this.

        One that was refused by `Transfer-Error`.
        """
        return tags["Action"] == "Debit-Notice"
