"""Orders that name a quote: for a minute the herd keeps its word, to the order that was quoted."""

from __future__ import annotations

import json
import threading
from fractions import Fraction

import pytest
from sqlalchemy import text

from herder.domain.parsing import parse_submission
from herder.domain.pricing import Rates
from herder.domain.signed_tokens import read_quote
from herder.errors import (
    FeeAboveMax,
    FeeTooLow,
    HerdUnavailable,
    IdempotencyKeyReused,
    InsufficientBalance,
    InvalidQuote,
    QuoteExpired,
    QuoteMismatch,
    TooManyTokens,
)
from herder.market.policy import set_rates
from herder.market.quotes import Quotes
from herder.store import herd as herd_sql

PROMPT, TOKENS = "two words", 10


def quoted(house, **asked):
    """A quote as a client gets it."""
    call = parsed(house, **asked)
    return Quotes(house.database, house.key, clock_us=house.clock).quote(call)


def parsed(house, prompt=PROMPT, tokens=TOKENS, *, account="default", quote=None, **asked):
    """A call as it passes the border, its quote's signature checked there."""
    with house.database.read() as connection:
        keys = herd_sql.live_keys(connection, herd_sql.HERDER)
    terms = None if quote is None else read_quote(quote.quote, keys)
    return parse_submission(
        prompt, tokens, account=account, max_prompt_bytes=1000, quote=terms, **asked
    )


def order(house, quote, **asked):
    """An order that names it."""
    return house.intake.submit(parsed(house, quote=quote, **asked))


@pytest.mark.parametrize("rates", [Rates(100, 7), Rates(1, 0)], ids=["dearer", "cheaper"])
def test_the_rates_that_were_quoted_hold_whatever_was_set_since(house, rates):
    quote = quoted(house)
    assert (quote.needed, quote.fee) == (13, 13)
    set_rates(
        house.database, "stub", prompt_fee=rates.prompt_fee, fee_per_token=rates.fee_per_token
    )
    taken = order(house, quote)
    assert (taken.rates, taken.needed, taken.fee) == (Rates(1, 1), 13, 13)
    assert taken.automatic
    # Whoever has no quote has the rates that stand.
    new = rates.prompt_fee + 12 * rates.fee_per_token
    assert house.submit(fee=1000).needed == new
    # It is charged by the rates that it was taken under.
    worker = house.worker(slots=2)
    job = next(job for job in (*house.dispatch(), *house.dispatch()) if job.order == taken.id)
    worker.claim(job)
    worker.finish(job, generated=4, finish_reason="stop")
    assert house.order(taken.id).charged == 1 + 2 + 4


def test_the_fee_that_was_quoted_holds_while_the_going_rate_rises(house):
    quote = quoted(house)
    house.worker(slots=1)
    house.submit(fee=65)
    house.dispatched()
    house.submit()
    assert quoted(house).fee > quote.fee
    taken = order(house, quote)
    assert (taken.fee, taken.multiplier) == (13, 1)


def test_the_fee_that_was_quoted_holds_while_the_going_rate_falls(make_house):
    house = make_house({"auto_half_life_s": 1})
    house.fund(1000)
    house.worker(slots=1)
    house.submit(fee=65)
    house.dispatched()
    quote = quoted(house)
    assert quote.fee == 65
    house.now_us += 30_000_000
    assert quoted(house).fee == 13
    assert order(house, quote).fee == 65


def test_a_fee_or_a_multiplier_beside_it_works_too(house):
    quote = quoted(house)
    set_rates(house.database, "stub", prompt_fee=50)
    assert order(house, quote, fee=20).fee == 20
    assert order(house, quote, fee=20, multiplier=2).fee == 40
    assert order(house, quote, multiplier="1.5").fee == 19
    taken = order(house, quote, fee=20)
    assert (taken.needed, taken.automatic) == (13, False)
    with pytest.raises(FeeTooLow, match="at least 13"):
        order(house, quote, fee=12)
    with pytest.raises(FeeTooLow):
        order(house, quote, multiplier=0.5)


def test_at_base_an_order_pays_what_the_quoted_rates_need(house):
    house.worker(slots=1)
    house.submit(fee=65)
    house.dispatched()
    going = quoted(house, multiplier=2)
    assert going.fee == 130
    base = quoted(house, fee="base")
    assert (base.fee, base.needed, base.multiplier) == (13, 13, "1")
    set_rates(house.database, "stub", prompt_fee=50)
    assert order(house, going, fee="base").fee == 13
    assert order(house, base).fee == 13
    assert order(house, base, fee="base", multiplier=2).fee == 26
    assert quoted(house, fee="base").fee == 62


