"""A herd within one test: a real database, real signatures, and no processes.

Workers, broker and clock are the test's own, so that every step is taken by hand.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any
from unittest.mock import Mock
from uuid import uuid4

from redis import ConnectionError as RedisConnectionError
from sqlalchemy import func, select, text

import ledger
from herder.accounts.accounts import Accounts, client_account, open_ledger
from herder.accounts.api_keys import ApiKeys
from herder.accounts.grants import Grants
from herder.clock import clock_us
from herder.db.database import Database
from herder.db.tables import event, order_text, orders, outbox
from herder.db.tables import message as message_rows
from herder.domain.kept import KeptText
from herder.domain.order import Order, OrderRequest, Prompt
from herder.errors import AccountExists
from herder.herd.heartbeats import HeartbeatProcessor, HeartbeatResult
from herder.herd.herder_key import load_herder_key
from herder.herd.trusted_keys import TrustedKeys
from herder.host import home
from herder.market.quotes import Quotes
from herder.messages.handler import Messages, Taken
from herder.messages.inbox import read_inbox
from herder.orders.cancellation import Cancellation
from herder.orders.closing import ClosingResult
from herder.orders.dispatch import Dispatcher
from herder.orders.intake import OrderIntake
from herder.orders.set_aside import SetAside
from herder.orders.settlement import ReceivedOutcome, Settlement
from herder.service.loop import Service
from herder.service.upkeep import make_upkeep
from herder.settings import InitialPolicy, load_settings
from herder.store import api_keys as key_sql
from herder.store import hellos as hello_sql
from herder.store import herd as herd_sql
from herder.store import models as model_sql
from herder.store import orders as order_sql
from herder.store.kept import get_kept_text
from herder.webhooks.deliverer import Deliverer, DeliveryLimits
from herder.webhooks.endpoints import Webhooks
from herder.webhooks.messages import WebhookRequest
from herder.webhooks.schedule import Reply
from herder.webhooks.signing import Sealer
from tests.support.sqlite_file import prepare
from workers.transport.delivery import Reach
from workers.transport.tasks import NewTask
from workers.wire import (
    HELLO_TASK,
    INFER_TASK,
    INFERENCE_QUEUE,
    WORKER_QUEUES,
    Announcement,
    AttemptRef,
    Beat,
    Body,
    CancelAttempt,
    Claim,
    Confirm,
    Envelope,
    Failure,
    HelloAnswer,
    InferenceJob,
    Marker,
    Outcome,
    PrivateKey,
    WorkerStopped,
    unseal,
    worker_queue,
)

MODEL = "stub"


class FakeReaders:
    """What readers say that they were given, as Redis keeps it, or nothing while it is away."""

    def __init__(self) -> None:
        self.reached: dict[tuple[str, int], Reach] = {}
        self.asked: list[tuple[str, int]] = []
        self.away = False

    def read(self, job: InferenceJob, characters: int, tokens: int) -> None:
        """Somebody was given so much of an attempt's text."""
        reach = Reach(characters, tokens)
        known = self.reached.get((job.order, job.attempt), Reach())
        self.reached[job.order, job.attempt] = max(reach, known)

    def delivered(self, attempts: Sequence[tuple[str, int]]) -> list[Reach]:
        """As of `workers.transport.streams.Streams`."""
        if self.away:
            raise RedisConnectionError("Redis is out of reach")
        self.asked += attempts
        return [self.reached.get(one, Reach()) for one in attempts]


class FakePublisher:
    """A broker that keeps what it is sent, or is away."""

    def __init__(self) -> None:
        self.tokens: list[str] = []
        self.levels: list[int] = []
        self.queues: list[str] = []
        self.hellos: list[NewTask] = []
        self.away: Exception | None = None

    def publish_many(self, messages: Sequence[NewTask]) -> None:
        for message in messages:
            if self.away is not None:
                raise self.away
            if message.task == HELLO_TASK:
                self.hellos.append(message)
                continue
            assert message.task == INFER_TASK
            # What a herder of before the workers' own queues committed is for any worker.
            assert message.queue.startswith((INFERENCE_QUEUE, WORKER_QUEUES))
            self.queues.append(message.queue)
            assert message.task_id.partition(".")[0] in message.label
            self.tokens.append(message.token)
            self.levels.append(message.level)


