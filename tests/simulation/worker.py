"""A worker of a seed: `workers.agent` step by step, with an engine that only draws how it ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from redis import RedisError

from tests.simulation.clockwork import Clockwork, Process, Thread
from tests.simulation.database import MODEL
from tests.simulation.keys import HERDER_KEY
from tests.simulation.network import Broker, Redis, machine_is_up
from tests.simulation.truth import Truth, text_of
from workers.agent.clock import HerderClock
from workers.agent.outcomes import OutcomeBox
from workers.transport.tasks import NewTask
from workers.wire import (
    BEATS_STREAM,
    HERDER_QUEUE,
    INFERENCE_QUEUE,
    MAX_HELD,
    Announcement,
    AttemptRef,
    Beat,
    Body,
    CancelAttempt,
    Claim,
    ClockReading,
    Confirm,
    Drain,
    Failure,
    FinishReason,
    Hello,
    HelloAnswer,
    InferenceJob,
    Outcome,
    PrivateKey,
    Reject,
    WireError,
    WorkerStopped,
    control_stream,
    seal,
    unseal,
    worker_queue,
)

BEAT_US = 1_000_000
RESEND_S = 2.0
GRACE_US = 800_000
CLOSING_US = 10_000_000
SHORT_S = 2
"""A limit of a run that is worth waiting for, where an engine hangs."""
HERDERS = {HERDER_KEY.kid: HERDER_KEY.public}


@dataclass
class Run:
    """An attempt that this worker has."""

    job: InferenceJob
    began_us: int
    token_us: int
    called_off: Literal["cancelled", "deadline"] | None = None
    void: bool = False
    hangs: bool = False
    """Its engine takes no order to stop, and keeps to no limit."""
    over: bool = False
    made: int = 0
    """Tokens that anybody heard of so far."""

    def generated(self, now_us: int) -> int:
        """Tokens sampled until now."""
        return max(0, min(self.job.tokens, (now_us - self.began_us) // self.token_us - 1))


@dataclass(frozen=True)
class Site:
    """What a worker needs around it."""

    time: Clockwork
    broker: Broker
    redis: Redis
    truth: Truth
    token_us: int
    asks_time: bool = False
    """Whether workers ask herders for the time: in worlds whose clocks stay wrong. Elsewhere they
    are right in the end, and what workers ask would change what each seed draws."""


class SimWorker(Process):
    """One worker instance."""

    def __init__(
        self, site: Site, name: str, key: PrivateKey, slots: int, on_death: Callable[[], None]
    ) -> None:
        time = site.time
        self.instance = f"{name}-{time.rng.getrandbits(32):08x}"
        super().__init__(time, self.instance, machine=name)
        self.key = key
        self.slots = slots
        self.draining = False
        self._site = site
        self._on_death = on_death
        self._name = name
        self._queue = worker_queue(self.instance)
        self._running: dict[str, Run] = {}
        self._ended: set[str] = set()
        self._coming = 0
        self._beats = 0
        self.box = OutcomeBox(
            site.broker,
            lambda body: self._seal(body, HERDER_QUEUE),
            resend_s=RESEND_S,
            others_run=lambda: False,
            clock=time.clock_s,
        )
        self.clock = HerderClock(
            wall_s=lambda: self.clock_us() / 1e6,
            steady_s=time.clock_s,
            new_nonce=lambda: f"{time.rng.getrandbits(64):016x}",
        )
        self.thread = Thread(self, "celery")
        self._beating = Thread(self, "beats")
        self._hearing = Thread(self, "control")
        self._engine = Thread(self, "engine")
        self._sending = Thread(self, "outcomes")

    def start(self) -> None:
        """Announce itself, and begin to read."""
        self._site.redis.readers[self.instance] = (self, self._control_came)
        self._site.broker.takers[INFERENCE_QUEUE].append(self)
        self._site.broker.takers[self._queue] = [self]
        self.time.after(0, self._beating, self._beat_and_wait)
        self.time.after(1000, self.thread, self._read_on)

    def on_death(self) -> None:
        self._site.redis.readers.pop(self.instance, None)
        self._site.broker.takers[INFERENCE_QUEUE].remove(self)
        del self._site.broker.takers[self._queue]
        self._on_death()

    def _seal(self, body: Body, audience: str) -> str:
        return seal(
            body,
            self.key,
            sender=self.instance,
            audience=audience,
            now_s=self.clock_us() // 1_000_000,
        )

    # Jobs

    def ready(self) -> bool:
        """Whether it reads the queue: it does while a slot is free."""
        free = self._coming + len(self._running) < self.slots
        return free and not self.draining and machine_is_up(self)

    def take(self, task: NewTask) -> None:
        """A message of the queue; from here on the broker has forgotten it."""
        self._coming += 1
        self.time.after(self.time.rng.randint(100, 3000), self.thread, lambda: self._run(task))

    def _run(self, task: NewTask) -> None:
        self._coming -= 1
        try:
            queues = (self._queue, INFERENCE_QUEUE)
            asks = self._site.asks_time
            now_s = self.clock.judging_s() if asks else self.clock_us() / 1e6
            envelope = unseal(task.token, HERDERS, audience=queues, now_s=now_s)
        except WireError as error:
            self.clock.doubt()
            self.time.note(f"refuses a job: {error.code}")
            self._read_on()
            return
        job = envelope.body
        if isinstance(job, Hello):
            self._answer_hello(job)
            return
        assert isinstance(job, InferenceJob)
        key = _key(job.held)
        if key in self._running or key in self._ended or key in self.box:
            self._read_on()
            return
        run = Run(job, self.time.now_us, self._token_us())
        self._running[key] = run
        self._site.truth.taken.add((job.order, job.attempt, self.instance))
        so_far = (self.instance, lambda: self._so_far(run))
        self._site.truth.runs.setdefault((job.order, job.attempt), so_far)
        self.time.note(f"takes {job.order[:8]} #{job.attempt}")
        try:
            self._say(Claim(held=(job.held,)))
        except RedisError:
            self._over(run)
            return
        if self.draining:
            self._answer(run, "handed_back")
            return
        run.began_us = self.time.now_us
        self._begin(run)

    def _answer_hello(self, hello: Hello) -> None:
        self._site.truth.greeted.add((self.instance, hello.number))
        try:
            self._say(HelloAnswer(number=hello.number))
        except RedisError:
            self.time.note("answers no hello")
        self._read_on()

    def _token_us(self) -> int:
        return max(1000, int(self._site.token_us * self.time.rng.uniform(0.5, 1.5)))

    def _so_far(self, run: Run) -> int:
        """Tokens whose text is out by now."""
        if not run.over and self.alive and run.began_us:
            run.made = max(run.made, run.generated(self.time.now_us))
        return run.made

    def _begin(self, run: Run) -> None:
        """The engine has it; how it will end is drawn here."""
        rng, time = self.time.rng, self.time
        tokens = run.job.tokens
        if run.job.run_limit_s <= SHORT_S and time.chance(time.weather.hangs):
            time.note(f"hangs in {run.job.order[:8]} #{run.job.attempt}")
            time.count("a worker hangs in an order")
            run.hangs = True
            return
        if time.chance(time.weather.poor_worker):
            after = rng.randint(0, tokens)
            permanent = rng.random() < 0.4
            self._later(run, after, lambda: self._fail(run, permanent=permanent))
            return
        early = rng.random() < 0.4
        count = rng.randint(0, tokens) if early else tokens
        reason: FinishReason = "stop" if early else "length"
        limit_us = run.job.run_limit_s * 1_000_000
        if (count + 1) * run.token_us > limit_us:
            time.after(limit_us, self._engine, lambda: self._finish(run, "deadline", None))
        else:
            self._later(run, count, lambda: self._finish(run, reason, count))
        if run.called_off is not None:
            # The order to stop came before the engine knew of it.
            self._call_off(run)

    def _later(self, run: Run, tokens: int, do: Callable[[], None]) -> None:
        self.time.after((tokens + 1) * run.token_us, self._engine, do)

    def _finish(self, run: Run, reason: FinishReason, count: int | None) -> None:
        if run.over or (run.hangs and not run.void):
            return
        generated = run.generated(self.time.now_us) if count is None else count
        self._answer(run, "completed", reason, generated)

    def _fail(self, run: Run, *, permanent: bool) -> None:
        if not run.over:
            how = "for good" if permanent else "for now"
            self.time.count(f"a worker fails an order {how}")
            failure = Failure(code="sim_trouble", message="It went wrong.", permanent=permanent)
            generated = run.generated(self.time.now_us)
            self._answer(run, "failed", None, generated, failure)

    def _answer(
        self,
        run: Run,
        result: Literal["completed", "failed", "handed_back"],
        reason: FinishReason | None = None,
        generated: int = 0,
        failure: Failure | None = None,
    ) -> None:
        """Keep an outcome until it is confirmed, and have it sent."""
        job = run.job
        self._over(run)
        if run.void:
            return
        if result == "handed_back":
            self.time.count("a worker hands an order back")
        run.made = generated
        text = text_of(self.instance, job.attempt, generated)
        outcome = Outcome(
            order=job.order,
            attempt=job.attempt,
            nonce=job.nonce,
            result=result,
            finish_reason=reason,
            text=text,
            prompt_tokens=3,
            generated=generated,
            failure=failure,
            took_ms=(self.time.now_us - run.began_us) // 1000,
        )
        # A stream may lose pieces and never has the last word.
        streamed = max(0, generated - self.time.rng.randint(0, 2))
        self._site.truth.streamed[(job.order, job.attempt)] = streamed
        self._site.truth.outcomes[(job.order, job.attempt, self.instance)] = outcome
        self.time.note(f"ends {job.order[:8]} #{job.attempt}: {reason or result}, {generated}")
        self.box.put(_key(job.held), outcome)
        self.time.after(self.time.rng.randint(0, 3000), self._sending, self._send)

    def _over(self, run: Run) -> None:
        run.over = True
        key = _key(run.job.held)
        self._running.pop(key, None)
        self._ended.add(key)
        self.time.after(self.time.rng.randint(0, 1000), self.thread, self._read_on)

    def _read_on(self) -> None:
        self._site.broker.pump(self._queue)
        self._site.broker.pump(INFERENCE_QUEUE)

    def _send(self) -> None:
        while self.box.send():
            pass

    # Beats

    def _beat_and_wait(self) -> None:
        jitter_us = self.time.rng.randint(-100_000, 100_000)
        self.time.after(BEAT_US + jitter_us, self._beating, self._beat_and_wait)
        self._beat()
        self.time.after(0, self._sending, self._send)

    def _beat(self) -> None:
        self._beats += 1
        body = Beat(
            number=self._beats,
            worker=Announcement(
                name=self._name,
                model=MODEL,
                slots=self.slots,
                context=4096,
                tokens_per_s=1_000_000 // self._site.token_us,
                draining=self.draining,
                clock_ahead_s=self.clock.ahead_s(),
            ),
            running=tuple(run.job.held for run in self._running.values()),
            unconfirmed=self.box.held(MAX_HELD),
        )
        try:
            if self._site.asks_time and (question := self.clock.question()) is not None:
                self._say(question)
            self._say(body)
        except RedisError:
            return  # the next one says it as well

    def _say(self, body: Body) -> None:
        self._site.redis.add_beat(self._seal(body, BEATS_STREAM))

    # Control

    def _control_came(self, token: str) -> None:
        self.time.after(self.time.rng.randint(100, 2000), self._hearing, lambda: self._hear(token))

    def _hear(self, token: str) -> None:
        body = unseal(token, HERDERS, audience=control_stream(self.instance)).body
        if isinstance(body, Confirm):
            for held in body.held:
                self.box.forget(_key(held))
        elif isinstance(body, CancelAttempt):
            self._stop(body)
        elif isinstance(body, Reject):
            self.time.note(f"is refused: {body.reason[:50]}")
            self.die()
        elif isinstance(body, ClockReading):
            self.clock.hear(body)
        elif isinstance(body, Drain):
            self.drain()

    def _stop(self, stop: CancelAttempt) -> None:
        key = _key(stop.held)
        run = self._running.get(key)
        if stop.reason == "void":
            self.box.forget(key)
        if run is None:
            return
        run.void = run.void or stop.reason == "void"
        run.called_off = "deadline" if stop.reason == "deadline" else "cancelled"
        self._call_off(run)
        self.time.after(1000, self._beating, self._beat)

    def _call_off(self, run: Run) -> None:
        """The engine stops between two tokens."""
        reason = run.called_off or "cancelled"
        delay_us = self.time.rng.randint(0, run.token_us)
        self.time.after(delay_us, self._engine, lambda: self._finish(run, reason, None))

    # Life

    def drain(self) -> None:
        """Take no more; finish what can be finished in a moment, hand back the rest, and leave."""
        if self.draining:
            return
        self.draining = True
        self.time.note("drains")
        self.time.after(0, self._beating, self._beat)
        self.time.after(GRACE_US, self._engine, self._hand_back)

    def _hand_back(self) -> None:
        for run in list(self._running.values()):
            self._answer(run, "handed_back")
        self._close(self.time.now_us + CLOSING_US)

    def _close(self, until_us: int) -> None:
        """Wait for the last confirmations, then say farewell."""
        if (len(self.box) or self._running or self._coming) and self.time.now_us < until_us:
            self.time.after(100_000, self._engine, lambda: self._close(until_us))
            return
        try:
            self._say(WorkerStopped())
        except RedisError:
            self.time.note("says no farewell")
        self.die()

    @property
    def idle(self) -> bool:
        """Whether it holds nothing any more."""
        return not (len(self.box) or self._running or self._coming)


def _key(held: AttemptRef) -> str:
    return f"{held.order}:{held.attempt}"
