"""A herder at work: what its threads do, as steps that a test or a simulator can take one by one.

`work` settles the outcomes that wait, all together, and fills the slots that came free; `listen`
takes in a batch of beats. Duties do the rest, each on a thread of its own: they move the listening
clock and stand behind every event that was lost. `tick` does those that are due one after the
other, each behind its wall.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import structlog
from redis import RedisError

from herder.db.database import Database
from herder.duties.records import DutyGuard, Tally
from herder.duties.runner import OUTAGES, Duty, Runner, each_alone, spread
from herder.herd.heartbeats import HeartbeatProcessor, HeartbeatResult
from herder.herd.hellos import HELLO
from herder.herd.trusted_keys import TrustedKeys
from herder.orders.cancellation import Cancellation
from herder.orders.closing import ClosingResult
from herder.orders.dispatch import MAX_AT_ONCE, Dispatched, Dispatcher
from herder.orders.settlement import ReceivedOutcome, Settlement
from herder.service.announcer import Announcer
from herder.service.beats import BeatReader
from herder.store.duties import Counts
from workers.transport.loops import Failures, Loop
from workers.transport.reasons import reason_of
from workers.transport.streams import Streams
from workers.wire import PrivateKey

_log = structlog.get_logger("herder.service.loop")

MAX_ANSWERS = 200
"""Outcomes settled in one transaction at most."""

MAX_WAITING = 10_000
"""Outcomes that may wait in a herder; the rest is dropped, and sent again by its workers."""

THICK = 3
LINGER_S = 0.012
"""After a batch of at least `THICK` outcomes, the wait to collect the next one."""
NUDGES_APART_S = 0.03
"""The same for submissions to a herd with free slots, after the first."""

BEATS_APART_S = 0.1
"""Beats are read this often at most: many short orders are settled before their claims are read,
which then need no transaction."""

COUNT_EVERY_S = 5.0
"""The pause between writes of the duties' counts."""

RETRY_S = (0.1, 1.0)
"""Seconds after a failure before the first further try, and at most: orders wait behind it."""

STOP_S = 10.0
"""The time that a herder that stops waits for its threads, all together."""

WORK, BEATS, DISPATCH = "work", "beats", "dispatch"
"""Other work that is counted as duties, though something else sets its pace."""