def test_the_call_that_was_quoted_pays_what_was_quoted(house):
    for asked in (
        {"multiplier": 1.5},
        {"fee": 40},
        {"fee": 20, "multiplier": "1.25"},
        {"multiplier": "1.1", "max_fee": 14},
        {"fee": "base"},
        {"fee": "base", "multiplier": 2},
        {},
    ):
        quote = quoted(house, **asked)
        again, bare = order(house, quote, **asked), order(house, quote)
        assert again.fee == bare.fee == quote.fee
        assert again.bid_factor == bare.bid_factor
        assert again.automatic == bare.automatic == ("fee" not in asked)
    # Its own multiplier is on what the fee was before the quote's.
    quote = quoted(house, multiplier=3)
    assert order(house, quote, multiplier=2).fee == house.submit(bid_factor=Fraction(2)).fee == 26


def test_max_fee_balance_and_context_are_looked_at_all_the_same(house):
    quote = quoted(house, multiplier=2)
    before = house.traces()
    with pytest.raises(FeeAboveMax, match="26 winston, above your max_fee of 25"):
        order(house, quote, max_fee=25)
    long = quoted(house, tokens=60)
    house.worker(context=32)
    with pytest.raises(TooManyTokens):
        order(house, long, tokens=60)
    house.accounts.create("poor")
    poor = quoted(house, account="poor")
    with pytest.raises(InsufficientBalance):
        order(house, poor, account="poor")
    assert house.traces() == before


def test_an_order_that_was_not_quoted_may_not_name_it(house):
    set_rates(house.database, "other", prompt_fee=1)
    house.fund(1000, "bob")
    quote, before = quoted(house), house.traces()
    for field, asked in {
        "account": {"account": "bob"},
        "model": {"model": "other"},
        "words": {"prompt": "one"},
        "tokens": {"tokens": 9},
    }.items():
        with pytest.raises(QuoteMismatch) as refused:
            order(house, quote, **asked)
        assert refused.value.data["field"] == field
    assert house.traces() == before
    # What the words are is the client's to say.
    assert order(house, quote, prompt="other words", model="stub").fee == 13


def test_the_model_is_the_quotes_where_none_is_named(house):
    set_rates(house.database, "other", prompt_fee=5)
    quote = quoted(house, model="other")
    taken = order(house, quote)
    assert (taken.model, taken.needed) == ("other", 17)


def test_a_quote_that_expired_holds_nothing(house):
    quote, before = quoted(house), house.traces()
    house.now_us += 61_000_000
    with pytest.raises(QuoteExpired) as refused:
        order(house, quote)
    assert refused.value.data == {"expires": quote.expires}
    assert house.traces() == before
    house.now_us -= 2_000_000
    assert order(house, quote).fee == 13


def test_a_call_that_is_repeated_after_the_minute_is_still_its_order(house):
    quote = quoted(house)
    first = order(house, quote, idempotency_key="key")
    house.now_us += 3600_000_000
    assert order(house, quote, idempotency_key="key").id == first.id
    with pytest.raises(QuoteExpired):
        order(house, quote, idempotency_key="another")
    assert house.held() == 13


def test_a_key_stands_for_its_quote_too(house):
    first = quoted(house)
    order(house, first, idempotency_key="key")
    house.now_us += 1_000_000
    for other in (quoted(house), None):
        with pytest.raises(IdempotencyKeyReused, match="quote differs"):
            order(house, other, idempotency_key="key")
    house.submit(idempotency_key="plain")
    with pytest.raises(IdempotencyKeyReused, match="quote differs"):
        order(house, first, idempotency_key="plain")


def test_an_order_from_before_there_were_quotes_is_found_again(house):
    first = house.submit(idempotency_key="key")
    with house.database.read() as connection:
        stored = connection.execute(text("SELECT fingerprint FROM orders")).scalar_one()
    assert "quote" not in json.loads(stored)
    assert house.submit(idempotency_key="key").id == first.id


def test_whether_unused_tokens_are_paid_is_quoted_too(house):
    quote = quoted(house)
    with house.database.write() as connection:
        connection.execute(text("UPDATE policy SET charge_unused = true"))
    assert not order(house, quote).charge_unused
    assert house.submit().charge_unused


def test_a_quote_of_a_key_that_was_revoked_is_none(house):
    quote = quoted(house)
    with house.database.write() as connection:
        herd_sql.revoke_key(connection, house.key.kid, house.now_us)
    with pytest.raises(InvalidQuote, match="not among"):
        order(house, quote)


def test_rates_that_are_set_meanwhile_do_not_touch_a_quoted_order(make_house):
    house = make_house()
    house.fund(10**6)
    quote = quoted(house)
    left = threading.Event()
    wrong: list[BaseException] = []

    def operator() -> None:
        number = 0
        try:
            while not left.is_set():
                number += 1
                try:
                    set_rates(
                        house.database, "stub", prompt_fee=1 + number % 50, fee_per_token=number % 3
                    )
                except HerdUnavailable:
                    continue
        except BaseException as error:  # noqa: BLE001 (raised again below)
            wrong.append(error)

    setting = threading.Thread(target=operator)
    setting.start()
    taken = []
    while len(taken) < 30:
        try:
            taken.append(order(house, quote))
        except HerdUnavailable:
            continue
    left.set()
    setting.join()
    assert not wrong, wrong
    assert {(one.rates, one.needed, one.fee) for one in taken} == {(Rates(1, 1), 13, 13)}
