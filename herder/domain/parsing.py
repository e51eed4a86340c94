"""A client's call, parsed at the border: every bound on what may be asked, in one place.

Whatever passes is an `OrderRequest` that order intake trusts; whatever does not is refused by an
error of `herder.errors` before any money moves.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from fractions import Fraction

from pydantic import ValidationError

from herder.domain.order import OrderRequest
from herder.domain.pricing import MAX_WINSTON, parse_fee, parse_multiplier, parse_offer
from herder.domain.prompts import parse_prompt
from herder.domain.quote_terms import Terms
from herder.errors import (
    InvalidAmount,
    InvalidBids,
    InvalidIdempotencyKey,
    InvalidName,
    InvalidReference,
    InvalidRequest,
    InvalidRunLimit,
    InvalidSampling,
    InvalidStartBy,
    InvalidStop,
    InvalidTokens,
    shown,
)
from workers.wire import (
    MAX_RUN_LIMIT_S,
    MAX_STOP_CHARS,
    MAX_STOPS,
    MAX_TOKENS,
    Sampling,
)
from workers.wire.faults import fault_of

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MAX_REFERENCE_CHARS = 256
MAX_KEY_CHARS = 255
MAX_BIDS = 20
MAX_NOTE_CHARS = 1000

_ACCOUNT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,126}")


def parse_account(name: object) -> str:
    """Return an account's name.

    Raises:
        InvalidName: the name is not valid.
    """
    if not isinstance(name, str) or not _ACCOUNT.fullmatch(name):
        raise InvalidName(
            "An account's name must be 1 to 63 letters, digits, dots, dashes or underscores, not "
            f"{shown(name)!r}.",
            name=shown(name),
        )
    return name


def parse_model(name: object) -> str:
    """Return a model's name.

    Raises:
        InvalidName: the name is not valid.
    """
    if not isinstance(name, str) or not _MODEL.fullmatch(name):
        raise InvalidName(
            "A model's name must be 1 to 127 letters, digits or any of . _ : / -, not "
            f"{shown(name)!r}.",
            name=shown(name),
        )
    return name


def parse_amount(amount: object) -> int:
    """Return an amount of money in winston.

    Raises:
        InvalidAmount: no whole number, or out of range.
    """
    if type(amount) is not int or not 1 <= amount <= MAX_WINSTON:
        raise InvalidAmount(amount, MAX_WINSTON)
    return amount


def parse_submission(
    prompt: object = None,
    tokens: object = None,
    *,
    account: object,
    max_prompt_bytes: int,
    messages: object = None,
    fee: object = None,
    multiplier: object = None,
    max_fee: object = None,
    model: object = None,
    stop: object = None,
    reference: object = None,
    idempotency_key: object = None,
    raw: object = False,
    special: object = False,
    continue_final_message: object = False,
    reasoning_effort: object = None,
    chat_template_kwargs: object = None,
    start_by: object = None,
    run_limit_s: object = None,
    api_key: str | None = None,
    quote: Terms | None = None,
    sampling: Mapping[str, object] | None = None,
) -> OrderRequest:
    """Check everything that a client may say of an order.

    Args:
        prompt: the text, or None where `messages` are given.
        tokens: the most tokens to generate, at least 1.
        account: who pays.
        max_prompt_bytes: the longest prompt taken here, in UTF-8 bytes.
        messages: the turns of a conversation, each `{"role": …, "content": …}`.
        fee: winston offered; `base` for what is needed, whatever others paid; None for the
            automatic fee.
        multiplier: a factor on the fee.
        max_fee: winston above which nothing is held.
        model: its name; None for the default.
        stop: a string, or several, that end the text and are not part of it.
        reference: the client's own, given back with the answer.
        idempotency_key: the same key with the same call gives the same order.
        raw: whether the prompt skips the model's chat template.
        special: whether control tokens that are written in a raw prompt are honoured.
        continue_final_message: whether the answer continues the assistant's last message.
        reasoning_effort: how much a model is to think before it answers; `none` for not at all.
        chat_template_kwargs: variables that are set for the model's chat template.
        start_by: when it has to have begun: an aware `datetime`, or the same as text (RFC 3339).
        run_limit_s: the longest run in seconds.
        api_key: the id of the API key that it is bought with, of a caller who was recognised.
        quote: the quote that it names, as `herder.domain.signed_tokens.read_quote` read it.
        sampling: fields of `workers.wire.Sampling`; None values are left out.

    Raises:
        InvalidRequest: one of its classes, naming what was wrong.
    """
    if type(tokens) is not int or not 1 <= tokens <= MAX_TOKENS:
        raise InvalidTokens(tokens, MAX_TOKENS)
    if run_limit_s is not None and (
        type(run_limit_s) is not int or not 1 <= run_limit_s <= MAX_RUN_LIMIT_S
    ):
        raise InvalidRunLimit(run_limit_s, MAX_RUN_LIMIT_S)
    return OrderRequest(
        account=parse_account(account),
        prompt=parse_prompt(
            prompt,
            messages,
            max_prompt_bytes,
            raw=raw,
            special=special,
            continue_final_message=continue_final_message,
            reasoning_effort=reasoning_effort,
            chat_template_kwargs=chat_template_kwargs,
        ),
        tokens=tokens,
        fee=parse_offer(fee),
        bid_factor=_bid_factor(multiplier, fee, quote),
        max_fee=None if max_fee is None else parse_fee(max_fee, "max_fee"),
        model=None if model is None else parse_model(model),
        stop=_parse_stop(stop),
        sampling=_parse_sampling(sampling or {}),
        reference=_parse_reference(reference),
        idempotency_key=parse_key(idempotency_key),
        start_by_us=_parse_start_by(start_by),
        run_limit_s=run_limit_s,
        api_key=api_key,
        quote=quote,
    )


def _bid_factor(multiplier: object, fee: object, quote: Terms | None) -> Fraction:
    """Return the call's factor on the fee. A quoted fee comes with the one that it was asked with.

    So the call that was quoted pays what was quoted, whether or not it repeats its multiplier.
    """
    if multiplier is not None:
        return parse_multiplier(multiplier)
    return Fraction(1) if quote is None or fee is not None else quote.bid_factor


def parse_bids(bids: object) -> list[int | Fraction] | None:
    """Return the bids that a quote is to compare.

    Fees in winston as `int`, multipliers as `Fraction`.

    Args:
        bids: a list of `{"fee": …}` or `{"multiplier": …}`; None for the usual ones.

    Raises:
        InvalidBids, InvalidFee, InvalidMultiplier: a bid is not valid.
    """
    if bids is None:
        return None
    if (
        not isinstance(bids, Sequence)
        or isinstance(bids, (str, bytes))
        or len(bids) > MAX_BIDS
        or not all(
            isinstance(one, Mapping) and list(one) in (["fee"], ["multiplier"]) for one in bids
        )
    ):
        raise InvalidBids(
            f'bids must be a list of at most {MAX_BIDS} items, each {{"fee": 100}} or '
            f'{{"multiplier": 1.5}}.',
            most=MAX_BIDS,
        )
    return [
        parse_fee(one["fee"]) if "fee" in one else parse_multiplier(one["multiplier"])
        for one in bids
    ]


def _parse_start_by(start_by: object) -> int | None:
    """Return an instant in microseconds since the epoch; one that has passed is refused later."""
    if start_by is None:
        return None
    at = start_by
    if isinstance(at, str):
        try:
            at = datetime.fromisoformat(at)
        except ValueError:
            at = None
    if not isinstance(at, datetime) or at.tzinfo is None:
        raise InvalidStartBy(
            f"start_by must be a time with its zone, such as 2030-01-31T18:00:00+00:00, "
            f"not {shown(start_by)}."
        )
    return (at - EPOCH) // timedelta(microseconds=1)


def _parse_stop(stop: object) -> tuple[str, ...]:
    if stop is None:
        return ()
    stops = (stop,) if isinstance(stop, str) else stop
    if (
        not isinstance(stops, Sequence)
        or isinstance(stops, (bytes, Mapping))
        or len(stops) > MAX_STOPS
        or not all(_is_text(one) and 1 <= len(one) <= MAX_STOP_CHARS for one in stops)
    ):
        raise InvalidStop(
            f"stop must be at most {MAX_STOPS} strings of 1 to {MAX_STOP_CHARS} characters each.",
            most=MAX_STOPS,
            most_chars=MAX_STOP_CHARS,
        )
    return tuple(stops)


def _parse_sampling(sampling: Mapping[str, object]) -> Sampling:
    given = {name: value for name, value in sampling.items() if value is not None}
    try:
        return Sampling.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = ".".join(str(part) for part in first["loc"]) or "sampling"
        if first["type"] == "extra_forbidden":
            what = "is not a sampling parameter"
        else:
            what = f"{fault_of(first['type'], first.get('ctx', {}))}, not {shown(first['input'])}"
        raise InvalidSampling(f"{name} {what}.", name=name) from None


def _parse_reference(reference: object) -> str | None:
    if reference is None:
        return None
    if (
        not isinstance(reference, str)
        or len(reference) > MAX_REFERENCE_CHARS
        or not _is_text(reference)
    ):
        raise InvalidReference(
            f"reference must be text of at most {MAX_REFERENCE_CHARS} characters."
        )
    return reference


def _is_text(value: object) -> bool:
    """Return whether it can be stored and sent.

    A lone surrogate is not a character in any encoding.
    """
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def parse_key(key: object) -> str | None:
    """Return an idempotency key as a caller gives it, or None.

    Raises:
        InvalidIdempotencyKey: the key is not valid.
    """
    if key is None:
        return None
    if not isinstance(key, str) or not 1 <= len(key) <= MAX_KEY_CHARS or not key.isprintable():
        raise InvalidIdempotencyKey(
            f"idempotency_key must be 1 to {MAX_KEY_CHARS} printable characters.",
        )
    return key


def parse_note(name: str, text: str | None) -> str:
    """Return an operator's own words, which stand in a statement for ever.

    Args:
        name: what they are called in the sentence that refuses them.
        text: the words, or None for none.

    Raises:
        InvalidRequest: they are empty, too long, or no text.
    """
    if text is None:
        return ""
    # A lone surrogate is not a character: no database takes it.
    surrogate = any("\ud800" <= char <= "\udfff" for char in text)
    if not text.strip() or len(text) > MAX_NOTE_CHARS or surrogate:
        raise InvalidRequest(f"{name} must be 1 to {MAX_NOTE_CHARS} characters.")
    return text
