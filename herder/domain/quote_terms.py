"""The terms of a signed quote, and which order may name it. Pure.

The rule: an order that names a quote is the order that was quoted. Its account, model, words and
tokens are the quote's, and it comes before the quote expires. Then the quote's rates hold for it,
whatever an operator set meanwhile, and it pays the quoted fee if it names none. What the prompt
says is not bound: a price depends on how many words there are and not on which, so that a client
may mend its prompt, and a quote is no copy of it. Fewer words or tokens are another order as well:
the quoted fee was worked out for those, and another order is quoted for nothing.

A quote may be named by several orders within its minute: it is a price, and no right to one order.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction

from herder.domain.pricing import Rates, needed
from herder.errors import QuoteExpired, QuoteMismatch

QUOTE_S = 60
"""Seconds for which a quote holds, at least."""


@dataclass(frozen=True, slots=True)
class Terms:
    """The terms that were quoted, to whom and for how long; amounts in winston.

    Attributes:
        words: of the prompt, as they are counted here.
        base: the fee before the caller's multiplier: the automatic one, exact, or the one named.
        bid_factor: the `multiplier` that the quote was asked with.
        automatic: whether the fee was the herd's to say.
        charge_unused: whether a completed order is charged its whole fee.
        expires_s: from when on it does not hold, in seconds since the epoch.
    """

    account: str
    model: str
    words: int
    tokens: int
    rates: Rates
    base: Fraction
    bid_factor: Fraction
    automatic: bool
    charge_unused: bool
    expires_s: int

    @property
    def needed(self) -> int:
        """What the quoted order must pay at least."""
        return needed(self.rates, self.words, self.tokens)

    @property
    def fee(self) -> int:
        """The quoted fee."""
        return int(self.base * self.bid_factor)

    @property
    def expires(self) -> str:
        """When it does not hold any more, for people and programs (RFC 3339)."""
        return time_text(self.expires_s)


def time_text(at_s: int) -> str:
    """Return a moment in seconds since the epoch as RFC 3339 has it."""
    return datetime.fromtimestamp(at_s, UTC).isoformat()


def expiry_s(now_us: int) -> int:
    """Return the expiry of a quote that is given now, in whole seconds since the epoch."""
    return -(-now_us // 1_000_000) + QUOTE_S


def require_quoted(
    terms: Terms, *, account: str, model: str, words: int, tokens: int, now_us: int
) -> None:
    """Refuse an order that is not the one that was quoted, or comes too late.

    Args:
        terms: what was quoted.
        account: who would pay.
        model: the order's.
        words: of its prompt.
        tokens: the most that it may generate.
        now_us: the time, in microseconds since the epoch.

    Raises:
        QuoteMismatch: it is another order, or another's.
        QuoteExpired: the quote's minute has passed.
    """
    for field, quoted, ordered in (
        ("account", terms.account, account),
        ("model", terms.model, model),
        ("words", terms.words, words),
        ("tokens", terms.tokens, tokens),
    ):
        if quoted != ordered:
            raise QuoteMismatch(field, quoted, ordered)
    if now_us >= terms.expires_s * 1_000_000:
        raise QuoteExpired(terms.expires)
