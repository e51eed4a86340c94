"""One tree of errors: each has a sentence that says what was wrong and what would be right.

HerdError
├── InvalidRequest            the call is wrong; nothing was held
│   ├── InvalidTokens, InvalidFee, InvalidMultiplier, InvalidPrompt, InvalidStop, InvalidSampling
│   ├── InvalidReference, InvalidKey, InvalidName, InvalidAmount, InvalidRunLimit
│   ├── InvalidStartBy, InvalidReceipt, InvalidBids, InvalidWebhook, InvalidMessage
│   ├── InvalidQuote           no quote of this herd
│   ├── QuoteMismatch          the quote is for another order
│   ├── TooManyTokens         more than the model's context
│   ├── FeeTooLow             below what is needed
│   └── FeeAboveMax           the automatic fee is above the caller's `max_fee`
├── NotFound: AccountNotFound, ModelNotFound, OrderNotFound, WorkerNotFound, ApiKeyNotFound,
│   └── GrantNotFound, WebhookNotFound
├── Unauthorized, Forbidden   no API key, or not for this
├── KeyLimitReached           the API key may not spend that
├── AccountExists, KeyReused, RefundRefused
├── RateLimited               when to try again
├── RebidTooLow, OrderNotWaiting
├── QuoteExpired              its minute has passed
├── InsufficientBalance       which command fills the account
├── OrderEnded: OrderFailed, OrderCancelled, OrderExpired
├── StreamRestarted, ResultTimeout
└── SetupError, HerdUnavailable
"""

from __future__ import annotations

import copyreg
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from herder.types import Result


def shown(value: object) -> str:
    """Return a caller's value in a sentence: short, whatever it is."""
    try:
        return str(value)[:40]
    except ValueError:  # Python prints no number of more than 4300 digits
        return "a number of thousands of digits"


def sentence(text: str) -> str:
    """Return a text with a full stop at its end, so that another sentence may follow it."""
    text = text.strip()
    return text if text.endswith((".", "!", "?", "…")) else f"{text}."


class HerdError(Exception):
    """The root. `code` is stable; `data` holds what the sentence is made of."""

    code: ClassVar[str] = "herd_error"

    def __init__(self, message: str, **data: Any) -> None:
        super().__init__(message)
        self.message = message
        self.data = data

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel to other processes by what it carries, whatever its `__init__` takes."""
        return copyreg.__newobj__, (type(self), self.message), vars(self)  # type: ignore[attr-defined]


class InvalidRequest(HerdError):
    """Raised when a call is invalid; nothing was held or charged."""

    code = "invalid_request"


class InvalidTokens(InvalidRequest):
    """Raised when the number of tokens is not a whole number of at least 1."""

    code = "invalid_tokens"

    def __init__(self, tokens: object, most: int) -> None:
        text = shown(tokens)
        super().__init__(
            f"tokens must be a whole number from 1 to {most}, not {text}.", tokens=text, most=most
        )


class TooManyTokens(InvalidRequest):
    """More tokens than the model's context holds."""

    code = "too_many_tokens"

    def __init__(self, tokens: int, context: int, model: str) -> None:
        super().__init__(
            f"{tokens} tokens do not fit into the context of {model}, which holds {context} "
            "including the prompt; ask for fewer.",
            tokens=tokens,
            context=context,
            model=model,
        )


class InvalidRunLimit(InvalidRequest):
    """Raised when the longest run is not a whole number of seconds, or is out of range."""

    code = "invalid_run_limit"

    def __init__(self, run_limit_s: object, most: int) -> None:
        text = shown(run_limit_s)
        super().__init__(
            f"run_limit_s must be a whole number of seconds from 1 to {most}, not {text}.",
            run_limit_s=text,
            most=most,
        )


class InvalidStartBy(InvalidRequest):
    """Raised when the time by which an order must start is not valid, or has passed."""

    code = "invalid_start_by"


class InvalidReceipt(InvalidRequest):
    """Raised when something is not a signed receipt, or not of this herd."""

    code = "invalid_receipt"


class InvalidQuote(InvalidRequest):
    """Raised when something is not a signed quote, or not of this herd."""

    code = "invalid_quote"


class QuoteMismatch(InvalidRequest):
    """Raised when a quote is for another order than the one that names it."""

    code = "quote_mismatch"

    def __init__(self, field: str, quoted: object, ordered: object) -> None:
        super().__init__(
            f"The {field} of this quote and of the order differ ({shown(quoted)} and "
            f"{shown(ordered)}); ask for a quote of this order.",
            field=field,
            quoted=quoted,
            ordered=ordered,
        )


class InvalidBids(InvalidRequest):
    """Raised when the bids to compare are not a list of fees and multipliers, or too many."""

    code = "invalid_bids"


class InvalidWebhook(InvalidRequest):
    """Raised when a webhook's address, event or secret is not valid, or not allowed here."""

    code = "invalid_webhook"


class InvalidMessage(InvalidRequest):
    """Raised when something is not a message of tags; `param` is the tag that is wrong."""

    code = "invalid_message"

    def __init__(self, message: str, tag: str | None = None) -> None:
        super().__init__(message, tag=tag)
        self.param = tag


class InvalidFee(InvalidRequest):
    """Raised when the fee, or the highest fee, is not a whole number of winston."""

    code = "invalid_fee"

    def __init__(self, name: str, fee: object, most: int) -> None:
        text = shown(fee)
        super().__init__(
            f"{name} must be a whole number of winston from 1 to {most}, not {text}.",
            name=name,
            fee=text,
            most=most,
        )


