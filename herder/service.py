"""A herder at work: what its threads do, as steps that a test or a simulator can take one by one.

`work` settles the outcomes that wait, all together, and fills the slots that came free; `listen`
takes in a batch of beats; `tick`, once a second, moves the listening clock and stands behind
every event that was lost.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import structlog
from redis import RedisError

from herder.dispatch import Dispatcher
from herder.endings import Settled, instances
from herder.errors import HerdUnavailable
from herder.herd import Herd
from herder.keys import Keys
from herder.settlement import Answer, Settlement
from herder.store import herd as herd_sql
from herder.withdrawal import Withdrawal
from workers.transport.streams import Streams
from workers.wire import (
    BEATS_STREAM,
    MAX_HELD,
    Body,
    Confirm,
    Envelope,
    Marker,
    PrivateKey,
    StopAttempt,
    WireError,
    control_stream,
    seal,
    unseal,
)

_log = structlog.get_logger("herder.service")

MOST_ANSWERS = 200
"""Outcomes settled in one transaction at most."""

MOST_WAITING = 10_000
"""Outcomes that may wait in a herder; the rest is dropped, and sent again by its workers."""

THICK = 3
LINGER_S = 0.012
"""Where the last batch held `THICK` outcomes or more, the next is gathered for so long: a
transaction costs the same for one as for ten. A herd of long orders never waits for it."""
NUDGES_APART_S = 0.03
"""The same for submissions to a herd with free slots, after the first."""

MOST_BEATS = 500
BEATS_APART_S = 0.1
"""Beats are read this often at most: many short orders are settled before their claims are read,
which then need no transaction."""

FORGET_EVERY_S = 600.0
"""How often texts that were kept long enough are looked for."""


class Service:
    """One herder. Any number of them may run on one database."""

    def __init__(
        self,
        *,
        settlement: Settlement,
        withdrawal: Withdrawal,
        dispatcher: Dispatcher,
        herd: Herd,
        streams: Streams,
        key: PrivateKey,
        keys: Keys,
        name: str,
        clock_us: Callable[[], int],
        clock_s: Callable[[], float] = time.monotonic,
        forget: Callable[[], object] | None = None,
        survey: Callable[[], object] | None = None,
        grant: Callable[[], object] | None = None,
    ) -> None:
        self._forget = forget
        self._survey = survey
        self._grant = grant
        self._forgot_s = float("-inf")
        self._settlement = settlement
        self._withdrawal = withdrawal
        self._clock_s = clock_s
        self._dispatcher = dispatcher
        self._herd = herd
        self._streams = streams
        self._key = key
        self._keys = keys
        self._name = name
        self._clock_us = clock_us
        self._changed = threading.Condition()
        self._answers: list[Answer] = []
        self._models: set[str] = set()
        self._nudged: set[str] = set()
        self._worked_s = float("-inf")
        self._last_batch = 0
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    # What comes in, on any thread

    def answer(self, answers: Sequence[Answer]) -> None:
        """Outcomes came; they are settled with the others that wait."""
        with self._changed:
            if len(self._answers) >= MOST_WAITING:
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
        """A client submitted an order of this model."""
        with self._changed:
            self._nudged.add(model)
        self.wake([model])

    # Steps

    def work(self, wait_s: float) -> bool:
        """Settle what waits and fill free slots; False if nothing came within `wait_s`."""
        with self._changed:
            self._gather(wait_s)
            answers = self._answers[:MOST_ANSWERS]
            del self._answers[:MOST_ANSWERS]
            models, self._models = self._models, set()
        if not answers and not models:
            return False
        self._last_batch = len(answers)
        settled = self._settle(answers) if answers else Settled()
        # The free slots first: what the workers and clients are told can wait for a moment.
        for model in sorted(models | settled.models):
            self._fill(model)
        self._tell(settled)
        self._worked_s = self._clock_s()
        return True

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
        if not self._dispatcher.dispatch(model):
            return
        with self._changed:
            if model not in self._nudged:
                return
            self._nudged.discard(model)
        try:
            self._streams.nudge_arrived(model)
        except RedisError as error:
            _log.warning("redis_out_of_reach", reason=type(error).__name__)
        # A submission between that look and this word nudged nobody.
        self._dispatcher.dispatch(model)

    def _settle(self, answers: Sequence[Answer]) -> Settled:
        try:
            return self._settlement.settle(answers)
        except HerdUnavailable as error:
            # Not confirmed, so their workers send them again.
            _log.warning("settlement_delayed", outcomes=len(answers), reason=error.message)
            return Settled()
        except Exception:  # noqa: BLE001
            # One of them must not hold up the others: each alone.
            _log.exception("settlement_failed", outcomes=len(answers))
            return self._settle_each(answers)

    def _settle_each(self, answers: Sequence[Answer]) -> Settled:
        done = Settled()
        for answer in answers:
            try:
                one = self._settlement.settle([answer])
            except Exception:  # noqa: BLE001 (logged with its trace; the worker sends it again)
                _log.exception("outcome_not_settled", order=answer.outcome.order)
                continue
            done.add(one)
        return done

    def _tell(self, settled: Settled) -> None:
        """Tell workers and clients what was committed."""
        messages: list[tuple[str, Body]] = []
        for instance, held in instances(settled.confirmed).items():
            for start in range(0, len(held), MAX_HELD):
                messages.append((instance, Confirm(held=tuple(held[start : start + MAX_HELD]))))
        messages += [
            (instance, StopAttempt(held=held, reason=why)) for instance, held, why in settled.stops
        ]
        self._control(messages)
        if settled.ended:
            try:
                self._streams.announce_ended(settled.ended)
                if settled.inboxes:
                    self._streams.announce_inboxes(sorted(settled.inboxes))
            except RedisError as error:
                _log.warning("redis_out_of_reach", reason=type(error).__name__)

    def _control(self, messages: Sequence[tuple[str, Body]]) -> None:
        if not messages:
            return
        tokens = [
            (
                instance,
                seal(
                    body,
                    self._key,
                    sender="herder",
                    audience=control_stream(instance),
                    now_s=self._clock_us() // 1_000_000,
                ),
            )
            for instance, body in messages
        ]
        try:
            self._streams.add_controls(tokens)
        except RedisError as error:
            # Workers ask again: their beats name what they wait to have confirmed.
            _log.warning("control_not_sent", reason=type(error).__name__)

    def listen(self, block_ms: int) -> bool:
        """Take in a batch of the beats' stream; False if none came in time."""
        tokens = self._streams.read_beats(self._name, count=MOST_BEATS, block_ms=block_ms)
        if not tokens:
            return False
        herders = self._keys.of(herd_sql.HERDER)
        everybody = self._keys.of_everybody()
        envelopes: list[Envelope] = []
        for at_us, token in tokens:
            try:
                envelope = unseal(token, everybody, audience=BEATS_STREAM)
            except WireError as error:
                _log.warning("beat_refused", reason=str(error))
                continue
            if isinstance(envelope.body, Marker) != (envelope.kid in herders):
                _log.warning("beat_refused", reason="signed by the wrong side")
                continue
            envelopes.append(replace(envelope, at_us=at_us))
        if envelopes:
            heard = self._herd.hear(envelopes)
            self._control(heard.control)
            self.wake(heard.models)
        return True

    def tick(self) -> None:
        """Once a second: the clock's marker, what lapsed, every model's free slots, and grants."""
        number = self._herd.mark()
        if number is not None:
            token = seal(
                Marker(number=number),
                self._key,
                sender="herder",
                audience=BEATS_STREAM,
                now_s=self._clock_us() // 1_000_000,
            )
            try:
                self._streams.add_beat(token)
            except RedisError as error:
                _log.warning("redis_out_of_reach", reason=type(error).__name__)
        self._herd.sweep()
        self._tell(self._settlement.lapse())
        self._tell(self._withdrawal.sweep())
        self._dispatcher.sweep()
        self.wake(self._dispatcher.models())
        if self._survey is not None:
            self._survey()
        if self._grant is not None:
            self._grant()
        if self._forget is not None and self._clock_s() - self._forgot_s >= FORGET_EVERY_S:
            self._forgot_s = self._clock_s()
            self._forget()

    # Life

    def start(self) -> None:
        """Run the steps, each kind on a thread of its own."""
        for name, step in (
            ("work", lambda: self.work(1.0)),
            ("beats", self._listen_and_wait),
            ("tick", self._tick_and_wait),
        ):
            thread = threading.Thread(target=self._loop, args=(name, step), name=name, daemon=True)
            thread.start()
            self._threads.append(thread)

    def _listen_and_wait(self) -> None:
        if self.listen(1000):
            self._stopping.wait(BEATS_APART_S)

    def _tick_and_wait(self) -> None:
        self.tick()
        self._stopping.wait(1.0)

    def _loop(self, name: str, step: Callable[[], object]) -> None:
        while not self._stopping.is_set():
            try:
                step()
            except (RedisError, HerdUnavailable, OSError) as error:
                _log.warning("out_of_reach", step=name, reason=str(error)[:200])
                self._stopping.wait(1.0)
            except Exception:  # noqa: BLE001
                # A herder that stopped listening would look alive: log it, and go on.
                _log.exception("step_failed", step=name)
                self._stopping.wait(1.0)

    def stop(self) -> None:
        """End after the step at hand; what waits is sent again by its workers."""
        self._stopping.set()
        with self._changed:
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(timeout=10)
