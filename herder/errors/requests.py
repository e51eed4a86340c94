"""The call is wrong; nothing was held."""

from __future__ import annotations

from herder.errors.base import HerdError, shown


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

    def __init__(self, name: str, fee: object, most: int, *, is_offer: bool = False) -> None:
        text = shown(fee)
        or_base = ', or "base",' if is_offer else ","
        super().__init__(
            f"{name} must be a whole number of winston from 1 to {most}{or_base} not {text}.",
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


class InvalidTemplateArguments(InvalidPrompt):
    """Raised for variables that no call may set for a chat template.

    Args:
        message: what is wrong, and what would be right.
        param: the field of the call that they came in.
    """

    code = "invalid_chat_template_kwargs"

    def __init__(self, message: str, param: str) -> None:
        super().__init__(message)
        self.param = param


class PromptTooLong(InvalidPrompt):
    """Raised when a prompt and the tokens asked for exceed the context, which was counted.

    Args:
        prompt_tokens: of the prompt, as the model is given it.
        tokens: that were asked for.
        context: tokens that one order may have.
    """

    code = "prompt_too_long"

    def __init__(self, prompt_tokens: int, tokens: int, context: int) -> None:
        super().__init__(
            f"The prompt is {prompt_tokens} tokens long and {tokens} more were asked for, but the "
            f"context holds {context}. Nothing was ordered.",
            prompt_tokens=prompt_tokens,
            tokens=tokens,
            context=context,
        )


class InvalidStop(InvalidRequest):
    """Raised for too many stop strings, or one that is empty or too long."""

    code = "invalid_stop"


class InvalidSampling(InvalidRequest):
    """Raised when a sampling parameter is out of its range."""

    code = "invalid_sampling"


class InvalidSchema(InvalidSampling):
    """Raised for a form that answers cannot be held to: a JSON schema, a regular expression.

    Or for two that contradict each other.

    Attributes:
        param: the field of the call that it came in.
    """

    code = "bad_grammar"  # as of an order that fails by it
    param: str = "json_schema"


class InvalidReference(InvalidRequest):
    """Raised when the client's own reference is too long or not text."""

    code = "invalid_reference"


class InvalidIdempotencyKey(InvalidRequest):
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
