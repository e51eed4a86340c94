"""The price of the next order: looked at now and then, told with each answer, never waited for."""

from __future__ import annotations

import asyncio
import re
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from herder.domain.pricing import Rates, offered_fee
from herder.errors import HerdUnavailable
from herder.gateway.prices import KEPT_S, OLD_S, Priced, Prices
from herder.market.order_price import GoingPrice

OWN = GoingPrice("own", True, Rates(1, 2), Fraction(3, 2))
OTHER = GoingPrice("a/b", False, Rates(7, 0), Fraction(1005, 1000))
TOLD_OWN = b'model="own", multiplier=1.5, prompt_fee=1, fee_per_token=2'
TOLD_OTHER = b'model="a/b", multiplier=1.005, prompt_fee=7, fee_per_token=0'


class Herd:
    """Prices to be looked at; it may be away, or not answer."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.looks = 0
        self.found = [OWN, OTHER]
        self.fails: Exception | None = None
        self.answers = asyncio.Event()
        self.answers.set()

    async def look(self):
        self.looks += 1
        await self.answers.wait()
        if self.fails is not None:
            raise self.fails
        return self.found

    def prices(self):
        return Prices(self.look, clock_s=lambda: self.now_s)


def test_a_model_is_told_its_own_price_and_any_other_the_herds():
    async def run():
        prices = Herd().prices()
        assert await prices.header("own") == TOLD_OWN
        assert await prices.header("a/b") == TOLD_OTHER
        assert await prices.header(None) == await prices.header("nobody") == TOLD_OWN
        assert await prices.all() == [OWN, OTHER]

    asyncio.run(run())


def test_many_answers_a_second_need_one_look():
    async def run():
        herd = Herd()
        prices = herd.prices()
        assert set(await asyncio.gather(*(prices.header(None) for _ in range(50)))) == {TOLD_OWN}
        herd.now_s += KEPT_S / 2
        assert await prices.header(None) == TOLD_OWN
        assert herd.looks == 1

    asyncio.run(run())


def test_who_asks_a_moment_later_is_told_the_last_and_has_it_looked_at_anew():
    async def run():
        herd = Herd()
        prices = herd.prices()
        await prices.header(None)
        herd.now_s += KEPT_S
        herd.found = [OTHER]
        herd.answers.clear()
        assert await prices.header("own") == TOLD_OWN
        assert await prices.header("own") == TOLD_OWN
        await asyncio.sleep(0)
        assert herd.looks == 2
        herd.answers.set()
        while await prices.header("own") is not None:
            await asyncio.sleep(0)
        assert await prices.header("a/b") == TOLD_OTHER
        assert herd.looks == 2

    asyncio.run(run())


def test_who_asks_much_later_waits_a_moment_for_a_look():
    async def run():
        herd = Herd()
        prices = herd.prices()
        await prices.header(None)
        herd.now_s += OLD_S
        herd.found = [GoingPrice("own", True, Rates(1, 1), Fraction(1))]
        assert await prices.header(None) != TOLD_OWN
        # And is told nothing if that takes longer, but soon after it is there.
        herd.now_s += OLD_S
        herd.answers.clear()
        assert await prices.header(None) is None
        assert await prices.all() == ()
        herd.answers.set()
        while await prices.header(None) is None:
            await asyncio.sleep(0.01)
        await prices.close()

    asyncio.run(run())


@pytest.mark.parametrize("error", [HerdUnavailable("away"), RuntimeError("broken")])
def test_while_the_database_is_away_nothing_old_is_told_and_it_is_not_asked_each_time(error):
    async def run():
        herd = Herd()
        prices = herd.prices()
        await prices.header(None)
        herd.fails = error
        herd.now_s += OLD_S
        for _ in range(10):
            assert await prices.header(None) is None
        assert herd.looks == 2
        herd.fails = None
        herd.now_s += KEPT_S
        assert await prices.header(None) == TOLD_OWN
        assert herd.looks == 3

    asyncio.run(run())


def test_a_look_ends_with_the_gateway():
    async def run():
        herd = Herd()
        herd.answers.clear()
        prices = herd.prices()
        assert await prices.header(None) is None
        await prices.close()
        assert [one for one in asyncio.all_tasks() if one.get_name() == "prices"] == []

    asyncio.run(run())


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/v1/orders", True),
        ("/v1/orders/1/events", True),
        ("/v1/chat/completions", True),
        ("/v1/completions", True),
        ("/v1/models", False),
        ("/metrics", False),
    ],
)
def test_it_stands_on_answers_of_routes_that_sell(path, told):
    sent = []

    async def app(scope, receive, send):
        scope["state"]["priced_model"] = "a/b"
        await send({"type": "http.response.start", "status": 404, "headers": [(b"a", b"b")]})
        await send({"type": "http.response.body", "body": b""})

    async def send(message):
        sent.append(message)

    async def run():
        scope = {"type": "http", "path": path, "state": {}}
        await Priced(app, Herd().prices())(scope, None, send)

    asyncio.run(run())
    more = [(b"x-next-price", TOLD_OTHER)] if told else []
    assert sent[0]["headers"] == [(b"a", b"b"), *more]
    assert len(sent) == 2


def worked_out(multiplier, need):
    """The fee that a caller works out of what the header says, as README has it."""

    async def run():
        herd = Herd()
        herd.found = [GoingPrice("own", True, Rates(need, 0), multiplier)]
        return await herd.prices().header(None)

    said = re.search(r"multiplier=([0-9.]+), prompt_fee=([0-9]+)", asyncio.run(run()).decode())
    return int(Fraction(said[1]) * int(said[2]))


@pytest.mark.parametrize(("need", "pays"), [(9, 12), (12, 16), (300, 400)])
def test_the_fee_that_is_told_is_paid_though_the_multiplier_is_no_short_decimal(need, pays):
    assert worked_out(Fraction(4, 3), need) == pays


@example(multiplier=Fraction(4, 3), need=3)
@given(
    multiplier=st.fractions(min_value=1, max_value=10, max_denominator=2**53),
    need=st.integers(1, 10**6),
)
def test_no_order_pays_more_than_was_told_and_few_less(multiplier, need):
    told, paid = worked_out(multiplier, need), offered_fee(need * multiplier, Fraction(1))
    assert paid <= told <= paid + 1
    if need * multiplier.denominator <= 10**9:
        assert told == paid
