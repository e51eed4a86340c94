"""The price of an order: the model's rates or a quote's, and the fee by the rules of `pricing`."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from sqlalchemy import Connection

from herder.domain.order import OrderRequest
from herder.domain.pricing import (
    MAX_WINSTON,
    Policy,
    Rates,
    automatic_base,
    count_words,
    needed,
    offered_fee,
    rank,
    settled_multiplier,
)
from herder.domain.quote_terms import require_quoted
from herder.errors import FeeAboveMax, FeeTooLow, InvalidFee, ModelNotFound, TooManyTokens
from herder.store import book as book_sql
from herder.store import models as model_sql


@dataclass(frozen=True, slots=True)
class OrderPrice:
    """The price of a submission, as the book stands now; amounts in winston.

    Attributes:
        rates: the model's, or those of the quote that it names.
        charge_unused: the policy's, or the quote's.
        base: the fee before the call's multiplier, exact.
        automatic: whether the fee was the herd's to say.
    """

    model: model_sql.Model
    policy: Policy
    rates: Rates
    charge_unused: bool
    words: int
    needed: int
    base: Fraction
    fee: int
    automatic: bool
    stripes: int

    @property
    def multiplier(self) -> Fraction:
        """What it offers for each winston that it needs."""
        return Fraction(self.fee, self.needed)

    def rank(self, submitted_us: int) -> int:
        """Return its order of service, if it was submitted then."""
        return self.rank_of(self.fee, submitted_us)

    def rank_of(self, fee: int, submitted_us: int) -> int:
        """Return its order of service, if it offered this fee."""
        return rank(fee, self.needed, aging_s=self.policy.aging_s, submitted_us=submitted_us)


def price(connection: Connection, call: OrderRequest, now_us: int) -> OrderPrice:
    """Return an order's price.

    Rates and policy as they stand in the database, or were quoted.

    Args:
        connection: the transaction in which it is priced, and placed if it is.
        call: what the client asks.
        now_us: the time, for the automatic fee's decay and a quote's end.

    Raises:
        InvalidRequest: the fee is too low, or above `max_fee`; or the tokens do not fit.
        QuoteMismatch, QuoteExpired: the quote that it names is for another order, or over.
        ModelNotFound: nobody ever configured or announced this model.
    """
    policy, default_model, stripes = model_sql.read_policy(connection)
    quote = call.quote
    name = call.model or (default_model if quote is None else quote.model)
    model = model_sql.get_model(connection, name)
    if model is None:
        raise ModelNotFound(name, [one.name for one in model_sql.list_models(connection)])
    if model.context is not None and call.tokens >= model.context:
        raise TooManyTokens(call.tokens, model.context, model.name)
    words = count_words(call.prompt.counted, policy.bytes_per_word)
    rates, charge_unused = model.rates, policy.charge_unused
    if quote is not None:
        require_quoted(
            quote,
            account=call.account,
            model=name,
            words=words,
            tokens=call.tokens,
            now_us=now_us,
        )
        rates, charge_unused = quote.rates, quote.charge_unused
    need = needed(rates, words, call.tokens)
    base, automatic = _base(connection, call, model, policy, need, now_us)
    fee = offered_fee(base, call.bid_factor)
    if fee < need:
        raise FeeTooLow(fee, need)
    if call.max_fee is not None and fee > call.max_fee:
        raise FeeAboveMax(fee, call.max_fee)
    if fee > MAX_WINSTON:
        raise InvalidFee("fee", fee, MAX_WINSTON)
    return OrderPrice(
        model=model,
        policy=policy,
        rates=rates,
        charge_unused=charge_unused,
        words=words,
        needed=need,
        base=base,
        fee=fee,
        automatic=automatic,
        stripes=stripes,
    )


def _base(
    connection: Connection,
    call: OrderRequest,
    model: model_sql.Model,
    policy: Policy,
    need: int,
    now_us: int,
) -> tuple[Fraction, bool]:
    """Return the fee before the call's multiplier, and whether it is the herd's to say."""
    if call.fee == "base":
        return Fraction(need), False
    if call.fee is not None:
        return Fraction(call.fee), False
    if call.quote is not None:
        return call.quote.base, call.quote.automatic
    going = automatic_base(
        need,
        going_multiplier(model, policy, now_us),
        anything_waits=book_sql.anything_waits(connection, model.name),
        policy=policy,
    )
    return going, True


def going_multiplier(model: model_sql.Model, policy: Policy, now_us: int) -> Fraction:
    """Return the last multiplier, as far as it still counts for automatic fees."""
    if model.last_dispatch_us is None:
        return model.last_multiplier
    idle_us = now_us - model.last_dispatch_us
    return settled_multiplier(model.last_multiplier, idle_us, policy.auto_half_life_s)
