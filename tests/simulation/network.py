"""The broker and Redis of a seed: they lose, repeat, delay and reorder, are away, and are wiped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from redis import ConnectionError as RedisConnectionError

from tests.simulation.clockwork import Clockwork, Environment, Process, Thread
from tests.simulation.rules import Rules
from tests.simulation.truth import Truth, peek
from workers.transport.delivery import Delivery, Reach
from workers.transport.streams import TextPiece
from workers.transport.tasks import NewTask
from workers.wire import HELLO_TASK, HERDER_QUEUE, INFERENCE_QUEUE

NUDGE_TTL_US = 1_000_000


class Taker(Protocol):
    """Whoever reads a queue."""

    thread: Thread

    def ready(self) -> bool:
        """Whether it would take a message now."""

    def take(self, task: NewTask) -> None:
        """A message for it."""


class Network:
    """What broker and Redis have in common: they are away at times, and are wiped."""

    def __init__(self, time: Clockwork, rules: Rules, name: str) -> None:
        self.time = time
        self.rules = rules
        self.thread = Thread(Environment(time, name))
        self.away_until_us = 0
        self._wipes = 0
        self._sent = 0
        self._newest = 0
        """The message that was sent last of all that arrived."""

    def wipe(self) -> None:
        """Forget everything, what is on its way included."""
        self._wipes += 1

    def _away(self) -> bool:
        return self.time.now_us < self.away_until_us or self.time.cut_off

    def _carry(self, arrive: Callable[[], None]) -> None:
        """Bring something on its way: it may be lost, come twice, or be overtaken."""
        time, weather = self.time, self.time.weather
        if time.chance(weather.lose):
            time.note("a message is lost", self.thread.name)
            time.count("a message is lost")
            return
        wipes = self._wipes
        self._sent += 1
        number = self._sent

        def come() -> None:
            if wipes != self._wipes:
                return
            if number < self._newest:
                time.count("a message is overtaken")
            self._newest = max(number, self._newest)
            arrive()

        times = 2 if time.chance(weather.repeat) else 1
        if times > 1:
            time.count("a message is repeated")
        for _ in range(times):
            slow = time.chance(weather.delay)
            if slow:
                time.count("a message is delayed")
            delay_us = time.rng.randint(200_000, 9_000_000) if slow else time.rng.randint(200, 8000)
            time.after(delay_us, self.thread, come)


class Broker(Network):
    """Celery's broker, as its senders see it."""

    def __init__(self, time: Clockwork, rules: Rules, truth: Truth) -> None:
        super().__init__(time, rules, "broker")
        self._truth = truth
        self.takers: dict[str, list[Taker]] = {INFERENCE_QUEUE: [], HERDER_QUEUE: []}
        self._queues: dict[str, list[NewTask]] = {INFERENCE_QUEUE: [], HERDER_QUEUE: []}

    def publish_many(self, tasks: Sequence[NewTask]) -> None:
        """Take messages.

        Raises:
            ConnectionError: it is away; some of them may have arrived.
        """
        time, weather = self.time, self.time.weather
        self.rules.published(tasks)
        time.point("before it publishes", "a process dies before a publish")
        if self._away():
            time.fault("finds no broker")
            raise ConnectionError("the broker is out of reach")
        dies, breaks = time.doomed(), time.chance(weather.cut)
        arrive = time.rng.randint(0, len(tasks)) if dies or breaks else len(tasks)
        for task in tasks[:arrive]:
            if task.task != HELLO_TASK:
                self._truth.published.add(_attempt_of(task))
            self._carry(partial(self._arrive, task))
        if dies:
            time.crash(f"with {arrive} of {len(tasks)} published", "a process dies amid a publish")
        if breaks:
            time.count("the broker goes away amid a publish")
            time.fault(f"loses the broker with {arrive} of {len(tasks)} published")
            raise ConnectionError("the broker went away")
        time.point("after it published", "a process dies after a publish")

    def _arrive(self, task: NewTask) -> None:
        queue = self._queues.setdefault(task.queue, [])
        # Priorities are a hint: the broker keeps to them as it likes.
        place = self.time.rng.randint(0, len(queue))
        if place < len(queue):
            self.time.count("a queue is reordered")
        queue.insert(place, task)
        self.pump(task.queue)

    def pump(self, name: str) -> None:
        """Give what waits to whoever is ready for it."""
        queue = self._queues.get(name, [])
        while queue:
            ready = [taker for taker in self.takers.get(name, ()) if taker.ready()]
            if not ready:
                return
            ready[self.time.rng.randrange(len(ready))].take(queue.pop(0))

    def wipe(self) -> None:
        super().wipe()
        for queue in self._queues.values():
            queue.clear()


