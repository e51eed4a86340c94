"""A herder of a seed: the real parts, whose steps are taken when simulated time says so."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

from redis import RedisError

import herder.db.database as database_module
import herder.db.outages as outages_module
import herder.service.loop as service_module
from herder.accounts.accounts import open_ledger
from herder.errors import HerdUnavailable
from herder.herd.heartbeats import HeartbeatProcessor
from herder.herd.hellos import Greeter
from herder.herd.trusted_keys import TrustedKeys
from herder.orders.cancellation import Cancellation
from herder.orders.dispatch import Dispatcher
from herder.orders.intake import OrderIntake
from herder.orders.settlement import Settlement
from herder.service.loop import Service
from herder.service.tasks import make_guard, register
from herder.settings import Settings
from tests.simulation.clockwork import Broken, Clockwork, Process, Thread
from tests.simulation.database import SimDatabase
from tests.simulation.keys import HERDER_KEY
from tests.simulation.network import Broker, Redis, machine_is_up
from workers.transport.streams import Streams
from workers.transport.tasks import NewTask
from workers.wire import HERDER_QUEUE, WireError

TICK_US = 1_000_000
BEATS_APART_US = 100_000
REST_US = 1_000_000
"""After an error, as in `Service`."""


@dataclass(frozen=True)
class Parts:
    """The classes that a herder and a client are made of; a planted fault replaces one."""

    intake: type[OrderIntake] = OrderIntake
    cancellation: type[Cancellation] = Cancellation
    settlement: type[Settlement] = Settlement
    dispatcher: type[Dispatcher] = Dispatcher
    herd: type[HeartbeatProcessor] = HeartbeatProcessor
    service: type[Service] = Service


@dataclass(frozen=True)
class Room:
    """What a herder needs around it."""

    time: Clockwork
    database: SimDatabase
    broker: Broker
    redis: Redis
    settings: Settings
    parts: Parts


class SimHerder(Process):
    """One herder's process, with its threads."""

    def __init__(self, room: Room, name: str, number: int, on_death: Callable[[], None]) -> None:
        super().__init__(room.time, f"{name}.{number}", machine=name)
        self._room = room
        self._on_death = on_death
        parts, clock_us = room.parts, self.clock_us
        books = open_ledger(clock_us)
        keys = TrustedKeys(room.database, clock_s=room.time.clock_s)
        common: Any = {"clock_us": clock_us}
        self._failures: list[Exception] = []
        self.service = parts.service(
            database=room.database,
            settlement=parts.settlement(
                room.database, books, room.settings, cast("Streams", room.redis), **common
            ),
            cancellation=parts.cancellation(
                room.database, books, room.settings, cast("Streams", room.redis), **common
            ),
            dispatcher=parts.dispatcher(
                room.database,
                books,
                room.settings,
                HERDER_KEY,
                room.broker,
                new_nonce=room.time.new_nonce,
                **common,
            ),
            herd=parts.herd(room.database, room.settings, **common),
            streams=cast("Streams", room.redis),
            key=HERDER_KEY,
            keys=keys,
            name=self.name,
            clock_us=clock_us,
            clock_s=room.time.clock_s,
            upkeep=[Greeter(room.database, HERDER_KEY, room.broker, **common).duty],
            on_failure=lambda _name, error: self._failures.append(error),
        )
        self._celery = _CelerySide(self.service, keys)
        self.thread = Thread(self, "celery")
        self._working = Thread(self, "work")
        self._listening = Thread(self, "beats")
        self._ticking = Thread(self, "tick")
        self._works = False
        self._listens = False

    def start(self) -> None:
        """Begin to work."""
        self._room.broker.takers[HERDER_QUEUE].append(self)
        self._room.redis.listeners.append(self._listen_soon)
        self.time.after(self.time.rng.randint(0, TICK_US), self._ticking, self._tick)
        self.time.after(0, self.thread, lambda: self._room.broker.pump(HERDER_QUEUE))
        self._listen_soon()

    def on_death(self) -> None:
        self._room.broker.takers[HERDER_QUEUE].remove(self)
        self._room.redis.listeners.remove(self._listen_soon)
        self._on_death()

    # What comes in

    def ready(self) -> bool:
        """Whether it reads the queue."""
        return machine_is_up(self)

    def take(self, task: NewTask) -> None:
        """A message of the queue; from here on the broker has forgotten it."""
        self.time.after(
            self.time.rng.randint(100, 2000), self.thread, lambda: self._call_back(task)
        )

    def _call_back(self, task: NewTask) -> None:
        try:
            self._celery.run(task)
        except (WireError, HerdUnavailable) as error:
            # As Celery's consumer behind its guard: the database may be asked for keys.
            self.time.note(f"refuses a message: {error.code}")
            return
        self._work_soon()

    # Its threads

    def _work_soon(self) -> None:
        if not self._works:
            self._works = True
            self.time.after(self.time.rng.randint(0, 4000), self._working, self._work)

    def _work(self) -> None:
        self._works = False
        if self._step(self._working, lambda: self.service.work(0)):
            self._work_soon()

    def _listen_soon(self) -> None:
        if not self._listens:
            self._listens = True
            delay_us = self.time.rng.randint(1000, BEATS_APART_US)
            self.time.after(delay_us, self._listening, self._listen)

    def _listen(self) -> None:
        self._listens = False
        self._step(self._listening, lambda: self.service.listen(0))
        if self._room.redis.unread:
            self._listen_soon()
        self._work_soon()

    def _tick(self) -> None:
        self.time.after(TICK_US, self._ticking, self._tick)
        self._step(self._ticking, self.service.tick)
        self._listen_soon()
        self._work_soon()

    def _step(self, thread: Thread, step: Callable[[], object]) -> bool:
        """A step, as `Service` takes it: after an error it rests.

        What failed behind a wall of the service is judged alike, and the thread goes on.
        """
        self._failures.clear()
        try:
            went = bool(step())
        except Exception as error:  # noqa: BLE001 (judged below)
            self._failures.append(error)
            went = False
            thread.rests_until_us = self.time.now_us + REST_US
        for error in self._failures:
            self._judge(thread, error)
        return went

    def _judge(self, thread: Thread, error: Exception) -> None:
        if isinstance(error, RedisError | HerdUnavailable | OSError):
            self.time.note(f"out of reach: {str(error)[:60]}")
            return
        if not self.time.troubled:
            raise Broken("unexpected", f"{thread.name}: {error!r}"[:300]) from error
        self.time.note(f"step failed: {type(error).__name__}")


