"""The curve of a quote: what each of several bids would buy, all of it as of one moment."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from herder.domain.parsing import MAX_BIDS, parse_bids
from herder.domain.pricing import MAX_WINSTON, offered_fee, parse_multiplier
from herder.domain.receipts import decimal_text, receipt_of
from herder.errors import FeeTooLow, InvalidBids, InvalidFee, InvalidMultiplier
from herder.market import queue_estimate
from herder.market.policy import set_policy
from herder.market.queue_estimate import QueueSampler
from herder.market.quotes import DEFAULT_BIDS, Quotes
from herder.store import book as book_sql
from herder.types import PLACE_COUNTED, PLACE_UNKNOWN


@pytest.fixture
def quotes(house):
    return Quotes(house.database, house.key, clock_us=house.clock)


def test_each_bid_has_the_place_that_an_order_of_it_would_have(house, quotes):
    for fee in (13, 14, 20, 26, 26, 40, 130, 700):
        house.submit(fee=fee)
    fees = [13, 14, 26, 27, 39, 40, 41, 131, 701]
    found = quotes.quote(house.call(), fees)
    assert [bid.fee for bid in found.curve] == fees
    for bid in found.curve:
        alone = quotes.quote(house.call(fee=bid.fee), [])
        assert (alone.multiplier, alone.place) == (bid.multiplier, bid.place)
        assert (alone.wait_s, alone.place_exact) == (bid.wait_s, bid.place_exact) == (None, True)
        assert alone.curve == []
    assert [bid.place for bid in found.curve] == [9, 8, 6, 4, 4, 4, 3, 2, 1]


def test_a_place_of_the_curve_is_the_place_that_an_order_gets(house, quotes):
    for fee in (13, 20, 26, 26, 40):
        house.submit(fee=fee)
    for bid in quotes.quote(house.call(), [13, 26, 50]).curve:
        taken = house.submit(fee=bid.fee)
        found = quotes.place(taken)
        assert found is not None
        assert found.place == bid.place
        house.cancellation.cancel(taken.id)


def test_unless_told_otherwise_it_compares_the_usual_bids_and_the_fee_quoted(house, quotes):
    found = quotes.quote(house.call(fee=18))
    usual = [13, 15, 17, 20, 26, 39, 65, 130]
    assert [bid.fee for bid in found.curve] == sorted({*usual, 18})
    for multiplier in DEFAULT_BIDS:
        assert any(Fraction(bid.fee, 13) >= multiplier for bid in found.curve)
    assert [bid.fee for bid in quotes.quote(house.call()).curve] == [
        13,
        15,
        17,
        20,
        26,
        39,
        65,
        130,
    ]


def test_a_multiplier_is_the_least_fee_that_reaches_it(house, quotes):
    house.submit(fee=20)
    (bid,) = quotes.quote(house.call(), [Fraction("1.5")]).curve
    assert (bid.fee, bid.place) == (20, 2)  # 19 would rank below 1.5
    assert Fraction(bid.fee, 13) >= Fraction("1.5") > Fraction(bid.fee - 1, 13)


def test_what_no_order_could_offer_is_refused_with_the_number(house, quotes):
    with pytest.raises(FeeTooLow, match="The fee of 12 winston"):
        quotes.quote(house.call(), [20, 12])
    with pytest.raises(FeeTooLow):
        quotes.quote(house.call(), [Fraction(9, 10)])
    with pytest.raises(InvalidFee):
        quotes.quote(house.call(), [Fraction(MAX_WINSTON)])


def test_waits_follow_places(house, quotes):
    worker = house.worker(slots=1, tokens_per_s=5)
    house.submit(fee=100)
    worker.claim(house.dispatched())
    for fee in (13, 26, 39):
        house.submit(fee=fee)
    found = quotes.quote(house.call(), [13, 26, 39, 40])
    # Ten tokens each at five a second, behind half of the ten that run.
    assert [(bid.place, bid.wait_s) for bid in found.curve] == [(4, 7), (3, 5), (2, 3), (1, 1)]


def test_waiting_weighs_as_it_does_for_orders(house, quotes):
    set_policy(house.database, aging_s=60)
    for fee in (20, 30, 40):
        house.submit(fee=fee)
        house.now_us += 20_000_000
    for bid in quotes.quote(house.call(), [20, 30, 60, 300]).curve:
        taken = house.submit(fee=bid.fee)
        found = quotes.place(taken)
        assert found is not None
        assert found.place == bid.place
        house.cancellation.cancel(taken.id)


def test_a_long_book_is_counted_once_for_all_bids(make_house, monkeypatch):
    house = make_house({"max_open_orders": 0})
    house.fund(10**9)
    for number in range(PLACE_COUNTED + 200):
        house.submit(fee=13 + number % 400)
    quotes = Quotes(house.database, house.key, clock_us=house.clock)
    fees = [13, 14, 50, 80, 100, 200, 300, 412, 413]

    def curve():
        return [(bid.place, bid.place_exact) for bid in quotes.quote(house.call(), fees).curve]

    # The tail is three of each: 1,200 in all, and of 13 only the 1,197 above and its own.
    places = dict(zip(fees, curve(), strict=True))
    assert places[413] == (1, True)
    assert places[412] == (4, True)
    assert places[300] == (3 * 113 + 1, True)
    assert places[80] == (3 * 333 + 1, True)
    assert places[50] == places[14] == places[13] == (PLACE_UNKNOWN, False)

    monkeypatch.setattr(queue_estimate, "STEP", 30)
    monkeypatch.setattr(queue_estimate, "MAX_STEPS", 100)
    surveyor = QueueSampler(house.database, clock_us=house.clock)
    for _ in range(3):
        surveyor.step()
    for fee, (place, exact) in zip(fees, curve(), strict=True):
        truth = 3 * (413 - fee) + 1
        assert exact == (truth <= PLACE_COUNTED + 1)
        assert place == truth if exact else abs(place - truth) <= 30

    counted = []
    ahead = book_sql.ahead

    def counting(*given, most, **more):
        found = ahead(*given, most=most, **more)
        counted.append((most, found[0]))
        return found

    monkeypatch.setattr(book_sql, "ahead", counting)
    curve()
    # Each counts on from the one before, and nobody counts on when that many are counted.
    assert sum(count for _, count in counted) == PLACE_COUNTED + 1
    assert [most for most, _ in counted] == [
        PLACE_COUNTED + 1 - sum(count for _, count in counted[:place])
        for place in range(len(counted))
    ]
    assert len(counted) == 7 < len(fees)


def test_bids_are_fees_or_multipliers():
    assert parse_bids(None) is None
    assert parse_bids([]) == []
    asked = [{"fee": 100}, {"multiplier": 1.1}, {"multiplier": "2"}]
    assert parse_bids(asked) == [100, Fraction(11, 10), Fraction(2)]
    assert isinstance(parse_bids([{"multiplier": 3}])[0], Fraction)
    for wrong in (
        *("100", {"fee": 100}, 5, [5], [[]], [{}], [{"fee": 5, "multiplier": 2}], [{"bid": 5}]),
        [{"fee": 100}] * (MAX_BIDS + 1),
    ):
        with pytest.raises(InvalidBids, match="at most 20"):
            parse_bids(wrong)
    with pytest.raises(InvalidFee):
        parse_bids([{"fee": 1.5}])
    with pytest.raises(InvalidMultiplier):
        parse_bids([{"multiplier": "nan"}])


def test_the_going_price_is_what_the_next_order_pays_that_names_no_fee(house, quotes):
    def same():
        (going,) = quotes.going()
        assert (going.model, going.is_default) == (house.model().name, True)
        assert going.rates == house.model().rates
        for tokens in (1, 10, 777):
            call = house.call(tokens=tokens)
            told = going.multiplier * (1 + 2 + tokens)
            assert quotes.quote(call).fee == int(told)
        return going.multiplier

    assert same() == 1
    worker = house.worker(slots=1)
    house.submit(fee=39)
    worker.claim(house.dispatched())
    assert same() == 3
    house.submit(fee=13)
    # With something in the queue it rises; and with nothing started for long it falls again.
    assert same() == Fraction(3) * Fraction(1005, 1000)
    house.now_us += 600 * 1_000_000
    assert same() == Fraction(2) * Fraction(1005, 1000)
    house.fund(10**9)
    house.submit(fee=13_000)
    assert same() < 10


def test_who_offers_the_multiplier_that_is_told_is_not_outbid_by_it(house, quotes):
    house.worker()
    sold = house.submit(fee=17)
    house.dispatched()
    (bid,) = quotes.quote(house.call(), [17]).curve
    told = {
        "info": quotes.info().model.last_multiplier,
        "quote": quotes.quote(house.call(fee=17)).multiplier,
        "bid": bid.multiplier,
        "receipt": receipt_of(house.order(sold.id)).multiplier,
    }
    assert told["info"] == "1.307692308"
    for where, multiplier in told.items():
        assert Fraction(multiplier) >= Fraction(17, 13), where
        assert quotes.quote(house.call(fee="base", bid_factor=Fraction(multiplier))).fee == 17, (
            where
        )


@given(need=st.integers(1, 10**6 - 1), fee=st.integers(1, 10**9), places=st.sampled_from((6, 9)))
def test_a_multiplier_that_is_told_buys_what_it_stands_for(need, fee, places):
    told = parse_multiplier(decimal_text(Fraction(fee, need), places))
    assert offered_fee(need, told) == fee
