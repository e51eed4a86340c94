"""The arithmetic of needs, fees and charges: integers and fractions only.

The rules are the original system's, kept exactly (`tests/cases/seed_fees.json` and
`seed_order.json` hold what it computed), but for the bounds that README.md in this folder names.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Context, Decimal, InvalidOperation
from fractions import Fraction
from typing import Literal

from herder.errors import InvalidFee, InvalidMultiplier, shown

MAX_WINSTON = 2**53 - 1
"""The largest amount: what every JSON reader and every 64-bit column holds exactly."""

RANK_SCALE = 2**40
RANK_CAP = 2**62
_LOG = Context(prec=40)

_WORD = re.compile(r"[0-9A-Za-z]+")


@dataclass(frozen=True, slots=True)
class Rates:
    """A model's rates, in winston. An order keeps those that it was submitted under."""

    prompt_fee: int = 1
    fee_per_token: int = 1

    def __post_init__(self) -> None:
        if self.prompt_fee < 1 or self.fee_per_token < 0:
            raise ValueError("prompt_fee is at least 1 and fee_per_token at least 0")


@dataclass(frozen=True, slots=True)
class Policy:
    """The values that price or rank for every model; they stand in the database."""

    fee_bump: Fraction = Fraction(1005, 1000)
    auto_multiplier_max: Fraction = Fraction(10)
    auto_half_life_s: int = 600
    bytes_per_word: int = 16
    charge_unused: bool = False
    aging_s: int = 0


def count_words(prompt: str, bytes_per_word: int) -> int:
    """Words of a prompt: runs of ASCII letters and digits, or its bytes where those are more.

    Args:
        prompt: the text; for messages, their contents joined by newlines.
        bytes_per_word: UTF-8 bytes that count as one word at least; 0 leaves the runs alone,
            as in the original, where Chinese text, or one endless word, was free.
    """
    runs = sum(1 for _ in _WORD.finditer(prompt))
    if bytes_per_word < 1:
        return runs
    return max(runs, len(prompt.encode("utf-8", "surrogatepass")) // bytes_per_word)


def needed(rates: Rates, words: int, tokens: int) -> int:
    """Return the minimum price of an order, in winston."""
    return rates.prompt_fee + rates.fee_per_token * (words + tokens)


def parse_multiplier(value: object) -> Fraction:
    """Return a caller's multiplier as an exact fraction; a float is read by its shortest decimal.

    Raises:
        InvalidMultiplier: no number, not finite, negative or zero, or absurdly long.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, str, Decimal, Fraction)):
        raise InvalidMultiplier(shown(value))
    if isinstance(value, Fraction):
        fraction = value
    else:
        try:
            decimal = Decimal(repr(value) if isinstance(value, float) else value)
        except (InvalidOperation, ValueError):
            raise InvalidMultiplier(shown(value)) from None
        # Checked before it becomes a fraction: Decimal("1e999999") would fill the memory.
        if not decimal.is_finite() or not -19 <= decimal.adjusted() <= 19:
            raise InvalidMultiplier(shown(value))
        fraction = Fraction(decimal)
    if fraction <= 0 or fraction > MAX_WINSTON or fraction.denominator > 10**40:
        raise InvalidMultiplier(shown(value))
    return fraction


def parse_fee(fee: object, name: str = "fee", *, is_offer: bool = False) -> int:
    """Return a fee in winston.

    Args:
        fee: as given.
        name: what it is called there.
        is_offer: whether `base` could stand in its place.

    Raises:
        InvalidFee: it is no whole number of winston.
    """
    if type(fee) is not int or not 1 <= fee <= MAX_WINSTON:
        raise InvalidFee(name, fee, MAX_WINSTON, is_offer=is_offer)
    return fee


def parse_offer(fee: object) -> int | Literal["base"] | None:
    """Return the fee that an order offers; `base` for what it needs, None for the automatic one.

    Raises:
        InvalidFee: it is neither, and no whole number of winston.
    """
    if fee is None:
        return None
    return "base" if fee == "base" else parse_fee(fee, is_offer=True)


def settled_multiplier(last: Fraction, idle_us: int, half_life_s: int) -> Fraction:
    """Return the last multiplier as automatic fees see it.

    On its way to 1 while nothing is dispatched.

    Args:
        last: the multiplier of the order dispatched last.
        idle_us: microseconds since that dispatch.
        half_life_s: seconds in which its distance to 1 halves; 0 keeps it, as the original did.
    """
    if half_life_s <= 0 or idle_us <= 0:
        return last
    halvings = idle_us // (half_life_s * 1_000_000)
    # A distance of at most 2**53 has gone below any price difference long before 128 halvings.
    return Fraction(1) if halvings >= 128 else 1 + (last - 1) / 2**halvings


def automatic_base(need: int, last: Fraction, *, anything_waits: bool, policy: Policy) -> Fraction:
    """Return the automatic fee before the client's multiplier; exact, in winston.

    `needed * last_multiplier * bump`, the original's rule; what the herder chose of it, the
    multiplier with its bump, is capped.
    """
    going = last * (policy.fee_bump if anything_waits else 1)
    return need * min(going, policy.auto_multiplier_max)


def offered_fee(base: int | Fraction, bid_factor: Fraction) -> int:
    """Return the fee: the one that the client named, or the automatic one, times its multiplier.

    Floored.

    The original's rule for both.
    """
    return int(base * bid_factor)


def rank(fee: int, need: int, *, aging_s: int = 0, submitted_us: int = 0) -> int:
    """Return an order's place of service as one integer: higher first.

    Without aging it is the multiplier, `fee / need`. With it, an order goes before another that
    was submitted at most `aging_s * ln(its multiplier / the other's)` seconds earlier: the rank is
    `-(submitted_us - aging_us * ln(multiplier))`, and never changes while the order waits.

    Args:
        fee: what it offers, in winston.
        need: what it must pay at least, in winston.
        aging_s: seconds of waiting that weigh as much as a multiplier of e; 0 for no aging.
        submitted_us: when it was submitted, in microseconds since the epoch.
    """
    if aging_s <= 0:
        return min(fee * RANK_SCALE // need, RANK_CAP)
    # Decimal's logarithm is rounded correctly, the same everywhere; a float's is not.
    log = _LOG.subtract(_LOG.ln(Decimal(fee)), _LOG.ln(Decimal(need)))
    ahead_us = int(_LOG.multiply(log, Decimal(aging_s * 1_000_000)))
    return max(-RANK_CAP, min(ahead_us - submitted_us, RANK_CAP))


def charge(
    fee: int, need: int, rates: Rates, words: int, generated: int, *, whole: bool = False
) -> int:
    """Return the charge for what was delivered, in winston; never above the fee.

    Args:
        fee: the hold.
        need: what the order had to pay at least.
        rates: those that it was submitted under.
        words: of its prompt.
        generated: tokens sampled by the accepted attempt.
        whole: the original's rule (`HERD_CHARGE_UNUSED`): the whole fee.
    """
    if whole:
        return fee
    delivered = needed(rates, words, generated)
    return min(fee, -(-fee * delivered // need))


def priority(fee: int, need: int) -> int:
    """Return the broker's hint, 0 to 9: `min(9, floor(2 * log2(multiplier)))`, without a float.

    `floor(2 * log2(m))` is the largest n with `2**n <= m**2`.
    """
    squared = Fraction(fee, need) ** 2
    return max(0, min(9, int(squared).bit_length() - 1))
