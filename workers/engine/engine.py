"""The one thread that owns a model: submit, cancel, step, drain.

Any thread hands over work; everything else happens in `step`, one turn of the loop, which the
engine's thread calls again and again, or a test or simulator by itself, without a thread:

    take what came in -> end what is overdue -> admit -> plan -> decode -> sample -> hand out text

Beside these: `cancel` takes the reason to end with; `calibrate` measures the speed before the
start; `broken` and `on_broken` say that the model died; `step_age_s` shows a call that does not
come back, which only the end of the process can stop; `metrics` counts.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Literal

from workers.engine.calibration import calibrate
from workers.engine.job import Generation
from workers.engine.scheduler import Scheduler
from workers.engine.sequences import BatchRow, Seq, Truncate
from workers.engine.work import (
    EndReason,
    EngineMetrics,
    GenerationRequest,
    Listener,
    Model,
    ModelFacts,
)
from workers.errors import DecodeFailed, DuplicateWork, NotAccepting, WorkerError
from workers.transport.event_log import EventLog

_log = EventLog("workers.engine.engine")

CalledOff = Literal["cancelled", "deadline"]


class Engine:
    """Decodes many pieces of work at once on one model.

    Args:
        model: what decodes; the engine owns it from here on, and `stop` closes it.
        clock: seconds that only rise.
        on_broken: called once, on the engine's thread, when the model has died and everything
            was ended: the process is of no more use.
    """

    def __init__(
        self,
        model: Model,
        *,
        clock: Callable[[], float] = time.monotonic,
        on_broken: Callable[[WorkerError], None] | None = None,
    ) -> None:
        self._model = model
        self.facts: ModelFacts = model.facts
        self._clock = clock
        self._on_broken = on_broken
        self._scheduler = Scheduler(
            slots=self.facts.slots,
            cells=self.facts.cells,
            prefixes=self.facts.prefixes,
            batch_tokens=self.facts.batch_tokens,
            step_tokens=self.facts.step_tokens,
            can_share=self.facts.can_share,
            separate=self.facts.separate,
        )
        self.metrics = EngineMetrics()
        self.broken: WorkerError | None = None
        self._pid = os.getpid()
        self._wake = threading.Condition()
        # all below is guarded by _wake where other threads touch it
        self._held: dict[str, Generation | None] = {}  # None: still being prepared
        self._inbox: deque[Generation] = deque()
        self._off: dict[str, CalledOff] = {}
        self._draining_until_s: float | None = None
        self._stopping = False
        self._closed = False
        self._thread: threading.Thread | None = None
        # the engine's thread alone
        self._by_seq: dict[Seq, Generation] = {}
        self._counting = threading.Lock()
        self._arrivals = 0
        self._step_began_s: float | None = None

    # -- from any thread ---------------------------------------------------------------------

    def submit(self, work: GenerationRequest, listener: Listener) -> None:
        """Take a piece of work; its listener will hear of its end exactly once.

        Prompt and sampling parameters are made ready here, on the caller's thread, so that a
        long prompt holds nobody up; what is wrong with them is told to the listener.

        Raises:
            NotAccepting: the engine drains, has stopped, or its model died.
            DuplicateWork: it holds work of that key.
        """
        if os.getpid() != self._pid:
            raise NotAccepting("The engine belongs to another process and cannot be forked.")
        with self._wake:
            if self._ending() or self._draining_until_s is not None:
                raise NotAccepting("The engine accepts no more work.")
            if work.key in self._held:
                raise DuplicateWork(f"The engine already holds {work.key}.", key=work.key)
            self._held[work.key] = None
        job = Generation(work, listener, self._clock())
        try:
            self._prepare(job)
        except BaseException:
            with self._wake:
                del self._held[work.key]
            raise
        with self._wake:
            if not self._ending():
                self._held[work.key] = job
                self._inbox.append(job)
                self._wake.notify_all()
                return
            del self._held[work.key]
        if job.sampler is not None:
            job.sampler.close()
        raise NotAccepting("The engine stopped while the prompt was being prepared.")

    def count_tokens(self, work: GenerationRequest) -> int:
        """Return the tokens of a prompt; raises what `Model.count_tokens` does, `NotAccepting`."""
        with self._counting:
            if self._closed:
                raise NotAccepting("The engine has stopped.")
            return self._model.count_tokens(work)

    def cancel(self, key: str, reason: CalledOff = "cancelled") -> None:
        """End a piece of work before the next step; one that is not held is ignored."""
        with self._wake:
            if key in self._held:
                self._off.setdefault(key, reason)
                self._wake.notify_all()

    def drain(self, grace_s: float) -> None:
        """Take no more; hand back what has not begun, and after `grace_s` what has not ended."""
        with self._wake:
            until = self._clock() + grace_s
            if self._draining_until_s is None or until < self._draining_until_s:
                self._draining_until_s = until
            self._wake.notify_all()

    @property
    def idle(self) -> bool:
        """Whether nothing is held."""
        return not self._held

    @property
    def running(self) -> list[str]:
        """Keys of all that is held and has begun, in order of submission."""
        with self._wake:
            return [k for k, j in self._held.items() if j is not None and j.started_s is not None]

    @property
    def waiting(self) -> list[str]:
        """Keys of all that is held and has not begun."""
        with self._wake:
            return [k for k, j in self._held.items() if j is None or j.started_s is None]

    @property
    def step_age_s(self) -> float:
        """Seconds since the step began that runs now; 0 between steps."""
        began_s = self._step_began_s
        return 0.0 if began_s is None else self._clock() - began_s

    def start(self) -> None:
        """Run the loop in a thread of its own. Nothing may fork this process from here on."""
        if self._thread is not None:
            raise RuntimeError("the engine is already running")
        # daemon: a process that forgets `stop` ends all the same; ending while a thread decodes
        # was tried and is clean, freeing beneath it is not
        self._thread = threading.Thread(target=self._loop, name="engine", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float = 60.0) -> bool:
        """End the thread, hand back what is left, then free the model; the engine is done.

        Returns:
            False if a step did not end in time: then nothing was freed, because the thread
            still uses it, and the process should end itself.
        """
        with self._wake:
            self._stopping = True
            self._wake.notify_all()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout_s)
            if self._thread.is_alive():
                return False
        self._end_all("handed_back", None)
        with self._counting:  # whoever counts tokens reads the model
            if not self._closed:
                self._closed = True
                self._model.close()
        return True

    def calibrate(self, seconds: float = 1.0) -> float:
        """Measure the decoding speed of one slot with all slots busy, in tokens a second.

        Only before `start`, and best on a machine that does nothing else.

        Raises:
            DecodeFailed: the model does not work on this machine.
        """
        return calibrate(self._model, self._clock, seconds)

    # -- the loop ----------------------------------------------------------------------------

    def step(self) -> bool:
        """Take one turn of the loop; returns whether there was anything to compute."""
        if self.broken is not None:
            self._end_all("failed", self.broken)
            return False
        self._step_began_s = begin_s = self._clock()
        try:
            busy = self._turn(begin_s)
        except DecodeFailed as error:
            self._break(error)
            return False
        except Exception as error:  # noqa: BLE001 (logged with its trace)
            _log.exception("engine_step_failed")
            self._break(DecodeFailed(f"The engine failed ({repr(error)[:450]})."))
            return False
        finally:
            self._step_began_s = None
        if busy:
            self.metrics.busy_s += self._clock() - begin_s
        return busy

    def _turn(self, now_s: float) -> bool:
        self._take_inbox(now_s)
        self._end_overdue(now_s)
        for seq in self._scheduler.admit():
            job = self._by_seq[seq]
            self.metrics.started += job.started_s is None
            job.begin(now_s)
        rows = self._scheduler.plan()
        for op in self._scheduler.take_ops():
            if isinstance(op, Truncate):
                self._model.keep(op.slot, op.length)
            else:
                self._model.copy(op.source, op.target, op.length)
        if not rows:
            return False
        before_s = self._clock()
        if not self._model.decode(rows):
            running = len(self._scheduler.running)
            if not self._scheduler.make_room():
                raise DecodeFailed("The cache is full with a single sequence in it.")
            self.metrics.preempted += running - len(self._scheduler.running)
            return True
        self._scheduler.advance(rows)
        jobs = [self._by_seq[row.seq] for row in rows if row.output]
        tokens = self._model.sample([job.sampler for job in jobs]) if jobs else []
        after_s = self._clock()
        self.metrics.model_s += after_s - before_s
        self._count(rows)
        for job, token in zip(jobs, tokens, strict=True):
            self._take_token(job, token, after_s)
        return True

    def _loop(self) -> None:
        while True:
            if self.step():
                with self._wake:
                    if self._stopping:
                        return
                continue
            with self._wake:
                if self._ending():
                    return
                if not self._news():
                    self._wake.wait(self._nap_s())

    def _ending(self) -> bool:
        return self._stopping or self.broken is not None

    def _news(self) -> bool:
        """Return whether there is something to take in.

        What is still being prepared comes later.
        """
        return bool(self._inbox) or any(self._held.get(key) is not None for key in self._off)

    def _nap_s(self) -> float | None:
        """Return the seconds to sleep while there is nothing to compute.

        For ever, or to a drain's end.
        """
        if self._draining_until_s is None:
            return None
        left_s = self._draining_until_s - self._clock()
        return left_s if left_s > 0 else None

    def _prepare(self, job: Generation) -> None:
        try:
            prepared = self._model.prepare(job.work)
        except WorkerError as error:
            job.error = error
            return
        job.take(prepared, self.facts)

    def _take_inbox(self, now_s: float) -> None:
        with self._wake:
            jobs = list(self._inbox)
            self._inbox.clear()
            off = {k: r for k, r in self._off.items() if self._held.get(k) is not None}
            for key in off:
                del self._off[key]
            draining = self._draining_until_s is not None
        for job in jobs:
            if job.error is not None or job.seq is None:
                self._end(job, "failed", now_s, job.error)
                continue
            self._arrivals += 1
            job.seq.arrival = self._arrivals
            self._by_seq[job.seq] = job
            self._scheduler.add(job.seq)
        for key, reason in off.items():
            held = self._held.get(key)
            if held is not None:
                self._end(held, reason, now_s)
        if draining:
            for job in [j for j in self._by_seq.values() if j.started_s is None]:
                self._end(job, "handed_back", now_s)

    def _end_overdue(self, now_s: float) -> None:
        drained = self._draining_until_s is not None and now_s >= self._draining_until_s
        for job in list(self._by_seq.values()):
            if job.started_s is None:
                continue
            if now_s - job.started_s >= job.work.run_limit_s:
                self._end(job, "deadline", now_s)
            elif drained:
                self._end(job, "handed_back", now_s)

    def _take_token(self, job: Generation, token: int | WorkerError | None, now_s: float) -> None:
        assert job.seq is not None
        if isinstance(token, WorkerError):
            self._end(job, "failed", now_s, token)
            return
        if token is None:
            # nothing sampled: the last token is computed once more in the next step
            job.seq.computed -= 1
            self._model.keep(job.seq.slot, job.seq.computed)
            return
        if (waited_s := job.first(now_s)) is not None:
            self.metrics.first_tokens += 1
            self.metrics.first_token_s += waited_s
        if self._model.is_end(token):
            self._end(job, "stop", now_s)
            return
        job.seq.tokens.append(token)
        self.metrics.generated += 1
        if (reason := job.say(token, self._model.piece(token))) is not None:
            self._end(job, reason, now_s)

    def _end(
        self, job: Generation, reason: EndReason, now_s: float, error: WorkerError | None = None
    ) -> None:
        if job.seq is not None and self._by_seq.pop(job.seq, None) is not None:
            self._scheduler.remove(job.seq)
        job.end(reason, now_s, error)
        with self._wake:
            self._held.pop(job.work.key, None)
            self._off.pop(job.work.key, None)
            self._wake.notify_all()

    def _end_all(self, reason: EndReason, error: WorkerError | None) -> None:
        now_s = self._clock()
        with self._wake:
            self._inbox.clear()
            jobs = [job for job in self._held.values() if job is not None]
        for job in jobs:
            self._end(job, reason, now_s, job.error or error)

    def _break(self, error: WorkerError) -> None:
        with self._wake:
            self.broken = error
        self._end_all("failed", error)
        if self._on_broken is not None:
            self._on_broken(error)

    def _count(self, rows: list[BatchRow]) -> None:
        self.metrics.steps += 1
        self.metrics.rows += len(rows)
        self.metrics.prefilled += sum(len(row.tokens) for row in rows if row.start < row.seq.prompt)
        self.metrics.reused = self._scheduler.reused
