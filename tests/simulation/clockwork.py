"""Simulated time: who does what next, where processes stand still or die, and the history of it.

Steps are taken one at a time, in the order of a heap; a process that stands still in the middle of
a step lets the others go on from there, so that what it had read before is old when it wakes up.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable
from itertools import count
from random import Random
from typing import Any

from tests.simulation.tally import ALL, BESIDES
from tests.simulation.weather import CALM, Weather

START_US = 1_800_000_000_000_000
DEEPEST = 3
"""Steps within steps: who stands still while somebody stands still."""
BUSY_US = 20_000
"""After which a thread that is in the middle of a step is looked for again."""
MAX_KEPT = 200_000
"""Lines of history at most."""


class Crash(BaseException):
    """The process that runs died here."""


class Broken(BaseException):
    """A rule was broken. No `except Exception` of the herder's may swallow it."""

    def __init__(self, rule: str, what: str) -> None:
        super().__init__(f"{rule}: {what}")
        self.rule = rule
        self.what = what


class Process:
    """A process on a machine. It lives once: who comes after it is another."""

    mortal = True

    def __init__(self, time: Clockwork, name: str, machine: str | None = None) -> None:
        self.time = time
        self.name = name
        self.machine = machine or name
        self.alive = True
        self.stopped_until_us = 0
        self.cut_off_until_us = 0
        """Until then it goes on, and nothing that it sends or is sent arrives."""

    def clock_us(self) -> int:
        """The machine's clock, which may be wrong."""
        return self.time.now_us + self.time.skews.get(self.machine, 0)

    def die(self) -> None:
        """End at once; whatever it was about to do does not happen."""
        if self.alive:
            self.alive = False
            self.on_death()

    def on_death(self) -> None:
        """Whoever watches over it sees to what comes next."""


class Environment(Process):
    """What does not die: the network, the operator, the weather."""

    mortal = False


class Thread:
    """One thing that a process does at a time."""

    __slots__ = ("busy", "faults", "name", "process", "rests_until_us")

    def __init__(self, process: Process, name: str = "") -> None:
        self.process = process
        self.name = f"{process.name}.{name}" if name else process.name
        self.busy = False
        self.rests_until_us = 0
        self.faults = 0
        """How many there had been when its step began."""


