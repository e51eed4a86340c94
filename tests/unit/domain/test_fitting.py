"""What fits, of the tokens that nobody named or that are too many: by money, limits and fee."""

from __future__ import annotations

import random
from fractions import Fraction

import pytest

from herder.domain.fitting import (
    MAX_FITTED_TOKENS,
    ORDINARY_TOKENS,
    FeeTerms,
    Means,
    TokenWish,
    affordable_tokens,
    fitted_tokens,
    share,
)
from herder.domain.pricing import Rates, needed, offered_fee
from workers.wire import MAX_TOKENS

PLAIN = FeeTerms(Rates(1, 1), words=6, factor=Fraction(1))
CONTEXT = 2000


def fits(named=None, most=CONTEXT, terms=PLAIN, default=None, now_us=0, **means):
    wish = TokenWish(named, default)
    most = min(most, wish.most)
    return fitted_tokens(wish, most, terms, Means(**{"available": 10**9, **means}), now_us)


def with_terms(**changed):
    given = {"rates": Rates(1, 1), "words": 6, "factor": Fraction(1), **changed}
    return FeeTerms(**given)


def test_who_has_enough_gets_the_context():
    assert fits() == CONTEXT
    assert fits(named=100_000) == CONTEXT
    assert fits(named=100) == 100
    assert fits(default=300) == 300
    assert fits(named=500, default=300) == 500, "the default is for calls that name none"


def test_the_most_is_bounded_whatever_is_named():
    assert TokenWish(10**15).most == MAX_TOKENS
    assert TokenWish().most == MAX_FITTED_TOKENS
    assert TokenWish(None, MAX_TOKENS).most == MAX_FITTED_TOKENS
    assert TokenWish(None, 12).most == 12


def test_what_is_affordable_is_exactly_what_the_fee_allows():
    chance = random.Random(7)
    for _ in range(2000):
        rates = Rates(chance.randint(1, 5), chance.randint(1, 7))
        words, budget = chance.randint(0, 50), chance.randint(0, 5000)
        factor = Fraction(chance.randint(50, 1000), chance.randint(50, 300))
        tokens = affordable_tokens(budget, rates, words, factor)
        if tokens >= 0:
            assert offered_fee(needed(rates, words, tokens) * factor, Fraction(1)) <= budget
        if tokens >= -1:
            above = needed(rates, words, tokens + 1)
            assert offered_fee(above * factor, Fraction(1)) > budget


def test_tokens_that_cost_nothing_are_bounded_by_the_context_alone():
    free = with_terms(rates=Rates(5, 0))
    assert fits(terms=free, available=20) == CONTEXT
    assert affordable_tokens(4, Rates(5, 0), 6, 1) < 1


def test_an_order_without_a_number_leaves_something_for_those_beside_it():
    left, given = 5000, []
    while left >= needed(PLAIN.rates, PLAIN.words, 1):
        tokens = fits(available=left)
        fee = needed(PLAIN.rates, PLAIN.words, tokens)
        assert 1 <= fee <= left
        given.append(tokens)
        left -= fee
    assert given[0] == (5000 - 7) // 4
    assert len(given) > 12, "as many find money at once"
    assert given == sorted(given, reverse=True)


