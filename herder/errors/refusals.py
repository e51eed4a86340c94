"""The call is right and is not granted: by its key, its account, or the order's state."""

from __future__ import annotations

from typing import Any

from herder.errors.base import HerdError


class Unauthorized(HerdError):
    """Raised when a caller presents no valid API key."""

    code = "unauthorized"


class Forbidden(HerdError):
    """Raised when an API key does not have the required scope."""

    code = "forbidden"

    def __init__(self, key: str, scope: str) -> None:
        super().__init__(
            f"API key {key} does not have the scope {scope!r}; use a key that has it.",
            key=key,
            scope=scope,
        )


class ApiKeyLimitReached(HerdError):
    """Raised when an API key may not offer or spend that much; nothing was held."""

    code = "key_limit_reached"


class AccountExists(HerdError):
    """Raised when a name is already taken."""

    code = "account_exists"

    def __init__(self, account: str) -> None:
        super().__init__(f"Account {account!r} already exists.", account=account)


class IdempotencyKeyReused(HerdError):
    """Raised when an idempotency key was used for another call."""

    code = "idempotency_key_reused"

    def __init__(self, key: str, field: str) -> None:
        super().__init__(
            f"The idempotency key {key!r} was already used for a different call ({field} "
            "differs); use a new key for a new call.",
            key=key,
            field=field,
        )


class RefundRefused(HerdError):
    """Raised when an order was not charged, or not as much as is to be refunded."""

    code = "refund_refused"


class RateLimited(HerdError):
    """The account, its key or its address asked for as much as it may for now; nothing was held."""

    code = "rate_limited"

    def __init__(self, message: str, retry_after_s: int, **data: Any) -> None:
        super().__init__(message, retry_after_s=retry_after_s, **data)
        self.retry_after_s = retry_after_s


class RebidTooLow(HerdError):
    """Raised when a re-bid does not raise the fee."""

    code = "rebid_too_low"

    def __init__(self, order: str, fee: int, current: int) -> None:
        super().__init__(
            f"Order {order} already offers {current} winston; a new bid must be higher than that, "
            f"not {fee}.",
            order=order,
            fee=fee,
            current=current,
        )


class OrderNotWaiting(HerdError):
    """Raised when a new bid is for an order that does not wait."""

    code = "order_not_waiting"

    def __init__(self, order: str, state: str) -> None:
        super().__init__(
            f"Order {order} is {state}; only a queued order can take a new bid.",
            order=order,
            state=state,
        )


class QuoteExpired(HerdError):
    """Raised when a quote's minute has passed; nothing was held."""

    code = "quote_expired"

    def __init__(self, expires: str) -> None:
        super().__init__(f"This quote expired at {expires}; ask for a new one.", expires=expires)


class InsufficientBalance(HerdError):
    """Raised when an account has less than is needed."""

    code = "insufficient_balance"

    def __init__(self, account: str, available: int, required: int) -> None:
        # The smallest round deposit that covers what is missing.
        missing = required - available
        unit = 10 ** max(3, len(str(missing)) - 1)
        amount = -(-missing // unit) * unit
        super().__init__(
            f"Account {account!r} has {available} winston available, and this takes {required}. "
            "The herd's operator adds money.",
            account=account,
            available=available,
            required=required,
        )
        self.hint = f"`herd account deposit {account} {amount}` does that."