class FakeReceiver:
    """Takes what a deliverer sends: each try is answered as the test says, at once or later."""

    def __init__(self) -> None:
        self.requests: list[WebhookRequest] = []
        self.replies: list[Reply] = []
        self.reply = Reply(200)
        self.later: list[Callable[[], None]] | None = None
        """Where set, what answers each try, to be called by the test."""

    def send(self, request: WebhookRequest, done: Callable[[Reply], None]) -> None:
        self.requests.append(request)
        reply = self.replies.pop(0) if self.replies else self.reply
        if self.later is None:
            done(reply)
        else:
            self.later.append(lambda: done(reply))

    def close(self) -> None:
        self.later = None

    @property
    def ids(self) -> list[str]:
        return [one.headers["webhook-id"] for one in self.requests]


@dataclass
class FakeWorker:
    """A worker instance as the herder hears it."""

    house: House
    name: str
    key: PrivateKey
    instance: str
    slots: int = 1
    context: int = 4096
    model: str = MODEL
    tokens_per_s: int = 0
    number: int = 0
    held: list[AttemptRef] = field(default_factory=list)
    reachable: bool = True
    """Whether it answers the hellos that it is due, as soon as anything is dispatched."""

    def beat(
        self,
        running: Sequence[AttemptRef] | None = None,
        unconfirmed: Sequence[AttemptRef] = (),
        *,
        draining: bool = False,
        number: int | None = None,
    ) -> HeartbeatResult:
        """One beat; it names what the worker holds unless the test says otherwise."""
        self.number = self.number + 1 if number is None else number
        body = Beat(
            number=self.number,
            worker=Announcement(
                name=self.name,
                model=self.model,
                slots=self.slots,
                context=self.context,
                tokens_per_s=self.tokens_per_s,
                draining=draining,
            ),
            running=tuple(self.held if running is None else running),
            unconfirmed=tuple(unconfirmed),
        )
        return self.says(body)

    def says(self, *bodies: Body) -> HeartbeatResult:
        """What it says, taken in as one batch."""
        return self.house.herd.hear([self.envelope(body) for body in bodies])

    def envelope(self, body: Body) -> Envelope:
        """A message of this worker whose signature was checked."""
        return Envelope(self.key.kid, self.instance, body)

    def greet(self) -> None:
        """Answer the hello that it is due, and have claimed something before."""
        if self.reachable:
            self.answer_hello()
            with self.house.database.write() as connection:
                hello_sql.prove(connection, self.instance)

    def answer_hello(self, number: int | None = None) -> HeartbeatResult:
        """Answer a hello: the one that it is due, unless the test says otherwise."""
        if number is None:
            number = self.house.worker_state(self).hello
        return self.says(HelloAnswer(number=number))

    def claim(self, job: InferenceJob) -> HeartbeatResult:
        """Show up with an attempt."""
        self.held.append(job.held)
        return self.says(Claim(held=(job.held,)))

    def leave(self) -> None:
        """Say farewell."""
        self.says(WorkerStopped())

    def outcome(self, job: InferenceJob, **fields: Any) -> Outcome:
        """How an attempt ended: completed with all its tokens, unless the test says otherwise."""
        if job.held in self.held:
            self.held.remove(job.held)
        given: dict[str, Any] = {"result": "completed", "generated": job.tokens, "text": "so it is"}
        if fields.get("result", "completed") == "completed":
            given["finish_reason"] = "length"
        else:
            given = {"generated": 0}
        return Outcome(order=job.order, attempt=job.attempt, nonce=job.nonce, **{**given, **fields})

    def answer(self, job: InferenceJob, **fields: Any) -> ReceivedOutcome:
        """An outcome as it reaches the settlement."""
        return ReceivedOutcome(self.outcome(job, **fields), self.instance, self.key.kid)

    def finish(self, job: InferenceJob, **fields: Any) -> ClosingResult:
        """Send an outcome, and have it settled."""
        return self.house.settlement.settle([self.answer(job, **fields)])

    def fail(self, job: InferenceJob, *, permanent: bool, **more: Any) -> ClosingResult:
        """Send an outcome that failed."""
        said = {"code": "stub_trouble", "message": "It went wrong.", **more}
        failure = Failure(permanent=permanent, **said)
        return self.finish(job, result="failed", failure=failure)

    def hand_back(self, job: InferenceJob) -> ClosingResult:
        """Send an attempt back as it came."""
        return self.finish(job, result="handed_back")