@pytest.mark.parametrize("left", range(1, 2000, 37))
def test_a_share_is_never_all_but_of_one_token(left):
    assert 1 <= share(left) <= max(1, -(-left // 2))
    assert share(left) >= min(left // 2, ORDINARY_TOKENS)


def test_a_named_number_may_have_all_that_there_is():
    assert fits(named=500, available=507) == 500
    assert fits(named=500, available=107) == 100
    assert fits(named=500, available=3) == 1, "then it is refused, as it was"


def test_the_key_bounds_what_fits_as_the_account_does():
    assert fits(max_fee=107) == 100
    assert fits(named=500, max_fee=107) == 100


def test_a_highest_fee_bounds_what_nobody_named_and_no_number_that_was_named():
    assert fits(terms=with_terms(max_fee=107)) == 100
    assert fits(named=500, terms=with_terms(max_fee=107)) == 500, "refused, as it says"


def test_a_named_fee_buys_what_it_buys_at_the_going_rate_and_at_least_an_ordinary_answer():
    assert fits(terms=with_terms(fee=1007)) == 1000
    assert fits(terms=with_terms(fee=1014, factor=Fraction(2))) == 500
    assert fits(terms=with_terms(fee=300, factor=Fraction(3))) == ORDINARY_TOKENS
    assert fits(terms=with_terms(fee=60, factor=Fraction(10))) == 53, "all that it buys"
    assert fits(terms=with_terms(fee=3)) == 1, "then it is too low, as it was"
    assert fits(terms=with_terms(fee=60), available=0) == 53, "the balance is judged as ever"
    assert fits(named=500, terms=with_terms(fee=60)) == 500, "too low for those: as ever"


def test_where_unused_tokens_are_paid_nobody_pays_for_many_that_he_did_not_ask_for():
    whole = with_terms(charge_unused=True)
    assert fits(terms=whole) == ORDINARY_TOKENS
    assert fits(terms=whole, named=900) == 900
    assert fits(terms=whole, default=900) == 900, "the operator said so"


def test_where_unused_tokens_are_paid_a_named_number_is_never_cut_to_all_that_there_is():
    whole = with_terms(charge_unused=True)
    assert fits(terms=whole, named=900, available=107) == 900, "refused, as it says"
    assert fits(terms=whole, named=900, max_fee=107) == 900, "the same"
    assert fits(terms=whole, named=32_000) == ORDINARY_TOKENS
    assert fits(terms=whole, named=32_000, available=107) == ORDINARY_TOKENS
    assert fits(terms=whole, named=32_000, default=900) == 900
    assert fits(terms=whole, named=32_000, tokens_per_minute=1006) == ORDINARY_TOKENS
    assert fits(terms=with_terms(charge_unused=True, fee=9000), named=32_000) == ORDINARY_TOKENS


def test_tokens_a_minute_are_shared_too_but_never_down_to_a_stump():
    assert fits(tokens_per_minute=4006) == 1000
    half_us = 30_000_000
    assert fits(tokens_per_minute=4012, tokens_until_us=half_us) == 500
    assert fits(tokens_per_minute=4012, tokens_until_us=half_us, now_us=2 * half_us) == 1001
    for spent_us in (2 * half_us - 1_000_000, 2 * half_us, 10 * half_us):
        late = {"tokens_per_minute": 4012, "tokens_until_us": spent_us}
        assert fits(**late) == ORDINARY_TOKENS, "told when to come"
        assert fits(**late, most=20) == 20
        assert fits(**late, default=20) == 20
        few = {"tokens_per_minute": 106, "tokens_until_us": spent_us}
        assert fits(**few) == 100, "more than a minute's can never come"
    assert fits(tokens_per_minute=3) == 1


def test_a_named_number_that_is_cut_takes_what_is_left_of_the_minute():
    assert fits(named=9000, most=9000, tokens_per_minute=4006) == 4000
    half_us = 30_000_000
    half = {"tokens_per_minute": 4006, "tokens_until_us": half_us}
    assert fits(named=9000, most=9000, **half) == 2003 - 6, "cut by the minute"
    assert fits(named=9000, most=3000, **half) == 2003 - 6, "cut by the context"
    assert fits(named=9000, most=9000, available=3006, **half) == 2003 - 6, "cut by money"
    assert fits(named=3000, most=3000, **half) == 3000, "it fits: it waits for the minute's"
    late = {"tokens_per_minute": 4006, "tokens_until_us": 2 * half_us}
    assert fits(named=9000, most=9000, **late) == ORDINARY_TOKENS, "told when to come"