class _CelerySide:
    """The tasks of `herder.service.tasks` behind their guard, without Celery."""

    def __init__(self, service: Service, keys: TrustedKeys) -> None:
        self.herd_guard = make_guard(lambda: keys)
        self._tasks: dict[str, Callable[[Any, str], None]] = {}
        register(cast("Any", self), lambda: service)

    def task(self, *, name: str, bind: bool) -> Callable[[Any], Any]:  # noqa: ARG002
        """Stands in for Celery's decorator."""

        def keep(function: Any) -> Any:
            self._tasks[name] = function
            return function

        return keep

    def run(self, task: NewTask) -> None:
        """Let a message in, if it is ours, and run its task."""
        message = SimpleNamespace(
            content_type="application/json",
            headers={"task": task.task, "id": task.task_id},
            body=json.dumps([[task.token], {}, {}]),
        )
        self.herd_guard.admit(message)
        request = SimpleNamespace(request=SimpleNamespace(id=message.headers["id"]))
        self._tasks[task.task](request, task.token)


_WAITS: tuple[tuple[Any, str, Any], ...] = (
    (service_module, "LINGER_S", 0.0),
    (service_module, "NUDGES_APART_S", 0.0),
    (database_module, "PAUSES_S", (0.0, 0.0)),
)


@contextmanager
def no_waits(time: Clockwork) -> Iterator[None]:
    """What waits in real time does not: a step that is taken by hand gathers nothing.

    Who asks a database again that is away waits in simulated time.
    """
    waits = (*_WAITS, (database_module, "time", time), (outages_module, "time", time))
    before = [(module, name, getattr(module, name)) for module, name, _ in waits]
    for module, name, value in waits:
        setattr(module, name, value)
    try:
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)
