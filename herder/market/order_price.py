"""The price of an order: the model's rates or a quote's, and the fee by the rules of `pricing`."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from sqlalchemy import Connection

from herder.domain.fitting import ORDINARY_TOKENS, FeeTerms, Means, fitted_tokens
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
        tokens: the most that it may generate: the call's, or what fits of them.
        base: the fee before the call's multiplier, exact.
        automatic: whether the fee was the herd's to say.
    """

    model: model_sql.Model
    policy: Policy
    rates: Rates
    charge_unused: bool
    words: int
    tokens: int
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


def price(
    connection: Connection, call: OrderRequest, now_us: int, means: Means | None = None
) -> OrderPrice:
    """Return an order's price.

    Rates and policy as they stand in the database, or were quoted.

    Args:
        connection: the transaction in which it is priced, and placed if it is.
        call: what the client asks.
        now_us: the time, for the automatic fee's decay and a quote's end.
        means: of its payer, where the call wishes for what fits.

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
    words = count_words(call.prompt.counted, policy.bytes_per_word)
    rates, charge_unused = model.rates, policy.charge_unused
    going = None
    if quote is None and (call.fee is None or call.wish is not None):
        going = going_rate(connection, model, policy, now_us)
    tokens = call.tokens
    if going is not None and call.wish is not None:
        tokens = _fitted(call, model, policy, words, going, means or Means(), now_us)
    if model.context is not None and tokens >= model.context:
        raise TooManyTokens(tokens, model.context, model.name)
    if quote is not None:
        require_quoted(
            quote,
            account=call.account,
            model=name,
            words=words,
            tokens=tokens,
            now_us=now_us,
        )
        rates, charge_unused = quote.rates, quote.charge_unused
    need = needed(rates, words, tokens)
    if call.fee == "base":
        base, automatic = Fraction(need), False
    elif call.fee is not None:
        base, automatic = Fraction(call.fee), False
    elif quote is not None:
        base, automatic = quote.base, quote.automatic
    else:
        assert going is not None
        base, automatic = need * going, True
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
        tokens=tokens,
        needed=need,
        base=base,
        fee=fee,
        automatic=automatic,
        stripes=stripes,
    )


def going_rate(
    connection: Connection, model: model_sql.Model, policy: Policy, now_us: int
) -> Fraction:
    """Return the automatic fee of an order placed now, for each winston that it needs."""
    return automatic_base(
        1,
        going_multiplier(model, policy, now_us),
        anything_waits=book_sql.anything_waits(connection, model.name),
        policy=policy,
    )


def _fitted(
    call: OrderRequest,
    model: model_sql.Model,
    policy: Policy,
    words: int,
    going: Fraction,
    means: Means,
    now_us: int,
) -> int:
    """Return the tokens that fit of those that a call wishes for."""
    assert call.wish is not None
    most = call.tokens
    if model.context is not None:
        most = min(most, max(1, model.context - 1))
    elif call.wish.named is None:
        most = min(most, ORDINARY_TOKENS)
    if call.fee == "base":
        factor, fee = call.bid_factor, None
    elif call.fee is None:
        factor, fee = going * call.bid_factor, None
    else:
        factor, fee = going, offered_fee(call.fee, call.bid_factor)
    terms = FeeTerms(
        rates=model.rates,
        words=words,
        factor=factor,
        fee=fee,
        max_fee=call.max_fee,
        charge_unused=policy.charge_unused,
    )
    return fitted_tokens(call.wish, most, terms, means, now_us)


@dataclass(frozen=True, slots=True)
class GoingPrice:
    """The price of a model's next order that names no fee.

    It is `multiplier` times what the order needs, rounded down to winston.
    """

    model: str
    is_default: bool
    rates: Rates
    multiplier: Fraction


def going_prices(connection: Connection, now_us: int) -> list[GoingPrice]:
    """Return the going price of each model.

    Args:
        connection: a read, in which the book stands still.
        now_us: the time, for the automatic fee's decay.
    """
    policy, default_model, _ = model_sql.read_policy(connection)
    return [
        GoingPrice(
            model.name,
            model.name == default_model,
            model.rates,
            automatic_base(
                1,
                going_multiplier(model, policy, now_us),
                anything_waits=book_sql.anything_waits(connection, model.name),
                policy=policy,
            ),
        )
        for model in model_sql.list_models(connection)
    ]


def going_multiplier(model: model_sql.Model, policy: Policy, now_us: int) -> Fraction:
    """Return the last multiplier, as far as it still counts for automatic fees."""
    if model.last_dispatch_us is None:
        return model.last_multiplier
    idle_us = now_us - model.last_dispatch_us
    return settled_multiplier(model.last_multiplier, idle_us, policy.auto_half_life_s)
