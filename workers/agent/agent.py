"""One worker instance: claims attempts, feeds the engine, beats, and sends outcomes home.

Celery hands it jobs on its task threads; everything else runs beside Celery, because a worker
whose slots are all busy reads no queue. It obeys messages that a herder signed, and no others.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import structlog
from redis import RedisError

from workers.agent.claims import Claims
from workers.agent.clock import HerderClock
from workers.agent.conversion import bare_outcome, not_done, outcome_of, shown, work_of
from workers.agent.counting import TokenCounter
from workers.agent.outcomes import OutcomeBox, OutcomeSender
from workers.agent.stopping import StopClock
from workers.agent.texts import AddText, TextFlusher
from workers.engine.engine import Engine
from workers.engine.work import Completion
from workers.errors import NotAccepting
from workers.settings import JoinFile, WorkerSettings
from workers.transport.loops import Loop
from workers.transport.reasons import reason_of
from workers.transport.streams import Streams
from workers.wire import (
    BEATS_STREAM,
    HERDER_QUEUE,
    MAX_HELD,
    Announcement,
    AttemptRef,
    Beat,
    Body,
    CancelAttempt,
    Claim,
    ClockReading,
    Confirm,
    CountTokens,
    Drain,
    Hello,
    HelloAnswer,
    InferenceJob,
    Outcome,
    Reject,
    WireError,
    WorkerStopped,
    control_stream,
    seal,
    unseal,
)

_log = structlog.get_logger("workers.agent.agent")

MAX_ENDED = 10_000
"""Attempts that are remembered as ended, so that a message that comes twice runs once."""

STUCK_S = 300.0
"""Seconds in one step of the engine after which it will not come back: the longest that a prompt's
chunk was seen to take on a loaded machine was seconds."""


@dataclass(slots=True)
class _Running:
    """An attempt that this worker has; the engine's listener for it."""

    held: AttemptRef
    add_text: AddText
    end: Completion | None = None
    void: bool = False
    called_off: Literal["cancelled", "deadline"] | None = None
    done: threading.Event = field(default_factory=threading.Event)

    def on_start(self, prompt_tokens: int) -> None:
        """Note that the engine starts with it."""

    def on_text(self, text: str, generated: int, reasoning: int) -> None:
        """Take more text from the engine."""
        self.add_text(text, generated, reasoning, end=False)

    def on_end(self, end: Completion) -> None:
        """Take the end of its work from the engine."""
        self.end = end
        self.add_text("", end.generated, 0, end=True)
        self.done.set()


