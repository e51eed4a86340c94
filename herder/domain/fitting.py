"""The tokens of an order whose caller leaves their number to the herd, or asks for too many. Pure.

Programs written for OpenAI's API name no number of tokens, or one far above any context. They get
what fits: the context, the payer's money and limits, and a fee that they name bound it.

Money that one call holds is not there for the calls beside it. So a call that names no number may
have a part of what its payer has left (`share`), and never all of it. A number that is named may
have all: its caller asked for that much.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from herder.domain.pricing import MAX_WINSTON, Rates
from workers.wire import MAX_TEXT_CHARS, MAX_TOKENS

ORDINARY_TOKENS = 256
"""Tokens that an ordinary answer takes. A call that names no number gets so many where nobody knows
the model's context, and at most so many where tokens are paid that are not generated."""
MAX_FITTED_TOKENS = MAX_TEXT_CHARS // 8
"""The most tokens of a call that names no number: the text of more might be too long to be sent."""

_MINUTE_US = 60_000_000


@dataclass(frozen=True, slots=True)
class TokenWish:
    """The number of tokens that a caller wishes for, which is cut to what fits.

    Attributes:
        named: the caller's number; None for as many as fit.
        default: then, the most that the herd gives; None for no such bound.
    """

    named: int | None = None
    default: int | None = None

    @property
    def most(self) -> int:
        """The most tokens that the order may get, whatever fits."""
        if self.named is not None:
            return min(self.named, MAX_TOKENS)
        return min(self.default or MAX_FITTED_TOKENS, MAX_FITTED_TOKENS)


@dataclass(frozen=True, slots=True)
class Means:
    """The means of an order's payer, as they are now.

    Attributes:
        available: winston, of the account and of what its API key may still spend.
        max_fee: winston that the API key may offer for one order.
        tokens_per_minute: words and tokens that the account may order in a minute; 0 for any.
        tokens_until_us: when what it ordered lately will have been paid off at that rate.
    """

    available: int = MAX_WINSTON
    max_fee: int = MAX_WINSTON
    tokens_per_minute: int = 0
    tokens_until_us: int = 0


@dataclass(frozen=True, slots=True)
class FeeTerms:
    """The terms by which an order's fee follows from its tokens.

    Attributes:
        rates: the model's.
        words: of the prompt.
        factor: the fee for each winston needed: the automatic or the least one, with the call's
            multiplier, or where the call names a number of winston, the going rate.
        fee: the winston that the call names, times its multiplier; None where the fee follows from
            the need.
        max_fee: winston above which the call is refused.
        charge_unused: whether tokens are paid that are not generated.
    """

    rates: Rates
    words: int
    factor: Fraction
    fee: int | None = None
    max_fee: int | None = None
    charge_unused: bool = False


def share(left: int) -> int:
    """Return the tokens of an order that names no number, of those that its payer has left.

    A quarter, so that those beside it find something too; of few, up to `ORDINARY_TOKENS`, but
    never more than half.

    Args:
        left: tokens that the payer can pay for.

    >>> [share(left) for left in (10_000, 1000, 400, 100, 1)]
    [2500, 256, 200, 50, 1]
    """
    return max(1, min((left + 1) // 2, max(left // 4, ORDINARY_TOKENS)))


def affordable_tokens(budget: int, rates: Rates, words: int, factor: int | Fraction) -> int:
    """Return the most tokens whose fee is within a budget; below 1 where no token's is.

    Args:
        budget: the highest fee, in winston.
        rates: the model's.
        words: of the prompt.
        factor: the fee for each winston needed.

    >>> affordable_tokens(27, Rates(1, 1), 6, 1), affordable_tokens(27, Rates(1, 1), 6, 2)
    (20, 6)
    """
    # The fee is floored: whatever needs less than (budget + 1) / factor is within the budget.
    need = -(-(budget + 1) // Fraction(factor)) - 1
    if rates.fee_per_token == 0:
        return MAX_TOKENS if need >= rates.prompt_fee else 0
    return int(need - rates.prompt_fee) // rates.fee_per_token - words


def fitted_tokens(wish: TokenWish, most: int, terms: FeeTerms, means: Means, now_us: int) -> int:
    """Return the tokens that an order gets: at least 1, and then it is judged as any order.

    Args:
        wish: what its caller wishes for.
        most: tokens that fit into the context, at most those that the caller wishes for.
        terms: what decides its fee.
        means: the payer's.
        now_us: the time in microseconds since the epoch.
    """
    is_named = wish.named is not None
    bounds = [most]
    if not is_named and wish.default is None and terms.charge_unused:
        bounds.append(ORDINARY_TOKENS)
    if terms.fee is None:
        bounds += _by_money(terms, means, is_named=is_named)
    elif not is_named:
        bounds.append(_bought(terms.fee, terms))
    rate = means.tokens_per_minute
    if rate > 0:
        bounds.append(rate - terms.words)
    if wish.named is not None and wish.named <= min(bounds):
        return max(1, wish.named)
    if is_named and terms.charge_unused:
        # He gets another number than the one that he named, and would pay for all of it.
        bounds.append(wish.default or ORDINARY_TOKENS)
    if rate > 0:
        bounds.append(_by_rate(terms.words, means, now_us, is_named=is_named))
    return max(1, min(bounds))


def _by_money(terms: FeeTerms, means: Means, *, is_named: bool) -> list[int]:
    """Return bounds by the payer's money: the automatic fee rises with the tokens.

    Where unused tokens are paid a named number has none: cut to all that there is, it would cost
    all that there is, however short the answer.
    """
    if is_named and terms.charge_unused:
        return []

    def within(budget: int) -> int:
        budget = max(0, min(budget, MAX_WINSTON))
        return affordable_tokens(budget, terms.rates, terms.words, terms.factor)

    paid = within(means.available)
    if is_named:
        return [paid, within(means.max_fee)]
    bounds = [share(paid), within(means.max_fee)]
    if terms.max_fee is not None:
        bounds.append(within(terms.max_fee))
    return bounds


def _bought(fee: int, terms: FeeTerms) -> int:
    """Return the tokens that a named fee buys at the going rate, so that it ranks as others do.

    Of a fee below that rate an ordinary answer, or what it buys at all: its caller bid so.
    """
    going = affordable_tokens(fee, terms.rates, terms.words, max(Fraction(1), terms.factor))
    if going >= ORDINARY_TOKENS:
        return going
    return min(affordable_tokens(fee, terms.rates, terms.words, 1), ORDINARY_TOKENS)


def _by_rate(words: int, means: Means, now_us: int, *, is_named: bool) -> int:
    """Return a bound by what is left of the tokens a minute, of a number that is the herd's to say.

    Below an ordinary answer it cuts nothing: the order is refused then, and told when to come.
    """
    rate = means.tokens_per_minute
    free_us = _MINUTE_US - max(0, means.tokens_until_us - now_us)
    left = free_us * rate // _MINUTE_US - words
    return max(left if is_named else share(left), min(ORDINARY_TOKENS, rate - words))
