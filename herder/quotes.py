"""What an order would cost and wait for, and how the herd stands: reading, never writing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict

from sqlalchemy import Connection

from herder import survey
from herder.database import Database
from herder.desk import going_multiplier, price
from herder.orders import Order, State, Submission
from herder.receipts import PLACE_COUNTED, Info, ModelInfo, Place, Quote, Rate, decimal_text
from herder.store import book as book_sql
from herder.store import herd as herd_sql
from herder.store import models as model_sql
from herder.store import survey as survey_sql
from herder.version import __version__

NAME = "Llama Herder"


class Quotes:
    """Answers what clients ask before they submit."""

    def __init__(self, database: Database, *, clock_us: Callable[[], int]) -> None:
        self._database = database
        self._clock_us = clock_us

    def quote(self, call: Submission) -> Quote:
        """What an order would need, pay and wait for, as it would stand now.

        Raises:
            InvalidRequest: as `submit` would.
            ModelNotFound: nobody ever configured or announced this model.
        """
        with self._database.read() as connection:
            now_us = self._clock_us()
            priced = price(connection, call, now_us)
            name = priced.model.name
            rank = priced.rank(now_us)
            found = book_sql.ahead(connection, name, rank)
            place = self._place(connection, name, rank, found)
            return Quote(
                account=call.account,
                model=name,
                words=priced.words,
                tokens=call.tokens,
                rates=Rate(priced.model.rates.prompt_fee, priced.model.rates.fee_per_token),
                needed=priced.needed,
                fee=priced.fee,
                multiplier=decimal_text(priced.multiplier),
                **asdict(place),
            )

    def place(self, order: Order) -> Place | None:
        """Where an order stands in the queue; None once it is out with the herd or has ended."""
        if order.state is not State.QUEUED:
            return None
        with self._database.read() as connection:
            found = book_sql.ahead_of(connection, order)
            return self._place(connection, order.model, order.rank, found)

    def _place(
        self, connection: Connection, model: str, rank: int, found: tuple[int, int]
    ) -> Place:
        """A place behind the orders and tokens that were counted, or that a survey estimates."""
        count, tokens = found
        exact = count <= PLACE_COUNTED
        if not exact and (marks := self._marks(connection, model)):
            count, tokens = max((count, tokens), survey.ahead(marks, rank))
        workers = herd_sql.workers_here(connection, model)
        return Place(
            place=count + 1,
            place_exact=exact,
            wait_s=_wait_s(connection, model, workers, count, tokens),
            waiting_for_workers=not workers,
        )

    def info(self) -> Info:
        """Who serves here, at what rates, and how the queues and the herd stand."""
        with self._database.read() as connection:
            policy, default_model, _ = model_sql.read_policy(connection)
            models = []
            for model in model_sql.list_models(connection):
                workers = herd_sql.workers_here(connection, model.name)
                count, tokens = book_sql.queue_length(connection, model.name)
                exact = count <= PLACE_COUNTED
                if not exact and (marks := self._marks(connection, model.name)):
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
                        workers=len(workers),
                        slots=sum(worker.slots for worker in workers),
                        free_slots=sum(worker.free for worker in workers),
                        weights=sorted({worker.weights for worker in workers}),
                        wait_s=_wait_s(connection, model.name, workers, count, tokens),
                    )
                )
            return Info(NAME, __version__, default_model, models)

    def _marks(self, connection: Connection, model: str) -> Sequence[survey_sql.Mark] | None:
        """How a book stood that is too long to be counted, if that was looked at lately."""
        found = survey_sql.read(connection, model)
        too_old = found is not None and self._clock_us() - found.at_us > survey.TOO_OLD_US
        return None if found is None or too_old else found.marks


def _wait_s(
    connection: Connection,
    model: str,
    workers: Sequence[herd_sql.Worker],
    ahead: int,
    tokens: int,
) -> int | None:
    """Seconds until an order behind `ahead` others would start.

    What is to be decoded before it, at the herd's measured speed; None where nothing was
    measured, or nobody is there.
    """
    if not workers:
        return None
    free = sum(worker.free for worker in workers) - herd_sql.unclaimed(connection, model)
    if free > ahead:
        return 0
    speed = sum(worker.tokens_per_s * worker.slots for worker in workers)
    if speed == 0:
        return None
    # Half of what runs now is done, on average.
    running = book_sql.tokens_out(connection, model) // 2
    return -(-(tokens + running) // speed)