class House:
    """Every part of a herder, on one database, with a broker and a clock of the test's own."""

    def __init__(
        self,
        folder: Path,
        policy: dict[str, Any] | None = None,
        *,
        init: bool = True,
        **values: Any,
    ) -> None:
        # It starts at the real time, so that no job of a test has expired when it is read.
        self.now_us = clock_us()
        self.settings = load_settings(folder, **values)
        if init:
            prepare(self.settings.database)
            home.init(self.settings, InitialPolicy(model=MODEL, **(policy or {})))
        self.key = load_herder_key(self.settings)
        self.readers = FakeReaders()
        self._build(Database(self.settings.database))

    def _build(self, database: Database) -> None:
        self.database = database
        self.books = open_ledger(self.clock)
        self.accounts = Accounts(self.database, self.books, clock_us=self.clock)
        self.grants = Grants(self.database, self.books, clock_us=self.clock)
        self.api_keys = ApiKeys(self.database, clock_us=self.clock)
        self.intake = OrderIntake(self.database, self.books, clock_us=self.clock)
        self.settlement = Settlement(
            self.database, self.books, self.settings, self.readers, clock_us=self.clock
        )
        self.cancellation = Cancellation(
            self.database, self.books, self.settings, self.readers, clock_us=self.clock
        )
        self.aside = SetAside(self.database, self.books, clock_us=self.clock)
        self.publisher = FakePublisher()
        self.dispatcher = self.new_dispatcher(self.publisher)
        self.herd = HeartbeatProcessor(self.database, self.settings, clock_us=self.clock)
        self.sealer = Sealer(self.key)
        self.webhooks = Webhooks(
            self.database,
            self.sealer,
            self.settings.webhook_rules,
            overlap_s=self.settings.webhook_overlap_s,
            clock_us=self.clock,
        )
        self.messages = Messages(
            self.database,
            self.intake,
            self.accounts,
            Quotes(self.database, self.key, clock_us=self.clock),
            max_prompt_bytes=self.settings.max_prompt_bytes,
            clock_us=self.clock,
        )
        self.workers: list[FakeWorker] = []
        self._names = count(1)

    def on(self, database: Database) -> House:
        """The same herd, with parts of its own on another connection to its database."""
        other = copy(self)
        other._build(database)
        return other

    def clock(self) -> int:
        return self.now_us

    def new_dispatcher(self, publisher: Any) -> Dispatcher:
        """A dispatcher beside the first: another herder, or the same after a crash."""
        return Dispatcher(
            self.database, self.books, self.settings, self.key, publisher, clock_us=self.clock
        )

    def new_deliverer(self, receiver: FakeReceiver, **limits: Any) -> Deliverer:
        """What sends a herder's share of the webhooks, step by step."""
        return Deliverer(
            self.database,
            self.sealer,
            receiver,
            DeliveryLimits(**limits),
            clock_us=self.clock,
            rng=random.Random(1),
        )

    # Given

    def new_service(
        self, streams: Any = None, receiver: FakeReceiver | None = None, **more: Any
    ) -> Service:
        """A herder with all of its duties, whose clock is the house's."""
        upkeep = make_upkeep(
            self.database,
            self.grants,
            self.new_deliverer(receiver or FakeReceiver()),
            keep_text_days=30,
            clock_us=self.clock,
        )
        given = {
            "database": self.database,
            "settlement": self.settlement,
            "cancellation": self.cancellation,
            "dispatcher": self.dispatcher,
            "herd": self.herd,
            "streams": Mock() if streams is None else streams,
            "key": self.key,
            "keys": TrustedKeys(self.database, clock_s=lambda: self.now_us / 1e6),
            "name": "h-1",
            "clock_us": self.clock,
            "clock_s": lambda: self.now_us / 1e6,
            "upkeep": upkeep,
        }
        return Service(**{**given, **more})

    def fund(self, amount: int, account: str = "default") -> None:
        """Give an account money; it is opened if it is not there."""
        with suppress(AccountExists):
            self.accounts.create(account)
        self.accounts.deposit(account, amount, str(uuid4()))

    def worker(
        self, name: str | None = None, *, announced: bool = True, **fields: Any
    ) -> FakeWorker:
        """A worker with a key of its own, which announced itself."""
        known = name or f"worker{next(self._names)}"
        key = PrivateKey.generate()
        with self.database.write() as connection:
            herd_sql.add_key(connection, herd_sql.WORKER, known, key.public, self.now_us)
        one = FakeWorker(self, known, key, f"w-{key.kid[:16]}", **fields)
        if announced:
            heard = one.beat()
            assert not heard.control
            one.greet()
        self.workers.append(one)
        return one

    def call(self, prompt: str = "two words", tokens: int = 10, **fields: Any) -> OrderRequest:
        """A call as order intake gets it."""
        given = {"account": "default", **fields}
        return OrderRequest(prompt=Prompt(prompt), tokens=tokens, **given)

    def submit(self, prompt: str = "two words", tokens: int = 10, **fields: Any) -> Order:
        """Take an order."""
        return self.intake.submit(self.call(prompt, tokens, **fields))

    def send(self, *, account: str = "default", key: str | None = None, **tags: str) -> Taken:
        """Send a message; `X_Prompt` stands for `X-Prompt`."""
        named = {name.replace("_", "-"): value for name, value in tags.items()}
        return self.messages.send(named, account=account, idempotency_key=key)

    def ask(self, quantity: int, prompt: str = "two words", **more: str) -> Taken:
        """Send a paid prompt of ten tokens."""
        tags = {"Recipient": "herder", "Quantity": str(quantity), "X_Prompt": prompt}
        return self.send(**{"Action": "Transfer", **tags, "X_Tokens": "10", **more})

    # When

    def dispatch(self, model: str = MODEL) -> list[InferenceJob]:
        """Fill the free slots; the jobs that went out, their signatures checked."""
        for worker in self.workers:
            if worker.reachable and self.is_doubted(worker):
                worker.greet()
        before = len(self.publisher.tokens)
        self.dispatcher.dispatch(model)
        return self.jobs(self.publisher.tokens[before:])

    def jobs(self, tokens: Sequence[str]) -> list[InferenceJob]:
        """Messages as a worker reads them."""
        keys = {self.key.kid: self.key.public}
        found = []
        for token in tokens:
            now_s = self.now_us / 1_000_000
            body = unseal(token, keys, audience=self.queues(), now_s=now_s).body
            assert isinstance(body, InferenceJob)
            found.append(body)
        return found

    def queues(self) -> list[str]:
        """The queues of all worker instances that there are, and the one that they share."""
        with self.database.read() as connection:
            known = [one.instance for one in herd_sql.all_workers(connection)]
        return [INFERENCE_QUEUE, *map(worker_queue, known)]

    def is_doubted(self, worker: FakeWorker) -> bool:
        """Whether a worker that is here has a hello to answer."""
        with self.database.read() as connection:
            known = herd_sql.get_worker(connection, worker.instance)
        return known is not None and known.state == "alive" and not known.reached

    def sent_to(self, job: InferenceJob) -> FakeWorker:
        """The worker that an attempt was sent to."""
        to = self.order(job.order).instance
        return next(one for one in self.workers if one.instance == to)

    def dispatched(self) -> InferenceJob:
        """Fill the free slots with what must be one job."""
        jobs = self.dispatch()
        assert len(jobs) == 1, f"{len(jobs)} jobs went out"
        return jobs[0]

    def pass_s(self, seconds: int, *workers: FakeWorker) -> None:
        """Seconds of the listening clock; each second these workers beat."""
        for _ in range(seconds):
            self.now_us += 1_000_000
            number = self.herd.mark()
            assert number is not None, "nobody else marks here"
            self.hear_mark(number)
            for worker in workers:
                worker.beat()

    def hear_mark(self, number: int) -> None:
        """A marker came round on the beats' stream."""
        self.herd.hear([Envelope(self.key.kid, "herder", Marker(number=number))])

    def lapse(self, seconds: int, *workers: FakeWorker) -> ClosingResult:
        """Seconds of the listening clock, then what lapsed is taken back."""
        self.pass_s(seconds, *workers)
        return self.settlement.lapse()

    # Then

    def order(self, order_id: str) -> Order:
        with self.database.read() as connection:
            found = order_sql.get_order(connection, order_id)
        assert found is not None
        return found

    def answer(self, order_id: str) -> str:
        with self.database.read() as connection:
            return order_sql.get_answer(connection, order_id)

    def kept(self, order_id: str) -> KeptText:
        with self.database.read() as connection:
            return get_kept_text(connection, order_id)

    def events(self, order_id: str) -> list[str]:
        query = select(event.c.kind).where(event.c.order_id == order_id).order_by(event.c.seq)
        with self.database.read() as connection:
            return list(connection.execute(query).scalars())

    def model(self, name: str = MODEL) -> model_sql.Model:
        with self.database.read() as connection:
            found = model_sql.get_model(connection, name)
        assert found is not None
        return found

    def worker_state(self, worker: FakeWorker) -> herd_sql.Worker:
        with self.database.read() as connection:
            found = herd_sql.get_worker(connection, worker.instance)
        assert found is not None
        return found

    def heard_s(self) -> int:
        with self.database.read() as connection:
            return herd_sql.heard_s(connection)

    def available(self, account: str = "default") -> int:
        return self.accounts.balance(account).available

    def held(self, account: str = "default") -> int:
        return self.accounts.balance(account).held

    def inbox(self, account: str = "default", after: int = 0) -> list[dict[str, str]]:
        """The tags of an account's messages."""
        return [one.tags for one in read_inbox(self.database, account, after, 100)]

    def traces(self) -> tuple[int, int, int, int, int]:
        """Rows that a submission leaves: orders, texts, events, outbox, holds."""
        with self.database.read() as connection:
            rows = [
                int(connection.execute(select(func.count()).select_from(table)).scalar_one())
                for table in (orders, order_text, event, outbox)
            ]
            holds = connection.exec_driver_sql(
                "SELECT count(*) FROM ledger_transfer WHERE kind = 'pending'"
            ).scalar_one()
        return rows[0], rows[1], rows[2], rows[3], int(holds)

    def outbox_rows(self) -> int:
        return self.traces()[3]

    def check(self) -> None:
        """What always holds: money is conserved, and a hold is resolved when its order ended."""
        check_money(self.database, self.books)

    def close(self) -> None:
        self.database.close()