class Agent:
    """A worker process, apart from its engine and Celery."""

    def __init__(
        self,
        engine: Engine,
        streams: Streams,
        sender: OutcomeSender,
        join: JoinFile,
        settings: WorkerSettings,
        *,
        instance: str,
        tokens_per_s: int = 0,
        clock: Callable[[], float] = time.monotonic,
        on_refused: Callable[[str], None],
        on_drain: Callable[[], None],
        on_stuck: Callable[[], None],
    ) -> None:
        self._engine = engine
        self._streams = streams
        self._herders = join.herders
        self._key = join.key
        self._settings = settings
        self._name = settings.name
        self._tokens_per_s = tokens_per_s
        self._clock = clock
        self._on_refused = on_refused
        self._on_drain = on_drain
        self._on_stuck = on_stuck
        self.instance = instance
        self._texts = TextFlusher(streams)
        self._counter = TokenCounter(engine, streams, join, instance)
        self._lock = threading.Lock()
        self._outcomes = OutcomeBox(
            sender,
            lambda body: seal(body, self._key, sender=instance, audience=HERDER_QUEUE),
            resend_s=settings.resend_s,
            others_run=lambda: len(self._running) > 1,
            clock=clock,
        )
        self.clock = HerderClock(
            wall_s=time.time, steady_s=clock, new_nonce=lambda: secrets.token_hex(16)
        )
        self._claims = Claims(lambda held: self._say(Claim(held=held)))
        self._running: dict[str, _Running] = {}
        self._ended: OrderedDict[str, None] = OrderedDict()
        self._beats = 0
        self._beating = threading.Lock()
        self._draining = False
        self._refused = False
        self._stopping = threading.Event()
        self._stop = StopClock(clock)
        self._heard = "0"
        beat_s = float(settings.beat_s)
        self._beat_loop = Loop(
            "beats",
            self._beat_and_look,
            every_s=beat_s,
            outages=(RedisError,),
            # A beat that is late may cost a lease: it is tried as often as it would be sent.
            retry_s=(min(0.1, beat_s), beat_s),
            ids={"instance": instance},
            log=_log,
        )
        self._control_loop = Loop(
            "control",
            self._listen,
            outages=(RedisError,),
            retry_s=(0.1, 1.0),
            ids={"instance": instance},
            log=_log,
        )

    # Jobs, on Celery's threads

    def run(self, job: InferenceJob) -> dict[str, str | int]:
        """Run an attempt to its end; what it returns may be shown to anybody."""
        key = _key(job.held)
        running = _Running(job.held, self._texts.open(job.order, job.attempt, job.tokens))
        with self._lock:
            if self._has(key):
                return {"status": "repeated", "tokens": 0}
            self._running[key] = running
        try:
            outcome = self._outcome_of(job, running)
        finally:
            with self._lock:
                del self._running[key]
                self._ended[key] = None
                while len(self._ended) > MAX_ENDED:
                    self._ended.popitem(last=False)
        return shown(outcome, void=running.void)

    def has(self, held: AttemptRef) -> bool:
        """Return whether an attempt runs here, or has ended here."""
        with self._lock:
            return self._has(_key(held))

    def _has(self, key: str) -> bool:
        return key in self._running or key in self._ended or key in self._outcomes

    def _outcome_of(self, job: InferenceJob, running: _Running) -> Outcome | None:
        if job.model != self._settings.model:
            # Not ours to run: another worker of this herd may have it.
            return self._answer(bare_outcome(job, "handed_back"))
        try:
            self._claims.put(job.held)
        except RedisError as error:
            # Nobody would know that it runs here: its claim lapses and another worker gets it.
            _log.warning("claim_not_sent", order=job.order, reason=reason_of(error))
            return None
        began_s = self._clock()
        try:
            self._engine.submit(work_of(job), running)
        except NotAccepting:
            return self._answer(bare_outcome(job, "handed_back"))
        if running.called_off is not None:
            # The order to stop came before the engine knew of it: the herder answers claims.
            self._engine.cancel(f"{job.order}:{job.attempt}", running.called_off)
        running.done.wait()
        assert running.end is not None
        took_ms = int((self._clock() - began_s) * 1000)
        outcome = outcome_of(job, running.end, took_ms)
        return None if running.void else self._answer(outcome)

    def _answer(self, outcome: Outcome) -> Outcome:
        """Keep an outcome until it is confirmed, and have it sent."""
        self._outcomes.put(f"{outcome.order}:{outcome.attempt}", outcome)
        return outcome

    # Beats

    def beat(self) -> None:
        """Say what this worker is, what it runs, and what it waits to have confirmed.

        One at a time: a beat that overtook an earlier one would have that one passed over.
        """
        with self._beating:
            if (question := self.clock.question()) is not None:
                self._say(question)
            self._say(self._now())

    def _now(self) -> Beat:
        with self._lock:
            self._beats += 1
            return Beat(
                number=self._beats,
                worker=Announcement(
                    name=self._name,
                    model=self._settings.model,
                    slots=self._settings.slots,
                    context=self._engine.facts.context,
                    tokens_per_s=self._tokens_per_s,
                    weights=self._engine.facts.weights,
                    draining=self._draining,
                    clock_ahead_s=self.clock.ahead_s(),
                ),
                running=tuple(one.held for one in self._running.values()),
                unconfirmed=self._outcomes.held(MAX_HELD),
            )

    def _say(self, body: Body) -> None:
        self._streams.add_beat(seal(body, self._key, sender=self.instance, audience=BEATS_STREAM))

    def answer_hello(self, hello: Hello) -> dict[str, str | int]:
        """Say that a hello came through the broker: until then this worker is sent no orders."""
        try:
            self._say(HelloAnswer(number=hello.number))
        except RedisError as error:
            # The herders say hello again.
            _log.warning("hello_not_answered", reason=type(error).__name__)
            return not_done("redis_out_of_reach")
        return {"status": "answered", "tokens": 0}

    # Control

    def hear(self, token: str) -> None:
        """Obey a message of the control stream, if a herder signed it for this instance."""
        try:
            envelope = unseal(token, self._herders, audience=control_stream(self.instance))
        except WireError as error:
            _log.warning("control_refused", reason=str(error))
            return
        except Exception as error:  # noqa: BLE001 (its text or trace could quote a nonce)
            _log.error("control_unreadable", reason=type(error).__name__)
            return
        body = envelope.body
        if isinstance(body, Confirm):
            for held in body.held:
                self._outcomes.forget(f"{held.order}:{held.attempt}")
        elif isinstance(body, CancelAttempt):
            self._stop_attempt(body)
        elif isinstance(body, CountTokens):
            self._counter.ask(body.request)
        elif isinstance(body, Reject):
            if not self._refused:
                self._refused = True
                self._on_refused(body.reason)
        elif isinstance(body, ClockReading):
            self.clock.hear(body)
        elif isinstance(body, Drain):
            self._on_drain()

    def _stop_attempt(self, stop: CancelAttempt) -> None:
        key = f"{stop.held.order}:{stop.held.attempt}"
        with self._lock:
            running = self._running.get(key)
            if stop.reason == "void":
                self._outcomes.forget(key)
            if running is not None:
                running.void = running.void or stop.reason == "void"
                running.called_off = "deadline" if stop.reason == "deadline" else "cancelled"
        if running is not None:
            _log.info("stop_attempt", order=stop.held.order, reason=stop.reason)
            self._engine.cancel(key, running.called_off or "cancelled")
            self._beat_loop.wake()

    # Life

    def start(self) -> None:
        """Begin to beat and to listen."""
        self._texts.start()
        self._outcomes.start()
        self._counter.start()
        self._beat_loop.start()
        self._control_loop.start()

    def _beat_and_look(self) -> None:
        try:
            self.beat()
        finally:
            if self._engine.step_age_s > STUCK_S:
                self._on_stuck()

    def _listen(self) -> None:
        for entry_id, token in self._streams.read_control(
            self.instance, self._heard, block_ms=1000
        ):
            # Before it is obeyed: one that cannot be is not obeyed again and again.
            self._heard = entry_id
            self.hear(token)

    def drain(self, grace_s: float | None = None) -> float:
        """Take no more; finish what can be finished in the grace time, hand back the rest.

        Args:
            grace_s: seconds that the whole stop may take, this and `close`, or None for
                `HERD_GRACE_S`; a later call can only shorten them.

        Returns:
            Seconds after which the process should have ended.
        """
        given_s = float(self._settings.grace_s) if grace_s is None else grace_s
        runs_s = self._stop.begin(given_s)
        if not self._draining:
            running = len(self._running)
            _log.info("draining", grace_s=given_s, orders_run_s=round(runs_s, 1), running=running)
        self._draining = True
        self._engine.drain(runs_s)
        self._beat_loop.wake()
        return self._stop.left_s

    def close(self, timeout_s: float | None = None) -> bool:
        """Wait for the last confirmations, say farewell, and free the model.

        Args:
            timeout_s: seconds to wait for confirmations at most; None for what the stop leaves.

        Returns:
            False if the engine is stuck in a step: then the process should end itself.
        """
        if not self._stop.begun:
            self._stop.begin(0)
        waits_s = self._stop.to_confirm_s if timeout_s is None else timeout_s
        # Nobody confirms anything to a worker that was refused.
        until_s = self._clock() + (0.0 if self._refused else waits_s)
        while self._outcomes and self._clock() < until_s:
            self._stopping.wait(0.05)
        if self._outcomes:
            _log.warning("outcomes_unconfirmed", count=len(self._outcomes))
        self._stopping.set()
        loops = (self._beat_loop, self._control_loop)
        for loop in loops:
            loop.stop(0)
        self._outcomes.stop(self._stop.left_s)
        self._texts.stop(self._stop.left_s)
        self._counter.stop(self._stop.left_s)
        for loop in loops:
            loop.stop(self._stop.left_s)
        try:
            self._say(WorkerStopped())
        except RedisError as error:
            _log.warning("farewell_not_sent", reason=reason_of(error))
        return self._engine.stop(self._stop.left_s)


def _key(held: AttemptRef) -> str:
    return f"{held.order}:{held.attempt}"
