"""Prices: words, fees, ranks and charges, beside what the original computed."""

from __future__ import annotations

import json
import math
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from herder.domain.pricing import (
    MAX_WINSTON,
    RANK_CAP,
    RANK_SCALE,
    Policy,
    Rates,
    automatic_base,
    charge,
    count_words,
    needed,
    offered_fee,
    parse_multiplier,
    priority,
    rank,
    settled_multiplier,
)
from herder.errors import InvalidMultiplier

CASES = Path(__file__).parents[2] / "cases"
FEES = json.loads((CASES / "seed_fees.json").read_text())

fees = st.integers(1, MAX_WINSTON)
needs = st.integers(1, 2**40)
words = st.integers(0, 100_000)
tokens = st.integers(0, 1_000_000)
rates = st.builds(Rates, st.integers(1, 10**6), st.integers(0, 10**6))


@pytest.mark.parametrize("bytes_per_word", [0, Policy().bytes_per_word])
def test_words_and_fees_equal_the_originals_on_every_case(bytes_per_word):
    price_list = Rates(FEES["base_fee"], FEES["fee_per_token"])
    for case in FEES["cases"]:
        counted = count_words(case["prompt"], bytes_per_word)
        assert counted == case["words"], case["prompt"]
        assert needed(price_list, counted, case["tokens"]) == case["fee"], case["prompt"]
    assert len(FEES["cases"]) == 120


def test_words_are_runs_of_ascii_letters_and_digits():
    assert count_words("don't stop", 16) == 3
    assert count_words("a_b c-d e.f", 16) == 6
    assert count_words("", 16) == 0
    assert count_words("naïve", 0) == 2


def test_text_without_ascii_words_is_counted_by_its_bytes():
    assert count_words("水" * 160, 0) == 0
    assert count_words("水" * 160, 16) == 30
    assert count_words("x" * 1600, 16) == 100
    assert count_words("x" * 1600, 0) == 1


@given(st.text())
def test_the_bytes_only_ever_add_words(text):
    runs = count_words(text, 0)
    counted = count_words(text, 16)
    assert counted == max(runs, len(text.encode()) // 16)


def test_rates_that_would_give_orders_away_are_refused():
    with pytest.raises(ValueError, match="prompt_fee"):
        Rates(0, 1)
    with pytest.raises(ValueError, match="fee_per_token"):
        Rates(1, -1)


# Charges


@given(fees, rates, words, tokens, st.data())
def test_a_charge_is_never_above_the_fee_and_rises_with_what_was_generated(
    fee, price_list, count, most, data
):
    need = needed(price_list, count, most)
    fee = max(fee, need)
    more = data.draw(st.integers(0, most))
    less = data.draw(st.integers(0, more))
    charged = charge(fee, need, price_list, count, more)
    assert 1 <= charged <= fee
    assert charge(fee, need, price_list, count, less) <= charged
    assert charge(fee, need, price_list, count, most) == fee
    assert charge(fee, need, price_list, count, less, whole=True) == fee


@given(fees, rates, words, tokens, st.data())
def test_a_charge_is_the_smallest_whole_amount_that_pays_the_share_delivered(
    fee, price_list, count, most, data
):
    need = needed(price_list, count, most)
    fee = max(fee, need)
    generated = data.draw(st.integers(0, most))
    charged = charge(fee, need, price_list, count, generated)
    share = Fraction(fee * needed(price_list, count, generated), need)
    assert charged == math.ceil(share)


def test_a_completed_order_of_no_tokens_pays_for_its_prompt():
    # needed = 1 + (6 + 20) = 27; the prompt alone is 7 of 27 parts of what was offered.
    assert charge(54, 27, Rates(), 6, 0) == 14
    assert charge(27, 27, Rates(), 6, 0) == 7
    assert charge(28, 27, Rates(), 6, 0) == 8


# Rank and priority


@given(fees, needs, fees, needs)
@example(2, 1, 2, 1)
@example(MAX_WINSTON, 1, MAX_WINSTON - 1, 1)
def test_ranks_stand_in_the_order_of_multipliers(fee, need, other_fee, other_need):
    first, second = Fraction(fee, need), Fraction(other_fee, other_need)
    if first >= second:
        assert rank(fee, need) >= rank(other_fee, other_need)
    cap = Fraction(RANK_CAP, RANK_SCALE)
    if first - second >= Fraction(1, RANK_SCALE) and second < cap:
        assert rank(fee, need) > rank(other_fee, other_need)


@given(st.integers(1, 2**20), st.integers(1, 2**20), st.integers(1, 2**20), st.integers(1, 2**20))
def test_different_multipliers_of_orders_below_a_million_rank_differently(a, b, c, d):
    assume(Fraction(a, b) > Fraction(c, d))
    assume(Fraction(a, b) < Fraction(RANK_CAP, RANK_SCALE))
    assert rank(a, b) > rank(c, d)


@given(fees, needs)
@example(1, 1)
@example(2, 1)
@example(MAX_WINSTON, 1)
def test_priority_is_the_floor_of_twice_the_logarithm(fee, need):
    fee = max(fee, need)
    level = priority(fee, need)
    assert 0 <= level <= 9
    # 2 ** level <= m ** 2 in whole numbers, and no larger level below 10 does.
    assert 2**level * need**2 <= fee**2
    if level < 9:
        assert 2 ** (level + 1) * need**2 > fee**2


def test_priority_at_the_exact_steps():
    assert [priority(fee, 100) for fee in (100, 141, 142, 199, 200, 282, 283, 400)] == [
        *(0, 0, 1, 1, 2, 2, 3, 4)
    ]
    assert priority(2262, 100) == 8
    assert priority(2263, 100) == 9
    assert priority(10**9, 1) == 9


# Multipliers


@given(st.floats(1e-18, 1e15, allow_nan=False))
def test_a_float_is_read_by_its_shortest_decimal(value):
    assert parse_multiplier(value) == Fraction(Decimal(repr(value)))


def test_a_float_that_no_binary_number_equals_is_what_was_typed():
    assert parse_multiplier(0.1) == Fraction(1, 10)
    assert parse_multiplier(1.005) == Fraction(201, 200)
    assert parse_multiplier("1.005") == Fraction(201, 200)
    assert parse_multiplier(Fraction(1, 3)) == Fraction(1, 3)
    assert parse_multiplier(Decimal("2.50")) == Fraction(5, 2)
    assert parse_multiplier(3) == 3


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "value",
    [
        *(float("nan"), float("inf"), float("-inf"), "nan", "inf", "-Infinity", "sNaN"),
        *(0, 0.0, -1, -0.5, "-2", "0", Fraction(0), Fraction(-1, 2), "-0"),
        *("1e999999", "1e-999999", Decimal("1e999999"), 1e300, 5e-324, 10**5000, -(10**5000)),
        *("1." + "3" * 5000, Fraction(1, 10**60), Fraction(10**30)),
        *("", "two", "1,5", "0x10", None, True, False, [], b"1", 1j, object()),
    ],
    ids=lambda value: type(value).__name__,
)
def test_no_number_above_zero_is_refused_at_once(value):
    with pytest.raises(InvalidMultiplier) as refused:
        parse_multiplier(value)
    assert len(str(refused.value)) < 200
    assert len(refused.value.data["multiplier"]) <= 40