class Redis(Network):
    """The streams of `workers.transport.streams.Streams`, and the control streams' readers."""

    def __init__(self, time: Clockwork, rules: Rules, truth: Truth) -> None:
        super().__init__(time, rules, "redis")
        self._truth = truth
        self._beats: list[tuple[int, str, bool]] = []
        self._read = -1
        """How many beats the group has read; -1: there is no group."""
        self._nudged: dict[str, int] = {}
        self._delivered: dict[tuple[str, int], dict[str, Reach]] = {}
        self.listeners: list[Callable[[], None]] = []
        self.readers: dict[str, tuple[Process, Callable[[str], None]]] = {}

    def _call(self, do: Callable[[], None], what: str) -> None:
        """A command: it arrives, or not, or does and its answer is lost."""
        time = self.time
        time.point(f"before it sends {what}", "a process dies before it sends to Redis")
        if self._away():
            time.fault(f"finds no Redis for {what}")
            raise RedisConnectionError("Redis is out of reach")
        breaks = time.chance(time.weather.cut)
        if not breaks or time.rng.random() < 0.5:
            do()
        if breaks:
            time.count("Redis goes away amid a command")
            time.fault(f"loses Redis over {what}")
            raise RedisConnectionError("Redis went away")
        time.point(f"after it sent {what}", "a process dies after it sent to Redis")

    # As in Streams

    def add_beat(self, token: str) -> None:
        mark = token_is_mark(token)
        self._call(
            lambda: self._carry(lambda: self._beat(token, mark)), "a marker" if mark else "a beat"
        )

    def _beat(self, token: str, mark: bool) -> None:
        at_us = self.time.now_us // 1000 * 1000 + self.time.skews.get("redis", 0)
        self._beats.append((at_us, token, mark))
        for listener in self.listeners:
            listener()

    def read_beats(
        self,
        consumer: str,  # noqa: ARG002 (all of them are one group)
        *,
        count: int,
        block_ms: int,  # noqa: ARG002 (what comes later is looked for later)
    ) -> list[tuple[int, str]]:
        if self._away():
            self.time.fault("finds no Redis for beats")
            raise RedisConnectionError("Redis is out of reach")
        if self._read < 0:
            self._read = 0
            return []
        found = self._beats[self._read : self._read + count]
        self._read += len(found)
        self._truth.markers += sum(mark for _, _, mark in found)
        if found:
            self.time.point("with beats that it read", "a herder dies with beats that it read")
        return [(at_us, token) for at_us, token, _ in found]

    @property
    def unread(self) -> bool:
        """Whether a herder would be given something."""
        return self._read < len(self._beats)

    def add_controls(self, messages: Sequence[tuple[str, str]]) -> None:
        for instance, token in messages:
            self.rules.told(instance, token)

        def send() -> None:
            for instance, token in messages:
                self._carry(partial(self._tell, instance, token))

        self._call(send, "control")

    def _tell(self, instance: str, token: str) -> None:
        process, read = self.readers.get(instance, (None, None))
        if process is None or read is None:
            return
        # A control stream keeps what comes while nobody reads it.
        wait_us = max(0, process.cut_off_until_us - self.time.now_us)
        if wait_us:
            wipes = self._wipes

            def later() -> None:
                if wipes == self._wipes:
                    self._tell(instance, token)

            self.time.after(wait_us, self.thread, later)
        else:
            read(token)

    def read_text(
        self,
        order: str,
        attempt: int,
        after: str,
        *,
        block_ms: int,  # noqa: ARG002 (what comes later is looked for later)
    ) -> list[TextPiece]:
        if self._away():
            self.time.fault("finds no Redis for a text")
            raise RedisConnectionError("Redis is out of reach")
        text, generated = self._truth.text_so_far(order, attempt)
        begin = int(after)
        if len(text) <= begin:
            return []
        return [TextPiece(str(len(text)), begin, text[begin:], generated, False)]

    def note_deliveries(self, deliveries: Sequence[Delivery]) -> None:
        def write() -> None:
            for one in deliveries:
                self._truth.note(one)
                readers = self._delivered.setdefault((one.order, one.attempt), {})
                known = readers.get(one.reader, Reach())
                # Who leaves may take back what it was not given after all.
                readers[one.reader] = one.reach if one.has_left else max(known, one.reach)

        self._call(write, "a delivery")

    def delivered(self, attempts: Sequence[tuple[str, int]]) -> list[Reach]:
        if self._away():
            self.time.fault("finds no Redis for deliveries")
            raise RedisConnectionError("Redis is out of reach")
        return [max(self._delivered.get(one, {}).values(), default=Reach()) for one in attempts]

    def announce_ended(self, orders: Sequence[str]) -> None:
        self.rules.announced(orders)
        self._call(lambda: None, "the end of orders")

    def announce_inboxes(self, accounts: Sequence[str]) -> None:
        self.rules.told_of(accounts)

    def first_nudge(self, model: str) -> bool:
        if self._away():
            self.time.fault("finds no Redis for a nudge")
            raise RedisConnectionError("Redis is out of reach")
        if self._nudged.get(model, 0) > self.time.now_us:
            return False
        self._nudged[model] = self.time.now_us + NUDGE_TTL_US
        return True

    def nudge_arrived(self, model: str) -> None:
        self._call(lambda: self._forget_nudge(model), "that a nudge arrived")

    def _forget_nudge(self, model: str) -> None:
        self._nudged.pop(model, None)

    def wipe(self) -> None:
        super().wipe()
        self._beats.clear()
        self._nudged.clear()
        self._delivered.clear()
        self._truth.forget_readers()
        self._read = -1


def token_is_mark(token: str) -> bool:
    """Whether it is a marker of the listening clock."""
    return peek(token)[0] == "marker"


def _attempt_of(task: NewTask) -> tuple[str, int]:
    order_id, _, attempt = task.task_id.partition(".")
    return order_id, int(attempt or 0)


def machine_is_up(process: Process) -> bool:
    """Whether it lives, does not stand still, and hears."""
    quiet_until_us = max(process.stopped_until_us, process.cut_off_until_us)
    return process.alive and quiet_until_us <= process.time.now_us
