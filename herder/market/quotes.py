"""Quotes of what an order would cost and wait for, and the herd's state. Never writes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import cached_property

from sqlalchemy import Connection

from herder.db.database import Database
from herder.domain.order import Order, OrderRequest, State
from herder.domain.pricing import MAX_WINSTON, RANK_CAP
from herder.domain.quote_terms import Terms, expiry_s
from herder.domain.receipts import decimal_text
from herder.domain.signed_tokens import sign_quote
from herder.errors import FeeTooLow, InvalidFee
from herder.market import queue_estimate
from herder.market.order_price import (
    GoingPrice,
    OrderPrice,
    going_multiplier,
    going_prices,
    price,
)
from herder.store import book as book_sql
from herder.store import herd as herd_sql
from herder.store import models as model_sql
from herder.store import survey as survey_sql
from herder.types import PLACE_COUNTED, Bid, Info, ModelInfo, Place, Quote, Rate
from herder.version import __version__
from workers.wire import PrivateKey

NAME = "Llama Herder"

DEFAULT_BIDS = tuple(map(Fraction, ("1", "1.1", "1.25", "1.5", "2", "3", "5", "10")))
"""The multipliers that a quote compares beside the fee quoted, unless it is told others."""

FAR_US = 1_000_000
"""The time for which the position of an order deep in the queue is cached."""


class Quotes:
    """Answers what clients ask before they submit."""

    def __init__(self, database: Database, key: PrivateKey, *, clock_us: Callable[[], int]) -> None:
        self._database = database
        self._key = key
        self._clock_us = clock_us
        self._far: dict[str, _CachedTail] = {}

    def quote(self, call: OrderRequest, bids: Sequence[int | Fraction] | None = None) -> Quote:
        """Return the price, place and wait of an order as it would stand now.

        It binds for a minute.

        Args:
            call: the order.
            bids: fees in winston (`int`) or multipliers (`Fraction`) to be compared; None for
                `DEFAULT_BIDS` and the fee quoted.

        Raises:
            InvalidRequest: as `submit` would; or one of the bids is too low.
            ModelNotFound: nobody ever configured or announced this model.
        """
        with self._database.read() as connection:
            now_us = self._clock_us()
            priced = price(connection, call, now_us)
            fees = _fees(priced, bids)
            herd = _Herd(connection, priced.model.name)
            ranks = {fee: priced.rank_of(fee, now_us) for fee in (priced.fee, *fees)}
            places = self._places(connection, herd, ranks.values())
        terms = Terms(
            account=call.account,
            model=priced.model.name,
            words=priced.words,
            tokens=call.tokens,
            rates=priced.rates,
            base=priced.base,
            bid_factor=call.bid_factor,
            automatic=priced.automatic,
            charge_unused=priced.charge_unused,
            expires_s=expiry_s(now_us),
        )
        return Quote(
            account=call.account,
            model=priced.model.name,
            words=priced.words,
            tokens=call.tokens,
            rates=Rate(priced.rates.prompt_fee, priced.rates.fee_per_token),
            needed=priced.needed,
            fee=priced.fee,
            multiplier=decimal_text(priced.multiplier),
            **asdict(places[ranks[priced.fee]]),
            curve=[_bid(fee, priced.needed, places[ranks[fee]]) for fee in fees],
            expires=terms.expires,
            quote=sign_quote(terms, self._key, now_us // 1_000_000),
        )

    def _places(
        self, connection: Connection, herd: _Herd, ranks: Iterable[int]
    ) -> Mapping[int, Place]:
        """Return the place that each rank would have.

        The best first, and each counts on from the one before: all of them together read no more
        of the book than the last alone would, `PLACE_COUNTED` orders at most.
        """
        places: dict[int, Place] = {}
        count, tokens, below = 0, 0, RANK_CAP + 1
        for rank in sorted(set(ranks), reverse=True):
            if count <= PLACE_COUNTED:
                left = PLACE_COUNTED + 1 - count
                more = book_sql.ahead(connection, herd.model, rank, below=below, most=left)
                count, tokens, below = count + more[0], tokens + more[1], rank
            places[rank] = self._place(herd, rank, count, tokens)
        return places

    def place(self, order: Order, connection: Connection | None = None) -> Place | None:
        """Return the place of an order in the queue.

        None once it is out with the herd or has ended.

        Args:
            order: as it was read.
            connection: the transaction that it was read in; None: it is looked up in another one.
        """
        if order.state is not State.QUEUED:
            return None
        now_us = self._clock_us()
        far = self._far.get(order.model)
        if far is not None and far.covers(order, now_us):
            return self._place(far.herd, order.rank, far.count, far.tokens)
        with nullcontext(connection) if connection else self._database.read() as connection:
            count, tokens = book_sql.ahead_of(connection, order)
            herd = _Herd(connection, order.model)
            if count > PLACE_COUNTED:
                herd.look()
                self._far[order.model] = _CachedTail(order, now_us, herd, count, tokens)
            return self._place(herd, order.rank, count, tokens)

    def _place(self, herd: _Herd, rank: int, count: int, tokens: int) -> Place:
        """Return a place behind the orders and tokens that were counted or estimated."""
        exact = count <= PLACE_COUNTED
        if not exact and (marks := herd.marks(self._clock_us())):
            count, tokens = max((count, tokens), queue_estimate.ahead(marks, rank))
        return Place(
            place=count + 1,
            place_exact=exact,
            wait_s=herd.wait_s(count, tokens),
            waiting_for_workers=not herd.workers,
        )

    def going(self) -> list[GoingPrice]:
        """Return the going price of each model: its next order's that names no fee."""
        with self._database.read() as connection:
            return going_prices(connection, self._clock_us())

    def info(self) -> Info:
        """Return the herd's name, rates, queues and workers."""
        with self._database.read() as connection:
            policy, default_model, _ = model_sql.read_policy(connection)
            models = []
            for model in model_sql.list_models(connection):
                herd = _Herd(connection, model.name)
                count, tokens = book_sql.queue_length(connection, model.name)
                exact = count <= PLACE_COUNTED
                if not exact and (marks := herd.marks(self._clock_us())):
                    count, tokens = max((count, tokens), (marks[-1].ahead, marks[-1].tokens))
                models.append(
                    ModelInfo(
                        name=model.name,
                        rates=Rate(model.rates.prompt_fee, model.rates.fee_per_token),
                        last_multiplier=decimal_text(
                            going_multiplier(model, policy, self._clock_us()), 9
                        ),
                        queue_length=count,
                        queue_length_exact=exact,
                        context=model.context,
                        workers=len(herd.workers),
                        slots=sum(worker.slots for worker in herd.workers),
                        free_slots=sum(worker.free for worker in herd.workers),
                        weights=sorted({worker.weights for worker in herd.workers}),
                        wait_s=herd.wait_s(count, tokens),
                    )
                )
            return Info(NAME, __version__, default_model, models)


