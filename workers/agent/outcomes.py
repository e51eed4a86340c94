"""Sends outcomes home, again and again, until a herder says that they are settled or void."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from workers.transport.loops import Loop
from workers.transport.reasons import reason_of
from workers.transport.tasks import NewTask
from workers.wire import (
    HERDER_QUEUE,
    MAX_OUTCOMES,
    OUTCOME_TASK,
    AttemptRef,
    Failure,
    Outcome,
    Outcomes,
    attempt_id,
)

_log = structlog.get_logger("workers.agent.outcomes")

MAX_RESEND_S = 60.0

RETRY_S = (0.1, 1.0)
"""Seconds after a failure before the first further try, and at most."""

GATHER_S = 0.003
"""Seconds between two messages of outcomes while other orders run."""

MAX_TEXT_SENT = 512 * 1024
"""Characters of text in one message of several outcomes."""


class OutcomeSender(Protocol):
    """Whatever puts signed messages on queues."""

    def publish_many(self, tasks: Sequence[NewTask]) -> None:
        """Send messages; raises OSError when the broker is out of reach."""


NOT_SEALED = Failure(
    code="outcome_not_sealed",
    message="The worker could not put its answer into a message.",
    permanent=False,
)
"""Another worker may answer otherwise; how many may try is bounded as for any failure."""


@dataclass(slots=True)
class _Kept:
    outcome: Outcome
    due_s: float
    wait_s: float


def _failed(outcome: Outcome) -> Outcome:
    """Return a failure in place of an outcome that cannot be sealed."""
    return Outcome(
        order=outcome.order,
        attempt=outcome.attempt,
        nonce=outcome.nonce,
        result="failed",
        failure=NOT_SEALED,
    )


class OutcomeBox:
    """Keeps outcomes until they are confirmed. Safe among threads.

    Args:
        sender: takes messages to the herders.
        seal: signs a message for the herders' queue.
        resend_s: seconds until an unconfirmed outcome is sent again; doubled each time.
        others_run: whether other orders run, whose outcomes may share a message.
        clock: seconds that only rise.
    """

    def __init__(
        self,
        sender: OutcomeSender,
        seal: Callable[[Outcomes], str],
        *,
        resend_s: float,
        others_run: Callable[[], bool],
        clock: Callable[[], float],
    ) -> None:
        self._sender = sender
        self._seal = seal
        self._resend_s = resend_s
        self._others_run = others_run
        self._clock = clock
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._kept: dict[str, _Kept] = {}
        self._loop = Loop(
            "outcomes",
            self._step,
            unblock=self._unblock,
            last=self._send_all,
            retry_s=RETRY_S,
            log=_log,
        )

    def __contains__(self, key: str) -> bool:
        return key in self._kept

    def __len__(self) -> int:
        return len(self._kept)

    def put(self, key: str, outcome: Outcome) -> None:
        """Keep an attempt's outcome, and have it sent."""
        with self._lock:
            self._kept[key] = _Kept(outcome, self._clock(), self._resend_s)
            self._changed.notify()

    def forget(self, key: str) -> None:
        """Forget an outcome that is settled or void."""
        with self._lock:
            self._kept.pop(key, None)

    def held(self, most: int) -> tuple[AttemptRef, ...]:
        """Return the attempts whose outcomes wait to be confirmed."""
        with self._lock:
            return tuple(kept.outcome.held for kept in self._kept.values())[:most]

    def send(self) -> bool:
        """Send the outcomes that are due, in one message; False if none is.

        Those that end while a message is on its way go out together in the next. One that is not
        confirmed is due again, each time later.
        """
        now_s = self._clock()
        taken: list[_Kept] = []
        size = 0
        with self._lock:
            for kept in self._kept.values():
                if kept.due_s > now_s:
                    continue
                size += len(kept.outcome.text)
                if taken and (len(taken) == MAX_OUTCOMES or size > MAX_TEXT_SENT):
                    break
                taken.append(kept)
                kept.due_s = now_s + kept.wait_s
                kept.wait_s = min(kept.wait_s * 2, MAX_RESEND_S)
        if not taken:
            return False
        try:
            self._sender.publish_many(self._sealed(taken))
        except OSError as error:
            _log.warning("outcomes_not_sent", count=len(taken), reason=reason_of(error))
            with self._lock:
                for kept in taken:
                    # Nobody had a chance to confirm it: that is no reason to wait longer.
                    kept.due_s, kept.wait_s = self._clock() + self._resend_s, self._resend_s
        return True

    def _sealed(self, taken: Sequence[_Kept]) -> list[NewTask]:
        """Seal outcomes in one message; where that fails halves of them, down to each alone.

        One that cannot be sealed alone never can: its attempt failed instead, which can be told.

        Raises:
            MemoryError, OSError: it cannot be done now.
        """
        try:
            return [self._message(tuple(kept.outcome for kept in taken))]
        except (MemoryError, OSError):
            raise
        except Exception as error:  # noqa: BLE001 (logged; its text could quote an answer)
            if len(taken) > 1:
                half = len(taken) // 2
                return self._sealed(taken[:half]) + self._sealed(taken[half:])
            (kept,) = taken
            _log.error("outcome_not_sealed", order=kept.outcome.order, reason=type(error).__name__)
        if kept.outcome.failure == NOT_SEALED:
            return []  # not even that: it is tried again with the next one that is due
        kept.outcome = _failed(kept.outcome)
        return self._sealed(taken)

    def _message(self, batch: tuple[Outcome, ...]) -> NewTask:
        token = self._seal(Outcomes(outcomes=batch))
        label = f"order={batch[0].order}" + (f" +{len(batch) - 1}" if len(batch) > 1 else "")
        return NewTask(HERDER_QUEUE, OUTCOME_TASK, token, attempt_id(batch[0].held), label)

    def start(self) -> None:
        """Begin to send."""
        self._loop.start()

    def _step(self) -> None:
        if self.send():
            # While orders end thick and fast, their outcomes share a message.
            if self._others_run():
                self._loop.pause(GATHER_S)
            return
        with self._lock:
            if self._loop.stopping:
                return
            due_s = min((kept.due_s for kept in self._kept.values()), default=None)
            self._changed.wait(None if due_s is None else max(0.001, due_s - self._clock()))

    def _send_all(self) -> None:
        while self.send():
            pass

    def _unblock(self) -> None:
        with self._lock:
            self._changed.notify()

    def stop(self, timeout_s: float = 5.0) -> None:
        """Send what is due, and end the thread; what was not confirmed is another worker's."""
        self._loop.stop(timeout_s)