class Clockwork:
    """The simulated time, and all that is going to happen."""

    def __init__(self, rng: Random, weather: Weather, stop_us: int) -> None:
        """Begin.

        Args:
            rng: decides everything.
            weather: how much goes wrong.
            stop_us: for how long a process stands still that is stopped: longer than a lease.
        """
        self.rng = rng
        self.weather = weather
        self.now_us = START_US
        self.skews: dict[str, int] = {}
        self.set_us: dict[str, int] = {}
        """When a machine's clock was set for the last time."""
        self.history: list[tuple[int, str, str]] = []
        self.tally: Counter[str] = Counter()
        """How often each kind of `tally.KINDS` occurred."""
        self.faults = 0
        """What was made to fail so far: an error is unexpected where none was."""
        self.steps = 0
        self._stop_us = stop_us
        self._heap: list[tuple[int, int, Thread, Callable[[], None]]] = []
        self._count = count()
        self._stack: list[Thread] = []

    # Time

    def clock_s(self) -> float:
        """Seconds that only rise."""
        return (self.now_us - START_US) / 1_000_000

    def clock_us(self) -> int:
        """The clock of the machine of whoever runs, which may be wrong."""
        return self._stack[-1].process.clock_us() if self._stack else self.now_us

    def set_clock(self, machine: str, skew_us: int) -> None:
        """Have a machine's clock go wrong by so much."""
        self.skews[machine] = skew_us
        self.set_us[machine] = self.now_us

    def set_clocks_right(self) -> None:
        """All of them."""
        for machine in list(self.skews):
            self.set_clock(machine, 0)

    def after(self, delay_us: int, thread: Thread, do: Callable[[], None]) -> None:
        """Have a thread take a step later."""
        heapq.heappush(self._heap, (self.now_us + delay_us, next(self._count), thread, do))

    def run(self, until_us: int) -> None:
        """Take all steps until then."""
        while self._step(until_us):
            pass
        self.now_us = max(self.now_us, until_us)

    def _step(self, until_us: int) -> bool:
        heap = self._heap
        while heap and heap[0][0] <= until_us:
            at_us, number, thread, do = heapq.heappop(heap)
            process = thread.process
            if not process.alive:
                continue
            at_us = max(at_us, self.now_us)
            free_us = max(process.stopped_until_us, thread.rests_until_us)
            if thread.busy:
                free_us = max(free_us, at_us + BUSY_US)
            if free_us > at_us:
                # Its number stays: what waits together goes on in its old order.
                heapq.heappush(heap, (free_us, number, thread, do))
                continue
            self.now_us = at_us
            self._take(thread, do)
            return True
        return False

    def _take(self, thread: Thread, do: Callable[[], None]) -> None:
        self.steps += 1
        thread.busy = True
        thread.faults = self.faults
        self._stack.append(thread)
        try:
            do()
        except Crash:
            assert not thread.process.alive, "only the dead crash"
        finally:
            self._stack.pop()
            thread.busy = False

    @property
    def cut_off(self) -> bool:
        """Whether the process that runs has lost its network."""
        return bool(self._stack) and self._stack[-1].process.cut_off_until_us > self.now_us

    @property
    def who(self) -> str:
        """The thread that runs."""
        return self._stack[-1].name if self._stack else "the test"

    def monotonic(self) -> float:
        """As the standard library's `time`, for modules that are given this clock for it."""
        return self.clock_s()

    def sleep(self, seconds: float) -> None:
        """Let the thread that runs wait in the middle of its step while the others go on."""
        if seconds <= 0 or not self._stack:
            return
        process = self._stack[-1].process
        until_us = self.now_us + int(seconds * 1_000_000)
        while self.now_us < until_us and process.alive:
            if len(self._stack) < DEEPEST:
                self.run(until_us)
            else:
                # Too many wait already, each for the one that came after it.
                self.now_us = until_us
            until_us = max(until_us, process.stopped_until_us)
        if not process.alive:
            raise Crash

    # What goes wrong

    def chance(self, probability: float) -> bool:
        """Whether something happens that happens so often."""
        return probability > 0 and self.rng.random() < probability

    def point(self, where: str, kind: str, *, inside: bool = False) -> None:
        """A place where the process that runs may die, or stand still while the others go on.

        Args:
            where: in words, for the history.
            kind: what is counted if it dies there.
            inside: of a transaction, where nobody else could go on.
        """
        if self.weather is CALM or not self.mortal:
            return
        if self.doomed():
            self.crash(where, kind)
        if not inside and len(self._stack) < DEEPEST and self.chance(self.weather.stall):
            self._stand_still(self._stack[-1], where)

    def crash(self, where: str, kind: str) -> None:
        """The process that runs dies.

        Raises:
            Crash: always.
        """
        self.count(kind)
        self.note(f"dies {where}")
        self._stack[-1].process.die()
        raise Crash

    def _stand_still(self, thread: Thread, where: str) -> None:
        process = thread.process
        if self.rng.random() < 0.15:
            for_us = self.rng.randint(self._stop_us // 2, 2 * self._stop_us)
            process.stopped_until_us = self.now_us + for_us
            self.count("a process is stopped in the middle")
            self.note(f"is stopped {where} for {for_us / 1e6:.1f} s")
        else:
            for_us = self.rng.randint(1_000, 300_000)
            self.count("a process stands for a moment")
            self.note(f"stands {where} for {for_us // 1000} ms")
        self.run(self.now_us + for_us)
        if not process.alive:
            raise Crash
        self.note("goes on")

    @property
    def troubled(self) -> bool:
        """Whether anything was made to fail since the step at hand began."""
        return not self._stack or self._stack[-1].faults < self.faults

    def doomed(self) -> bool:
        """Whether the process that runs is about to die, as processes do."""
        return self.mortal and self.chance(self.weather.crash)

    @property
    def mortal(self) -> bool:
        """Whether what runs is a process that things may happen to."""
        return bool(self._stack) and self._stack[-1].process.mortal

    def fault(self, what: str) -> None:
        """Something was made to fail."""
        self.faults += 1
        self.note(what)

    # History

    def count(self, kind: str) -> None:
        """Something of a kind that is counted occurred."""
        assert kind in ALL or kind in BESIDES, kind
        self.tally[kind] += 1

    def note(self, what: str, who: str | None = None) -> None:
        """A line of history."""
        if len(self.history) < MAX_KEPT:
            self.history.append((self.now_us, who or self.who, what))

    def lines(self) -> list[str]:
        """The history as people read it."""
        return [
            f"{(at_us - START_US) / 1e6:9.3f}  {who:<12} {what}"
            for at_us, who, what in self.history
        ]

    # Ids

    def new_id(self) -> str:
        """A UUID of the seed's."""
        text = f"{self.rng.getrandbits(128):032x}"
        return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-a{text[17:20]}-{text[20:]}"

    def new_nonce(self) -> str:
        """A secret of the seed's."""
        return f"{self.rng.getrandbits(96):024x}"


class Log:
    """Stands in for the herder's loggers: lines of history, and no error goes unseen."""

    def __init__(self, time: Clockwork) -> None:
        self._time = time

    def info(self, event: str, **fields: Any) -> None:
        self._time.note(f"log {event} {_short(fields)}")

    debug = info
    warning = info

    def error(self, event: str, **fields: Any) -> None:
        self.info(event, **fields)
        if not self._time.troubled:
            raise Broken("unexpected", f"{event} {_short(fields)}")

    exception = error


def _short(fields: dict[str, Any]) -> str:
    return " ".join(f"{name}={str(value)[:60]}" for name, value in fields.items())