@dataclass(frozen=True, slots=True)
class _CachedTail:
    """An order so deep in its book that its place is no longer counted.

    Who stands behind it does so too: for a second nobody counts a thousand orders again to learn
    that, and the herd is not looked at again. What such an order is told is an estimate anyway.
    """

    order: Order
    at_us: int
    herd: _Herd
    count: int
    tokens: int

    def covers(self, order: Order, now_us: int) -> bool:
        """Return whether an order stands there or behind it."""
        behind = (-order.rank, order.seq) >= (-self.order.rank, self.order.seq)
        return behind and now_us - self.at_us < FAR_US


class _Herd:
    """A model's workers and its book as they stand within one read; each is looked up once."""

    def __init__(self, connection: Connection, model: str) -> None:
        self._connection = connection
        self.model = model
        # One that no message reaches runs nothing.
        here = herd_sql.workers_here(connection, model)
        self.workers = [worker for worker in here if worker.reached]

    def look(self) -> None:
        """Look all of it up now, so that it is known when the read has ended."""
        _ = self._free, self._running, self._survey

    @cached_property
    def _free(self) -> int:
        """Slots that nobody was sent for."""
        unclaimed = herd_sql.unclaimed(self._connection, self.model)
        return sum(worker.free for worker in self.workers) - unclaimed

    @cached_property
    def _running(self) -> int:
        """Tokens still to come of what runs now: half of it is done, on average."""
        return book_sql.tokens_out(self._connection, self.model) // 2

    @cached_property
    def _survey(self) -> survey_sql.Survey | None:
        return survey_sql.read(self._connection, self.model)

    def marks(self, now_us: int) -> Sequence[survey_sql.Mark] | None:
        """Return the last survey of a book that is too long to be counted, if it is fresh."""
        found = self._survey
        return (
            None
            if found is None or now_us - found.at_us > queue_estimate.TOO_OLD_US
            else found.marks
        )

    def wait_s(self, ahead: int, tokens: int) -> int | None:
        """Seconds until an order behind `ahead` others would start.

        What is to be decoded before it, at the herd's measured speed; None where nothing was
        measured, or nobody is there.
        """
        if not self.workers:
            return None
        if self._free > ahead:
            return 0
        speed = sum(worker.tokens_per_s * worker.slots for worker in self.workers)
        if speed == 0:
            return None
        return -(-(tokens + self._running) // speed)


def _fees(priced: OrderPrice, bids: Sequence[int | Fraction] | None) -> list[int]:
    """Return the fees that are compared; a multiplier's is the least that reaches it.

    Raises:
        FeeTooLow: one is below what the order needs.
        InvalidFee: one is above all amounts.
    """
    if bids is None:
        # What nobody could offer is left out.
        least = [_reaching(priced.needed, one) for one in DEFAULT_BIDS]
        return sorted({priced.fee, *(fee for fee in least if fee <= MAX_WINSTON)})
    fees = [bid if isinstance(bid, int) else _reaching(priced.needed, bid) for bid in bids]
    for fee in fees:
        if fee < priced.needed:
            raise FeeTooLow(fee, priced.needed)
        if fee > MAX_WINSTON:
            raise InvalidFee("fee", fee, MAX_WINSTON)
    return fees


def _reaching(need: int, multiplier: Fraction) -> int:
    """Return the least fee whose multiplier is as high."""
    return -(-(need * multiplier.numerator) // multiplier.denominator)


def _bid(fee: int, need: int, place: Place) -> Bid:
    multiplier = decimal_text(Fraction(fee, need))
    return Bid(fee, multiplier, place.place, place.place_exact, place.wait_s)