def check_money(database: Database, books: ledger.Ledger) -> None:
    """The audit is clean, and orders and ledger tell the same story, order by order."""
    with database.read() as connection:
        report = books.audit(connection)
        assert report.clean, report.drifts
        found = [order_sql.to_order(row) for row in connection.execute(select(orders))]
        assert report.open_holds == sum(not order.state.ended for order in found)
        for order in found:
            _check_hold(connection, books, order)
        _check_answers(connection, found)
        held: dict[str, int] = {}
        for order in found:
            held[order.account] = held.get(order.account, 0) + order.held
        for key in key_sql.of_account(connection, None):
            bought = [order for order in found if order.api_key == key.id]
            assert key.held == sum(order.held for order in bought), f"held with {key.id}"
            charged = sum(order.charged for order in bought)
            assert key.charged == charged + _paid_with(connection, key.id), f"charged to {key.id}"
        for account, amount in held.items():
            balance = books.get_balance(connection, client_account(account))
            assert balance.pending == amount, f"held of {account}"
            assert balance.available >= 0


def _paid_with(connection: Any, key_id: str) -> int:
    """What was transferred to other accounts with an API key, by the ledger."""
    rows = connection.execute(
        text("SELECT amount FROM ledger_transfer WHERE kind = 'direct' AND tags = :tags"),
        {"tags": json.dumps({"api_key": key_id}, separators=(",", ":"))},
    )
    return sum(int(amount) for (amount,) in rows)


