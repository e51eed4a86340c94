"""The call is wrong; nothing was held."""

from __future__ import annotations

from herder.errors.base import HerdError, shown


class InvalidRequest(HerdError):
    """The call is wrong; nothing was held or charged."""

    code = "invalid_request"


class InvalidTokens(InvalidRequest):
    """The count of tokens is no whole number of at least 1."""

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
    """The longest run is no whole number of seconds, or out of range."""

    code = "invalid_run_limit"

    def __init__(self, run_limit_s: object, most: int) -> None:
        text = shown(run_limit_s)
        super().__init__(
            f"run_limit_s must be a whole number of seconds from 1 to {most}, not {text}.",
            run_limit_s=text,
            most=most,
        )


class InvalidStartBy(InvalidRequest):
    """The time by which an order is to begin is none, or has passed."""

    code = "invalid_start_by"


class InvalidReceipt(InvalidRequest):
    """What should be a signed receipt is none, or not of this herd."""

    code = "invalid_receipt"


class InvalidQuote(InvalidRequest):
    """What should be a signed quote is none, or not of this herd."""

    code = "invalid_quote"


class QuoteMismatch(InvalidRequest):
    """The quote is for another order than the one that names it."""

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
    """The bids to be compared are no list of fees and multipliers, or too many."""

    code = "invalid_bids"


class InvalidWebhook(InvalidRequest):
    """A webhook's address, event or secret is none, or may not be had here."""

    code = "invalid_webhook"


class InvalidMessage(InvalidRequest):
    """What should be a message of tags is none; `param` is the tag that is wrong."""

    code = "invalid_message"

    def __init__(self, message: str, tag: str | None = None) -> None:
        super().__init__(message, tag=tag)
        self.param = tag


class InvalidFee(InvalidRequest):
    """The fee, or the highest fee, is no whole number of winston."""

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
    """The multiplier is no finite number above zero."""

    code = "invalid_multiplier"

    def __init__(self, multiplier: str) -> None:
        super().__init__(
            f"multiplier must be a finite number above 0, such as 1.5, not {multiplier}.",
            multiplier=multiplier,
        )


class FeeTooLow(InvalidRequest):
    """The fee is below what the order needs."""

    code = "fee_too_low"

    def __init__(self, fee: int, needed: int) -> None:
        super().__init__(
            f"The fee of {fee} winston is too low: this order needs at least {needed}.",
            fee=fee,
            needed=needed,
        )


class FeeAboveMax(InvalidRequest):
    """The automatic fee is above what the caller allows."""

    code = "fee_above_max"

    def __init__(self, fee: int, max_fee: int) -> None:
        super().__init__(
            f"The fee would be {fee} winston, above your max_fee of {max_fee}; nothing was held.",
            fee=fee,
            max_fee=max_fee,
        )


class InvalidPrompt(InvalidRequest):
    """No prompt, two prompts, or one that is empty or too long."""

    code = "invalid_prompt"


class InvalidStop(InvalidRequest):
    """Too many stop strings, or one that is empty or too long."""

    code = "invalid_stop"


class InvalidSampling(InvalidRequest):
    """A sampling parameter is out of its range."""

    code = "invalid_sampling"


class InvalidReference(InvalidRequest):
    """The client's own reference is too long or no text."""

    code = "invalid_reference"


class InvalidKey(InvalidRequest):
    """The idempotency key is empty, too long or no text."""

    code = "invalid_idempotency_key"


class InvalidName(InvalidRequest):
    """A name of an account or a model that may not be one."""

    code = "invalid_name"


class InvalidAmount(InvalidRequest):
    """An amount of money that is no whole number of winston."""

    code = "invalid_amount"

    def __init__(self, amount: object, most: int) -> None:
        text = shown(amount)
        super().__init__(
            f"An amount must be a whole number of winston from 1 to {most}, not {text}.",
            amount=text,
            most=most,
        )
