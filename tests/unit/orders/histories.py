"""Processes that use one herd at once, and what each of them asked, saw, and when.

Their clock is the machine's monotonic one, which is the same for all processes, ten times as fast:
leases and deadlines pass while they play.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from herder.domain.order import Order, State
from herder.errors import HerdError
from herder.herd.heartbeats import HeartbeatResult
from herder.orders.closing import ClosingResult
from herder.orders.dispatch import job_of
from herder.store import herd as herd_sql
from herder.store import orders as order_sql
from tests.support.house import FakeWorker, House
from workers.wire import CancelAttempt, Failure, InferenceJob, PrivateKey

SPEED = 10
SETTINGS: dict[str, Any] = {"claim_s": 4, "lease_s": 6, "max_attempts": 3, "max_dispatches": 10}
FUNDS = {"ada": 10**6, "bob": 10**6, "eve": 400}
LIMITED, MAX_OPEN = "bob", 5
WORDS = 2
KEYS = 40
PICKED_FROM = 25
BROKEN = Failure(code="broken", message="It went wrong.", permanent=True)
TROUBLE = Failure(code="trouble", message="It went wrong.", permanent=False)
RESULTS: list[dict[str, Any]] = [
    *({"finish_reason": "length"} for _ in range(5)),
    {"finish_reason": "cancelled"},
    {"result": "failed", "failure": TROUBLE},
    {"result": "failed", "failure": BROKEN},
    {"result": "handed_back"},
]


@dataclass(frozen=True)
class Game:
    """What all processes of a run have in common.

    Attributes:
        folder: the herd's home folder, where their histories are written too.
        url: the database.
        seed: of what they do.
        began_ns: the monotonic clock's time at the beginning.
        began_us: what the herd's clock showed then.
        shared_key: a worker's private key that each of them adds.
    """

    folder: str
    url: str
    seed: int
    began_ns: int
    began_us: int
    shared_key: dict[str, str]

    def clock_us(self, at_ns: int) -> int:
        return self.began_us + (at_ns - self.began_ns) * SPEED // 1000

    def at_ns(self, clock_us: int) -> int:
        return self.began_ns + (clock_us - self.began_us) * 1000 // SPEED


@dataclass
class Did:
    """A call: what was asked, what came back, and the instants before and after."""

    who: int
    call: str
    asked: dict[str, Any]
    began: int
    ended: int
    got: Any = None
    error: str | None = None


class Player(House):
    """One process: client, operator, herder and worker in turn."""

    def __init__(self, game: Game, number: int) -> None:
        self.game = game
        super().__init__(Path(game.folder), init=False, database_url=game.url, **SETTINGS)
        self.number = number
        self.chance = random.Random(f"{game.seed} {number}")
        self.history: list[Did] = []
        self.claimed: list[InferenceJob] = []
        self.me: FakeWorker

    def clock(self) -> int:
        return self.game.clock_us(time.monotonic_ns())

    def note(self, call: str, act: Callable[[], Any], **asked: Any) -> Any:
        """Do it, and write it down."""
        began = time.monotonic_ns()
        did = Did(self.number, call, asked, began, 0)
        try:
            did.got = act()
        except HerdError as refused:
            did.error = type(refused).__name__
        except Exception as error:  # noqa: BLE001 (what a caller must never see: it is judged)
            did.error = f"raw {error!r}"[:500]
        did.ended = time.monotonic_ns()
        self.history.append(did)
        return did.got

    def arrive(self) -> None:
        """Believe the key that all believe, and join the herd as a worker."""
        shared = PrivateKey.from_jwk(self.game.shared_key)
        self.note("add_key", lambda: self._believe(shared))
        self.me = self.worker(f"worker{self.number}", slots=1)

    def _believe(self, key: PrivateKey) -> None:
        with self.database.write() as connection:
            herd_sql.add_key(connection, herd_sql.WORKER, "shared", key.public, self.clock())

    def play(self, steps: int) -> None:
        acts = (self.ask, self.bid, self.call_off, self.serve, self.work, self.tick)
        for _ in range(steps):
            self.chance.choices(acts, (30, 15, 8, 17, 30, 8))[0]()

    # What clients do

    def ask(self) -> None:
        key = f"key {self.chance.randrange(KEYS)}" if self.chance.random() < 0.5 else None
        # The same key is the same call, whoever makes it.
        chance = self.chance if key is None else random.Random(f"{self.game.seed} {key}")
        tokens = chance.randint(1, 8)
        need = 1 + WORDS + tokens
        fee = need * chance.randint(1, 3) + chance.choice((0, 0, 1, 5))
        soon = key is None and chance.random() < 0.2
        start_by_us = self.clock() + chance.randint(1, 20) * 1_000_000 if soon else None
        account = chance.choice(["ada", "ada", "ada", "bob", "bob", "eve"])
        call = {"account": account, "fee": fee, "start_by_us": start_by_us}

        def submit() -> dict[str, Any]:
            order = self.submit("two words", tokens, idempotency_key=key, **call)
            return {"id": order.id}

        self.note("submit", submit, key=key, need=need, **call)

    def bid(self) -> None:
        order = self.pick(State.QUEUED)
        if order is None:
            return
        fee = order.fee + self.chance.randint(-2, 20)

        def rebid() -> dict[str, Any]:
            now = self.intake.rebid(order.id, fee)
            return {"fee": now.fee, "holds": now.holds}

        self.note("rebid", rebid, order=order.id, fee=fee)

    def call_off(self) -> None:
        order = self.pick(None)
        if order is not None:
            self._cancel(order.id)

    def _cancel(self, order_id: str) -> None:
        self.note("cancel", lambda: self.cancellation.cancel(order_id).state.value, order=order_id)

    def pick(self, state: State | None) -> Order | None:
        """One of the newest orders."""
        with self.database.read() as connection:
            found = order_sql.list_orders(connection, state=state, limit=PICKED_FROM)
        return self.chance.choice(found) if found else None

    # What herders and workers do

    def serve(self) -> None:
        self.note("dispatch", lambda: [[j.order, j.attempt, j.rank] for j in self.dispatch()])

    def work(self) -> None:
        """Take up a message, or answer one or two."""
        if not self.claimed or self.chance.random() < 0.5:
            order = self._mine() if self.chance.random() < 0.8 else self.pick(State.DISPATCHED)
            if order is not None:
                job = self._message(order)
                self.claimed.append(job)
                if self.chance.random() < 0.7:
                    self.note("claim", lambda: self._obey(self.me.claim(job)), order=order.id)
            return
        self.chance.shuffle(self.claimed)
        self.reply(self.chance.randint(1, 2))

    def _mine(self) -> Order | None:
        """One of the orders that this worker was sent and has yet to claim."""
        held = {job.order for job in self.claimed}
        mine = [
            order
            for order in self._those(State.DISPATCHED)
            if order.instance == self.me.instance and order.id not in held
        ]
        return self.chance.choice(mine) if mine else None

    def reply(self, most: int, **given: Any) -> None:
        jobs = [self.claimed.pop() for _ in range(min(most, len(self.claimed)))]
        answers = []
        for job in jobs:
            how = given or self.chance.choice(RESULTS)
            answers.append(
                self.me.answer(job, **{"generated": self.chance.randint(0, job.tokens), **how})
            )
        said = [[one.outcome.order, one.outcome.generated] for one in answers]
        answers += answers[: self.chance.randint(0, 1)]
        self.note("settle", lambda: _ended(self.settlement.settle(answers)), outcomes=said)

    def tick(self) -> None:
        number = self.note("mark", self.herd.mark)
        if number is not None:
            self.note("hear", lambda: self.hear_mark(number))
        self.note("beat", lambda: self._obey(self.me.beat()))
        self.note("lose", self.herd.sweep)
        self.note("lapse", lambda: _ended(self.settlement.lapse()))
        self.note("expire", lambda: _ended(self.cancellation.sweep()))
        self.note("tidy", lambda: _ended(self.dispatcher.sweep()))

    def _obey(self, heard: HeartbeatResult) -> int:
        """Stop what is void; what was called off is answered as any other."""
        void = [
            body.held
            for instance, body in heard.control
            if isinstance(body, CancelAttempt)
            and (instance, body.reason) == (self.me.instance, "void")
        ]
        self.me.held = [one for one in self.me.held if one not in void]
        return len(heard.control)

    def finish(self) -> None:
        """Serve for a while, then cancel what is left, and wait until everything has ended."""
        for _ in range(10):
            self.serve()
            for order in self._those(State.DISPATCHED):
                if order.instance != self.me.instance:
                    continue  # another's, who has left: it lapses, or is cancelled
                self.claimed.append(self._message(order))
            self.reply(len(self.claimed), finish_reason="length")
        while left := self._those(State.QUEUED, State.DISPATCHED, State.RUNNING):
            for order in left:
                if order.call_off is None:
                    self._cancel(order.id)
            self.tick()

    def _message(self, order: Order) -> InferenceJob:
        """What went out about an order, as far as a worker looks at it."""
        call = self.call()
        return job_of(order, order_sql.StoredRequest(call.prompt, call.stop, call.sampling))

    def _those(self, *states: State) -> list[Order]:
        with self.database.read() as connection:
            return [
                order
                for state in states
                for order in order_sql.list_orders(connection, state=state, limit=1000)
            ]


def _ended(done: ClosingResult) -> list[str]:
    return done.ended


def play(game: Game, number: int, steps: int, start: Any) -> None:
    """A process's life: its history is a file in the herd's folder."""
    player = Player(game, number)
    start.wait(120)  # that they do not begin one after the other
    player.arrive()
    player.play(steps)
    player.close()
    path = Path(game.folder) / f"history{number}.json"
    path.write_text(json.dumps([asdict(did) for did in player.history]))


def read_history(game: Game, number: int) -> list[Did]:
    path = Path(game.folder) / f"history{number}.json"
    return [Did(**did) for did in json.loads(path.read_text())]
