"""The retry schedule of messages. Pure."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Literal

RETRIES_S = (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
"""Seconds between tries, after the first, which is at once.

Source: Standard Webhooks, "Deliverability and reliability": 75 hours in all."""

JITTER_PERCENT = 20
"""The random spread of a wait, either way: what failed together comes back one by one."""

MAX_RETRY_AFTER_S = 86_400
"""The longest wait that a receiver may ask for."""

GONE = 410
DISABLE_AFTER_S = 5 * 86_400
"""An endpoint that nothing reached for so long is disabled when the next message is given up."""

UNREADABLE = "unreadable"
"""The trouble of a message that cannot be sent: what it says cannot be read here."""

State = Literal["pending", "delivered", "dead"]


@dataclass(frozen=True, slots=True)
class Reply:
    """The reply to one attempt.

    Attributes:
        status: the receiver's status, or None where it gave none.
        trouble: what was wrong, as a short stable word; None if nothing was.
        retry_after: the receiver's header.
    """

    status: int | None
    trouble: str | None = None
    retry_after: str | None = None

    @property
    def delivered(self) -> bool:
        """Whether the receiver took it: 2xx, and nothing else."""
        return self.status is not None and 200 <= self.status < 300

    @property
    def hopeless(self) -> bool:
        """Whether another try could only fail, and no receiver is to blame."""
        return self.trouble == UNREADABLE

    @property
    def gone(self) -> bool:
        """Whether the receiver wants nothing any more."""
        return self.status == GONE


@dataclass(frozen=True, slots=True)
class Verdict:
    """The state of a delivery after an attempt.

    Attributes:
        failures: tries that failed, since it was queued or replayed.
        due_us: when it is tried again, where it is pending.
    """

    state: State
    failures: int
    due_us: int


def judge(
    reply: Reply,
    failures: int,
    now_us: int,
    *,
    rng: random.Random,
    retries_s: tuple[int, ...] = RETRIES_S,
) -> Verdict:
    """Return the next state of a delivery after a try's reply.

    Args:
        reply: what came.
        failures: tries that failed before.
        now_us: the time.
        rng: whose jitter.
        retries_s: the waits between tries.
    """
    if reply.delivered:
        return Verdict("delivered", failures, now_us)
    failures += 1
    if reply.gone or reply.hopeless or failures > len(retries_s):
        return Verdict("dead", failures, now_us)
    wait_us = retries_s[failures - 1] * 1_000_000
    spread_us = wait_us * JITTER_PERCENT // 100
    wait_us += rng.randint(-spread_us, spread_us)
    # What it asks for is the least: to come earlier would be to ignore it.
    asked_us = retry_after_us(reply.retry_after, now_us)
    return Verdict("pending", failures, now_us + max(wait_us, asked_us))


def retry_after_us(header: str | None, now_us: int) -> int:
    """Microseconds that a `Retry-After` asks for: seconds or a date (RFC 9110, 10.2.3); else 0."""
    if header is None:
        return 0
    text = header.strip()
    if text.isascii() and text.isdigit():
        seconds = int(text[:9])
    else:
        try:
            moment = parsedate_to_datetime(text)
        except (ValueError, TypeError, OverflowError):
            return 0
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        seconds = int(moment.timestamp()) - now_us // 1_000_000
    return min(max(seconds, 0), MAX_RETRY_AFTER_S) * 1_000_000
