"""Quotes that clients ask for and name, and the operator who changes rates meanwhile."""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy.exc import OperationalError

from herder.domain.order import Order, OrderRequest
from herder.domain.pricing import Rates, needed
from herder.domain.quote_terms import QUOTE_S, Terms
from herder.domain.signed_tokens import read_quote, sign_quote
from herder.errors import FeeAboveMax, FeeTooLow, HerdUnavailable
from herder.market.policy import set_rates
from herder.market.quotes import Quotes
from tests.simulation.clockwork import Broken, Process
from tests.simulation.database import MODEL
from tests.simulation.herder import Room
from tests.simulation.keys import HERDER_KEY
from tests.simulation.truth import Truth

KEYS = {HERDER_KEY.kid: HERDER_KEY.public}


class Quoting:
    """What there is to quotes in a seed."""

    def __init__(self, room: Room, truth: Truth) -> None:
        self._room = room
        self._time = room.time
        self._truth = truth

    def ask(self, process: Process, call: OrderRequest) -> OrderRequest | None:
        """The same call with a quote; None where it is refused as it stands, or nobody answers.

        Some quotes were asked for almost a minute ago, and will not hold for long.
        """
        quotes = Quotes(self._room.database, HERDER_KEY, clock_us=process.clock_us)
        try:
            quote = quotes.quote(call)
        except (FeeTooLow, FeeAboveMax, HerdUnavailable):
            return None
        self._time.count("a quote is asked for")
        terms = read_quote(quote.quote, KEYS)
        if terms.fee != quote.fee or terms.needed != quote.needed:
            raise Broken("quote", f"{quote.fee} was quoted and {terms.fee} was signed")
        if self._time.rng.random() < 0.4:
            ago_s = self._time.rng.randint(QUOTE_S - 4, QUOTE_S)
            older = replace(terms, expires_s=terms.expires_s - ago_s)
            terms = read_quote(sign_quote(older, HERDER_KEY, 0), KEYS)
        self._truth.quotes.append(terms)
        return replace(call, quote=terms)

    def accepted(self, call: OrderRequest, order: Order, *, first_bid: bool) -> None:
        """Judge an order whose client was told that it was taken."""
        quote = call.quote
        if quote is None:
            if order.rates not in self._truth.rates:
                raise Broken("price", f"nobody set the rates of order {order.seq}")
            return
        self._time.count("an order names its quote")
        if order.rates != quote.rates or order.needed != quote.needed:
            raise Broken("quote", f"order {order.seq} has other rates than were quoted")
        if first_bid and order.fee != quote.fee:
            raise Broken("quote", f"{quote.fee} was quoted and {order.fee} was held")
        if order.submitted_us >= quote.expires_s * 1_000_000:
            raise Broken("quote", f"order {order.seq} came when its quote was over")

    def is_over(self, process: Process, quote: Terms | None) -> bool:
        """Whether a call is rightly refused for its quote's age."""
        self._time.count("a call is refused for its quote's age")
        return quote is not None and process.clock_us() >= quote.expires_s * 1_000_000

    def needs(self, call: OrderRequest, words: int, told: int) -> bool:
        """Whether an order may need as much as its client was told."""
        if call.quote is not None:
            return told == call.quote.needed
        return told in {needed(rates, words, call.tokens) for rates in self._truth.rates}

    def set_rates(self, _: Process) -> None:
        """The operator changes them."""
        rng = self._time.rng
        rates = Rates(rng.randint(1, 5), rng.choice((0, 1, 1, 2, 3)))
        self._truth.rates.add(rates)  # who dies after the commit has set them all the same
        try:
            found, _ = set_rates(
                self._room.database,
                MODEL,
                prompt_fee=rates.prompt_fee,
                fee_per_token=rates.fee_per_token,
            )
        except (HerdUnavailable, OperationalError):
            self._time.note("the rates stay as they are")
            return
        self._time.note(f"sets rates: {rates}")
        self._time.count("the operator sets rates")
        if found.rates != rates:
            raise Broken("price", "rates that were set are not there")