class Service:
    """One herder. Any number of them may run on one database."""

    def __init__(
        self,
        *,
        database: Database,
        settlement: Settlement,
        cancellation: Cancellation,
        dispatcher: Dispatcher,
        herd: HeartbeatProcessor,
        streams: Streams,
        key: PrivateKey,
        keys: TrustedKeys,
        name: str,
        clock_us: Callable[[], int],
        clock_s: Callable[[], float] = time.monotonic,
        upkeep: Sequence[Duty] = (),
        on_failure: Callable[[str, Exception], object] | None = None,
    ) -> None:
        """Put a herder together; `start` begins its threads.

        Args:
            database: where guards and counts stand.
            settlement: of what comes back from workers.
            cancellation: of orders whose time is up.
            dispatcher: sends orders out.
            herd: hears the workers.
            streams: of beats, control and ends.
            key: the herders'.
            keys: whom to believe.
            name: this herder's, among all.
            clock_us: the time, in microseconds since the epoch.
            clock_s: a clock that only rises, in seconds.
            upkeep: duties besides those about orders (`herder/service/upkeep.py`).
            on_failure: is told what failed behind a wall, and how.
        """
        self._settlement = settlement
        self._cancellation = cancellation
        self._clock_s = clock_s
        self._dispatcher = dispatcher
        self._herd = herd
        self._streams = streams
        self._name = name
        self._on_failure = on_failure
        self._changed = threading.Condition()
        self._answers: list[ReceivedOutcome] = []
        self._models: set[str] = set()
        self._nudged: set[str] = set()
        self._resting: dict[str, tuple[Failures, float]] = {}
        self._worked_s = float("-inf")
        self._last_batch = 0
        self._stopping = threading.Event()
        self._loops: list[Loop] = []
        self.duties = (*self._duties(database), *upkeep)
        self.tally = Tally([WORK, BEATS, DISPATCH, *(duty.name for duty in self.duties)])
        self._announcer = Announcer(streams, key, clock_us)
        self._beats = BeatReader(
            streams, herd, keys, name, clock_us, self._act_on, partial(self._failed, BEATS)
        )
        guard = DutyGuard(database, name, clock_us)
        self._runners = [Runner(duty, self.tally, guard, clock_s=clock_s) for duty in self.duties]

    def _duties(self, database: Database) -> list[Duty]:
        """Return those about orders and workers, in the order in which `tick` does them."""

        def count(_limit: int) -> bool:
            self.tally.write(database)
            return False

        return [
            Duty("mark", self._mark),
            Duty("workers", self._lose_workers),
            Duty("lapse", self._lapse),
            Duty("expire", self._expire),
            Duty("outbox", self._sweep_outbox),
            Duty("refill", self._refill),
            Duty("counts", count, period_s=COUNT_EVERY_S),
        ]

    # What comes in, on any thread

    def answer(self, answers: Sequence[ReceivedOutcome]) -> None:
        """Outcomes came; they are settled with the others that wait."""
        with self._changed:
            if len(self._answers) >= MAX_WAITING:
                _log.warning("outcomes_pile_up", waiting=len(self._answers))
                return
            self._answers.extend(answers)
            self._changed.notify()

    def wake(self, models: Iterable[str]) -> None:
        """Something may go out for these models."""
        with self._changed:
            self._models.update(models)
            self._changed.notify()

    def nudged(self, model: str) -> None:
        """Note that a client submitted an order of this model."""
        with self._changed:
            self._nudged.add(model)
        self.wake([model])

    # Steps

    def work(self, wait_s: float) -> bool:
        """Settle what waits and fill free slots; False if nothing came within `wait_s`."""
        with self._changed:
            self._gather(wait_s)
            answers = self._answers[:MAX_ANSWERS]
            del self._answers[:MAX_ANSWERS]
            models, self._models = self._models, set()
        if not answers and not models:
            return False
        self._last_batch, begin_s = len(answers), self._clock_s()
        settled = self._settle(answers) if answers else ClosingResult()
        # The free slots first: what the workers and clients are told can wait for a moment.
        for model in sorted(models | settled.models):
            self._try_to_fill(model)
        self._announcer.tell(settled)
        self._worked_s = self._clock_s()
        self._note(WORK, begin_s)
        return True

    def _try_to_fill(self, model: str) -> None:
        """Fill a model's slots; one that fails holds up no other, nor what is to be told.

        It then rests for a moment, however often it is woken; `refill` stands behind it.
        """
        failures, until_s = self._resting.get(model, (None, 0.0))
        if failures is not None and self._clock_s() < until_s:
            return
        try:
            self._fill(model)
        except Exception as error:  # noqa: BLE001 (logged and counted)
            if failures is None:
                failures = Failures(
                    DISPATCH, outages=OUTAGES, retry_s=RETRY_S, ids={"model": model}, log=_log
                )
            self._resting[model] = (failures, self._clock_s() + failures.failed(error))
            self._failed(DISPATCH, error)
        else:
            if failures is not None:
                failures.worked()
                del self._resting[model]

    def _failed(self, name: str, error: Exception) -> None:
        """Count what failed behind a wall; it was logged."""
        self.tally.failed(name)
        self._tell_failure(name, error)

    def _tell_failure(self, name: str, error: Exception) -> None:
        if self._on_failure is not None:
            self._on_failure(name, error)

    def _gather(self, wait_s: float) -> None:
        """Wait for something to do, and while much comes, for a little more of it."""

        def anything() -> bool:
            return bool(self._answers or self._models or self._stopping.is_set())

        if not self._changed.wait_for(anything, wait_s):
            return
        if self._answers:
            linger_s = LINGER_S if self._last_batch >= THICK else 0.0
        else:
            linger_s = self._worked_s + NUDGES_APART_S - self._clock_s()
        if linger_s > 0 and wait_s > 0:
            self._changed.wait_for(self._stopping.is_set, linger_s)

    def _fill(self, model: str) -> None:
        """Fill a model's slots; ask for nudges again once some stay free."""
        if not self._dispatch(model):
            return
        with self._changed:
            if model not in self._nudged:
                return
            self._nudged.discard(model)
        try:
            self._streams.nudge_arrived(model)
        except RedisError as error:
            _log.warning("redis_out_of_reach", reason=reason_of(error))
        # A submission between that look and this word nudged nobody.
        self._dispatch(model)

    def _dispatch(self, model: str) -> bool:
        """Fill a model's slots; whether some stayed free."""
        done = Dispatched()
        try:
            self._dispatcher.dispatch(model, done)
        finally:
            self._announcer.tell(done.settled)
        return done.free

    def _settle(self, answers: Sequence[ReceivedOutcome]) -> ClosingResult:
        done = ClosingResult()

        def settle(batch: Sequence[ReceivedOutcome]) -> None:
            done.add(self._settlement.settle(batch))

        def pass_over(answer: ReceivedOutcome, error: Exception) -> None:
            # Not confirmed: its worker sends it again.
            _log.error("outcome_not_settled", order=answer.outcome.order, exc_info=error)
            self.tally.failed(WORK)

        try:
            each_alone(answers, settle, pass_over)
        except OUTAGES as error:
            # Not confirmed, so their workers send them again.
            _log.warning("settlement_delayed", outcomes=len(answers), reason=reason_of(error))
            self.tally.failed(WORK)
        return done

    def listen(self, block_ms: int) -> bool:
        """Take in a batch of the beats' stream; False if none came in time."""
        tokens = self._beats.read(block_ms)
        if not tokens:
            return False
        begin_s = self._clock_s()
        self._beats.take_in(tokens)
        self._note(BEATS, begin_s)
        return True

    def _note(self, name: str, begin_s: float) -> None:
        took_s = max(0.0, self._clock_s() - begin_s)
        self.tally.note(name, Counts(runs=1, busy_us=int(1e6 * took_s)))

    def _act_on(self, heard: HeartbeatResult) -> None:
        self._announcer.control(heard.control)
        self.wake(heard.models)
        for loop in (one for one in self._loops if heard.joined and one.name == HELLO):
            loop.wake()

    # Duties

    def tick(self) -> None:
        """Do the duties that are due, one after the other, each behind its wall."""
        for runner in self._runners:
            try:
                runner.run_if_due()
            except OUTAGES as error:
                _log.warning("out_of_reach", duty=runner.duty.name, reason=reason_of(error))
                self._tell_failure(runner.duty.name, error)
            except Exception as error:  # noqa: BLE001 (logged with its trace)
                _log.exception("step_failed", duty=runner.duty.name)
                self._tell_failure(runner.duty.name, error)

    def _mark(self, _limit: int) -> bool:
        """Send the listening clock's next marker, if it is time and this herder's turn."""
        if (number := self._herd.mark()) is not None:
            self._announcer.mark(number)
        return False

    def _lose_workers(self, _limit: int) -> bool:
        """Count workers as lost that were silent for a lease."""
        self._herd.sweep()
        return False

    def _lapse(self, limit: int) -> bool:
        """Take back attempts that nobody claimed, or whose worker fell silent."""
        return self._act_on_ends(self._settlement.lapse(limit))

    def _act_on_ends(self, settled: ClosingResult) -> bool:
        """Tell of what a duty ended, and fill the slots that came free; whether there is more."""
        self._announcer.tell(settled)
        self.wake(settled.models)
        return settled.more

    def _expire(self, limit: int) -> bool:
        """End orders whose time is up."""
        return self._act_on_ends(self._cancellation.sweep(limit))

    def _sweep_outbox(self, limit: int) -> bool:
        """Publish what was committed and not published."""
        return self._act_on_ends(self._dispatcher.sweep(min(limit, MAX_AT_ONCE)))

    def _refill(self, _limit: int) -> bool:
        """Have every model's free slots looked at: a nudge may have been lost."""
        self.wake(self._dispatcher.models())
        return False

    # Life

    def start(self) -> None:
        """Begin to work, to listen and to do the duties, each on a thread of its own."""

        def make(
            name: str, step: Callable[[Loop], object], every_s: float = 0.0, first_s: float = 0.0
        ) -> Loop:
            # Runners count for themselves.
            told = None if every_s else (lambda _error: self.tally.failed(name))
            loop = Loop(
                name,
                lambda: step(loop),
                every_s=every_s,
                first_s=first_s,
                outages=OUTAGES,
                retry_s=RETRY_S,
                on_failure=told,
                ids={"herder": self._name},
                log=_log,
            )
            return loop

        self._loops = [
            make(WORK, lambda _: self.work(1.0)),
            make(BEATS, self._listen_on),
            *(
                make(runner.duty.name, partial(_run, runner), runner.every_s, first_s)
                for runner, first_s in spread(self._runners)
            ),
        ]
        for loop in self._loops:
            loop.start()

    def _listen_on(self, loop: Loop) -> None:
        if self.listen(1000):
            loop.pause(BEATS_APART_S)

    def stop(self) -> None:
        """End after the steps at hand; what waits is sent again by its workers."""
        self._stopping.set()
        with self._changed:
            self._changed.notify_all()
        for loop in self._loops:
            loop.stop(0)
        until_s = time.monotonic() + STOP_S
        for loop in self._loops:
            loop.stop(max(0.0, until_s - time.monotonic()))


def _run(runner: Runner, loop: Loop) -> None:
    runner.run(loop.pause)