def _check_answers(connection: Any, found: Sequence[Order]) -> None:
    """Every order that came by a message and ended is answered once, and no other is.

    Messages are forgotten with the texts of their time.
    """
    told = Counter(connection.execute(select(message_rows.c.order_id)).scalars())
    del told[None]
    with_text = set(connection.execute(select(order_text.c.order_id)).scalars())
    ended = {order.id for order in found if order.message is not None and order.state.ended}
    assert set(told) <= ended, "an order was answered that had none coming"
    assert ended & with_text <= set(told), "an order ended and its message was not answered"
    assert set(told.values()) <= {1}


def _check_hold(connection: Any, books: ledger.Ledger, order: Order) -> None:
    hold = books.get_transfer(connection, order.hold_id)
    assert hold.kind == "pending"
    assert hold.amount == order.fee
    resolved = [
        books.get_transfer(connection, str(row.id))
        for row in connection.execute(
            text("SELECT id FROM ledger_transfer WHERE pending_id = :hold"), {"hold": order.hold_id}
        )
    ]
    if not order.state.ended:
        assert resolved == [], f"{order.id} is {order.state} and its hold is resolved"
        assert (order.charged, order.returned) == (0, 0)
        return
    assert order.charged + order.returned == order.fee
    assert 0 <= order.charged <= order.fee
    assert 0 <= order.refunded <= order.charged
    (one,) = resolved
    expected = ("post", order.charged) if order.charged else ("void", order.fee)
    assert (one.kind, one.amount) == expected


def stops(heard: HeartbeatResult, worker: FakeWorker) -> list[AttemptRef]:
    """The attempts that a worker was told to stop."""
    return [
        body.held
        for instance, body in heard.control
        if instance == worker.instance and isinstance(body, CancelAttempt)
    ]


def confirms(heard: HeartbeatResult, worker: FakeWorker) -> list[AttemptRef]:
    """The outcomes that a worker was told are settled."""
    return [
        held
        for instance, body in heard.control
        if instance == worker.instance and isinstance(body, Confirm)
        for held in body.held
    ]