class InvalidMultiplier(InvalidRequest):
    """Raised when the multiplier is not a finite number above zero."""

    code = "invalid_multiplier"

    def __init__(self, multiplier: str) -> None:
        super().__init__(
            f"multiplier must be a finite number above 0, such as 1.5, not {multiplier}.",
            multiplier=multiplier,
        )


class FeeTooLow(InvalidRequest):
    """Raised when the fee is below what the order needs."""

    code = "fee_too_low"

    def __init__(self, fee: int, needed: int) -> None:
        super().__init__(
            f"The fee of {fee} winston is too low: this order needs at least {needed}.",
            fee=fee,
            needed=needed,
        )


class FeeAboveMax(InvalidRequest):
    """Raised when the automatic fee is above what the caller allows."""

    code = "fee_above_max"

    def __init__(self, fee: int, max_fee: int) -> None:
        super().__init__(
            f"The fee would be {fee} winston, above your max_fee of {max_fee}; nothing was held.",
            fee=fee,
            max_fee=max_fee,
        )


class InvalidPrompt(InvalidRequest):
    """Raised for no prompt, two prompts, or one that is empty or too long."""

    code = "invalid_prompt"


class InvalidStop(InvalidRequest):
    """Raised for too many stop strings, or one that is empty or too long."""

    code = "invalid_stop"


class InvalidSampling(InvalidRequest):
    """Raised when a sampling parameter is out of its range."""

    code = "invalid_sampling"


class InvalidReference(InvalidRequest):
    """Raised when the client's own reference is too long or not text."""

    code = "invalid_reference"


class InvalidKey(InvalidRequest):
    """Raised when the idempotency key is empty, too long or not text."""

    code = "invalid_idempotency_key"


class InvalidName(InvalidRequest):
    """Raised when the name of an account or a model is not valid."""

    code = "invalid_name"


class InvalidAmount(InvalidRequest):
    """Raised when an amount of money is not a whole number of winston."""

    code = "invalid_amount"

    def __init__(self, amount: object, most: int) -> None:
        text = shown(amount)
        super().__init__(
            f"An amount must be a whole number of winston from 1 to {most}, not {text}.",
            amount=text,
            most=most,
        )


class NotFound(HerdError):
    """Raised when something that was named does not exist."""

    code = "not_found"


class AccountNotFound(NotFound):
    """Raised when no account has this name."""

    code = "account_not_found"

    def __init__(self, account: str) -> None:
        super().__init__(
            f"There is no account {account!r}; the herd's operator creates one with `herd account "
            f"create {account}`.",
            account=account,
        )


class ModelNotFound(NotFound):
    """Raised when nobody has configured or announced this model."""

    code = "model_not_found"

    def __init__(self, model: str, known: list[str]) -> None:
        has = ", ".join(known) if known else "none yet"
        super().__init__(f"There is no model {model!r} here. Known models: {has}.", model=model)


class OrderNotFound(NotFound):
    """Raised when no order has this id, or it is another account's."""

    code = "order_not_found"

    def __init__(self, order: str) -> None:
        super().__init__(f"There is no order {order!r}.", order=order)


class ApiKeyNotFound(NotFound):
    """Raised when no API key has this id, or it is another account's."""

    code = "api_key_not_found"

    def __init__(self, key: str) -> None:
        super().__init__(f"There is no API key {shown(key)!r}.", key=shown(key))


class GrantNotFound(NotFound):
    """Raised when no grant has this id."""

    code = "grant_not_found"

    def __init__(self, grant: str) -> None:
        super().__init__(f"There is no grant {shown(grant)!r}.", grant=shown(grant))


class WebhookNotFound(NotFound):
    """Raised when no webhook or message of one has this id, or it is another account's."""

    code = "webhook_not_found"

    def __init__(self, webhook: str) -> None:
        super().__init__(f"There is no webhook {shown(webhook)!r}.", webhook=shown(webhook))


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


class KeyLimitReached(HerdError):
    """Raised when an API key may not offer or spend that much; nothing was held."""

    code = "key_limit_reached"


class WorkerNotFound(NotFound):
    """Raised when no worker of this name is here."""

    code = "worker_not_found"

    def __init__(self, worker: str, here: list[str]) -> None:
        has = ", ".join(here[:20]) if here else "none"
        super().__init__(f"There is no worker {worker!r} here. Workers: {has}.", worker=worker)


class AccountExists(HerdError):
    """Raised when a name is already taken."""

    code = "account_exists"

    def __init__(self, account: str) -> None:
        super().__init__(f"Account {account!r} already exists.", account=account)


class KeyReused(HerdError):
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
            f"The herd's operator adds money with `herd account deposit {account} {amount}`.",
            account=account,
            available=available,
            required=required,
        )


class OrderEnded(HerdError):
    """Raised when an order ended without completing; `result` holds text and receipt."""

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


class StreamRestarted(HerdError):
    """The worker was lost after text was shown, and another began anew; read again for it."""

    code = "stream_restarted"

    def __init__(self, order: str, shown: int) -> None:
        super().__init__(
            f"Order {order} started again on another worker after {shown} characters were shown; "
            "call stream() again for the new text.",
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


class SetupError(HerdError):
    """Raised when the home folder, a key or a setting is missing or wrong."""

    code = "setup_error"


class HerdUnavailable(HerdError):
    """Raised when the database is busy or out of reach; the same call may work later."""

    code = "herd_unavailable"
