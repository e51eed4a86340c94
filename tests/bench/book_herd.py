"""A herder on one database, whose book has some length: what `tests/bench/book.py` measures."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import Mock

from sqlalchemy import func, select

from herder.accounts.accounts import open_ledger
from herder.clock import clock_us
from herder.db.database import Database
from herder.db.tables import event, order_text, orders
from herder.domain.order import Order
from herder.herd.herder_key import load_herder_key
from herder.host import home
from herder.market.queue_estimate import MAX_STEPS, STEP, QueueSampler
from herder.market.quotes import Quotes
from herder.orders.cancellation import Cancellation
from herder.orders.dispatch import Dispatcher
from herder.orders.intake import OrderIntake
from herder.orders.settlement import ReceivedOutcome, Settlement
from herder.settings import InitialPolicy, Settings
from herder.store import hellos as hello_sql
from herder.store import herd as herd_sql
from herder.store import orders as order_sql
from tests.bench import book_load
from tests.bench.book_load import MODEL, Clients, call, load_postgres, load_sqlite
from workers.transport.tasks import NewTask
from workers.wire import Announcement, Outcome, PrivateKey


def say(line: str) -> None:
    """Progress goes to standard error."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


class NoBroker:
    """Takes messages, sends them nowhere, and remembers which orders they were about."""

    def __init__(self) -> None:
        self.sent: set[str] = set()
        self.last = ""

    def publish_many(self, tasks: Sequence[NewTask]) -> None:
        """As the dispatcher asks for it: one at a time, since there is one slot."""
        (task,) = tasks
        self.last = task.task_id.rpartition(".")[0]
        self.sent.add(self.last)


class Book:
    """A herder on one database whose book has some size, with one worker of one slot."""

    def __init__(self, settings: Settings, size: int) -> None:
        self.size = size
        self.settings = settings
        home.init(settings, InitialPolicy(model=MODEL, max_open_orders=0))
        self.database = Database(settings.database)
        self.books = open_ledger()
        self.intake = OrderIntake(self.database, self.books, clock_us=clock_us)
        self.cancellation = Cancellation(
            self.database, self.books, settings, Mock(), clock_us=clock_us
        )
        self.settlement = Settlement(self.database, self.books, settings, Mock(), clock_us=clock_us)
        key = load_herder_key(settings)
        self.quotes = Quotes(self.database, key, clock_us=clock_us)
        self.broker = NoBroker()
        self.dispatcher = Dispatcher(
            self.database, self.books, settings, key, self.broker, clock_us=clock_us
        )
        self.clients = Clients.of(size)
        self._draw = random.Random(size)
        self._worker = PrivateKey.generate()
        self._pool: list[tuple[str, int]] = []

    def load(self) -> None:
        """Fill it."""
        begin = time.monotonic()
        now_us = clock_us()
        book_load.open_accounts(self.database, self.books, self.clients.names, now_us)
        url = self.settings.database
        if url.startswith("sqlite"):
            path = Path(url.removeprefix("sqlite:///"))
            self._pool = load_sqlite(path, self.size, now_us, say)
        else:
            self._pool = load_postgres(url, self.size, now_us, say)
        with self.database.write() as connection:
            public = self._worker.public
            herd_sql.add_key(connection, herd_sql.WORKER, "bench", public, now_us)
            herd_sql.put_worker(
                connection,
                "bench",
                public.kid,
                Announcement(name="bench", model=MODEL, slots=1, context=4096, tokens_per_s=100),
                beat=1,
                strays=0,
                heard_s=0,
                now_us=now_us,
            )
            hello_sql.answer_hello(connection, "bench", 1)
            hello_sql.prove(connection, "bench")
        surveyor = QueueSampler(self.database, clock_us=clock_us)
        for _ in range(2 + self.size // (STEP * MAX_STEPS)):
            surveyor.step()  # as a herder does once a second
        say(f"{self.size:,} orders wait after {time.monotonic() - begin:.0f} s")

    def check(self) -> None:
        """The money is all there, and each order that waits has its hold, request and event."""
        with self.database.read() as connection:
            report = self.books.audit(connection)
            assert report.clean, report.drifts
            waiting = connection.execute(
                select(func.count(), func.sum(orders.c.fee)).where(orders.c.state == "queued")
            ).one()
            assert (report.open_holds, report.held) == tuple(waiting)
            assert waiting[0] == self.size, waiting
            kept = connection.execute(select(func.count()).select_from(order_text)).scalar_one()
            born = connection.execute(
                select(func.count()).where(event.c.kind == "submitted")
            ).scalar_one()
            every = connection.execute(select(func.count()).select_from(orders)).scalar_one()
            assert kept == born == every

    # What is measured

    def submit(self) -> Callable[[], Any]:
        """A client submits, and names a fee that puts the order somewhere into the book."""
        asked = call(self._draw, self.clients.one(self._draw), clock_us())

        def step() -> None:
            order = self.intake.submit(asked)
            self._pool.append((order.id, order.fee))

        return step

    def dispatch(self) -> Callable[[], Any]:
        """The slot is free: the best order goes out."""
        return lambda: self.dispatcher.dispatch(MODEL)

    def rebid(self) -> Callable[[], Any]:
        """A client offers a tenth more for an order that waits."""
        place, (order_id, fee) = self._one()
        more = fee + 1 + fee // 10
        self._pool[place] = (order_id, more)
        return lambda: self.intake.rebid(order_id, more)

    def cancel(self) -> Callable[[], Any]:
        """A client cancels an order that waits."""
        place, (order_id, _) = self._one()
        self._pool[place] = self._pool[-1]
        self._pool.pop()
        return lambda: self.cancellation.cancel(order_id)

    def place(self) -> Callable[[], Any]:
        """A client asks what an order would cost, and where it would stand."""
        asked = call(self._draw, self.clients.one(self._draw), clock_us())
        return lambda: self.quotes.quote(asked)

    def _one(self) -> tuple[int, tuple[str, int]]:
        """One of the orders that wait."""
        while True:
            place = self._draw.randrange(len(self._pool))
            if self._pool[place][0] not in self.broker.sent:
                return place, self._pool[place]

    # Between the measurements

    def restore(self) -> None:
        """What was sent out comes back completed; the book is as long as it was."""
        with self.database.read() as connection:
            out = order_sql.get_order(connection, self.broker.last)
        assert out is not None
        answer = ReceivedOutcome(_outcome(out), "bench", self._worker.kid)
        assert self.settlement.settle([answer]).ended == [out.id]
        self.submit()()


def _outcome(order: Order) -> Outcome:
    assert order.nonce is not None
    return Outcome(
        order=order.id,
        attempt=order.attempt,
        nonce=order.nonce,
        result="completed",
        generated=order.tokens,
        text="so it is",
        finish_reason="length",
    )