@given(st.text(max_size=30))
def test_any_text_is_a_multiplier_or_refused(text):
    try:
        value = parse_multiplier(text)
    except InvalidMultiplier:
        return
    assert 0 < value <= MAX_WINSTON


# Automatic fees


def test_the_automatic_fee_follows_the_last_multiplier_and_the_queue():
    def auto(need, last, waits, factor=Fraction(1), **policy):
        base = automatic_base(need, Fraction(last), anything_waits=waits, policy=Policy(**policy))
        return offered_fee(base, factor)

    assert auto(27, 1, False) == 27
    assert auto(1000, 1, True) == 1005
    assert auto(27, 1, True) == 27  # 27.135, floored
    assert auto(19, Fraction(35, 19), False) == 35
    assert auto(100, 2, True, Fraction(3, 2)) == 301  # 301.5
    assert auto(100, 50, True) == 1000, "capped at ten times what is needed"
    assert auto(100, 50, True, Fraction(2)) == 2000, "the cap is on the herder's part alone"
    assert auto(100, 50, True, auto_multiplier_max=Fraction(100)) == 5025


def test_a_named_fee_is_floored_after_its_multiplier():
    assert offered_fee(100, Fraction(2)) == 200
    assert offered_fee(33, Fraction(3, 2)) == 49
    assert offered_fee(1, Fraction(1, 2)) == 0


def test_a_reckless_bid_fades():
    minute = 60 * 1_000_000
    assert settled_multiplier(Fraction(9), 9 * minute, 600) == 9
    assert settled_multiplier(Fraction(9), 10 * minute, 600) == 5
    assert settled_multiplier(Fraction(9), 20 * minute, 600) == 3
    assert settled_multiplier(Fraction(9), 10**18, 600) == 1
    assert settled_multiplier(Fraction(9), 10**18, 0) == 9
    assert settled_multiplier(Fraction(9), -minute, 600) == 9, "a clock that was set back"
