"""Who sends what is not theirs to send: unknown keys, other workers' names, guesses, garbage."""

from __future__ import annotations

from collections.abc import Callable

from redis import RedisError

from tests.simulation.clockwork import Clockwork
from tests.simulation.keys import FORGERS_KEY, STRANGER_KEY
from tests.simulation.network import Broker, Redis
from tests.simulation.shadow import Row, Shadow
from workers.transport.tasks import NewTask
from workers.wire import (
    BEATS_STREAM,
    HERDER_QUEUE,
    INFERENCE_QUEUE,
    OUTCOME_TASK,
    AttemptRef,
    Claim,
    Marker,
    Outcome,
    Outcomes,
    PrivateKey,
    attempt_id,
    seal,
)


class Strangers:
    """Forged messages about orders that are out; none of them may change anything."""

    def __init__(
        self,
        time: Clockwork,
        broker: Broker,
        redis: Redis,
        shadow: Shadow,
        members: Callable[[], list[tuple[str, PrivateKey]]],
    ) -> None:
        self._members = members
        self._time = time
        self._broker = broker
        self._redis = redis
        self._shadow = shadow

    def call(self) -> None:
        """Send one of them."""
        rows = [row for row in self._shadow.out.values() if row.nonce]
        if not rows:
            return
        row = self._time.rng.choice(rows)
        tricks = (self._outcome_of_nobody, self._guess, self._pose, self._garbage, self._mark)
        trick = self._time.rng.choice(tricks)
        self._time.note(f"{trick.__name__.strip('_')} about order {row.seq}", "stranger")
        try:
            trick(row)
        except (OSError, RedisError):
            self._time.note("was not heard", "stranger")

    def _outcome(self, row: Row, nonce: str) -> Outcome:
        return Outcome(
            order=row.id,
            attempt=row.attempt,
            nonce=nonce,
            result="completed",
            finish_reason="length",
            text="forged",
            generated=row.tokens,
        )

    def _send(self, outcome: Outcome, key: PrivateKey, sender: str, audience: str) -> None:
        token = seal(
            Outcomes(outcomes=(outcome,)),
            key,
            sender=sender,
            audience=audience,
            now_s=self._time.now_us // 1_000_000,
        )
        self._put(token, attempt_id(outcome.held))

    def _put(self, token: str, task_id: str) -> None:
        self._time.count("a stranger writes to the herder")
        self._broker.publish_many([NewTask(HERDER_QUEUE, OUTCOME_TASK, token, task_id, "forged")])

    def _outcome_of_nobody(self, row: Row) -> None:
        """Signed by a key that nobody knows, with all the secrets right."""
        outcome = self._outcome(row, row.nonce or "")
        self._send(outcome, STRANGER_KEY, row.instance or "w1", HERDER_QUEUE)

    def _guess(self, row: Row) -> None:
        """A worker of the herd answers what it was not given."""
        outcome = self._outcome(row, self._time.new_nonce())
        for instance, key in self._members():
            if instance != row.instance:
                self._send(outcome, key, instance, HERDER_QUEUE)
                return

    def _pose(self, row: Row) -> None:
        """A key that may join, under the name of an instance of another key."""
        outcome = self._outcome(row, row.nonce or "")
        self._send(outcome, FORGERS_KEY, row.instance or "w1", HERDER_QUEUE)

    def _garbage(self, row: Row) -> None:
        """No envelope; or one that was meant for elsewhere."""
        self._put("what.is.this", f"{row.id}.{row.attempt}")
        outcome = self._outcome(row, row.nonce or "")
        self._send(outcome, FORGERS_KEY, row.instance or "w1", INFERENCE_QUEUE)

    def _mark(self, row: Row) -> None:
        """A worker turns the listening clock forwards, and claims for another."""
        held = AttemptRef(order=row.id, attempt=row.attempt, nonce=self._time.new_nonce())
        for body in (Marker(number=10**6), Claim(held=(held,))):
            token = seal(
                body,
                FORGERS_KEY,
                sender="w1-forged",
                audience=BEATS_STREAM,
                now_s=self._time.now_us // 1_000_000,
            )
            self._time.count("a stranger writes to the beats")
            self._redis.add_beat(token)
