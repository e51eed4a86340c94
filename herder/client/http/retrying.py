"""Decides whether a call to a gateway is sent again, and when. Pure: no connection, no clock.

`retrying` is written as httpx writes its `auth_flow`: a generator that yields what to do next (the
seconds to wait before the call is sent) and is given what came of it. So the client for threads and
the one for event loops share each rule, and differ only in how they wait.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator
from typing import TypedDict

import httpx

from herder import errors
from herder.client.http.failures import PASSING, away, error_of, lasts, told_by
from herder.webhooks.schedule import retry_after_us

MAX_TRIES = 6
"""Times that a call is sent before its failure is told: some five seconds."""
MAX_SETTLING_TRIES = 9
"""The same of a submission that may have been taken unheard: most of a minute."""
MAX_STREAM_TRIES = 9
"""Times in a row that a stream may break and bring nothing: most of a minute."""
MIN_PAUSE_S = 0.1
MAX_PAUSE_S = 20.0


class Cut(Exception):
    """A stream that was refused for now, or that ended before its order did.

    Args:
        error: that is told if it stays so; None if nothing was refused.
    """

    def __init__(self, error: errors.HerdError | None = None) -> None:
        super().__init__()
        self.error = error


Outcome = httpx.Response | httpx.RequestError | Cut
"""The outcome of sending a call. A response was read to its end."""

Retries = Generator[float, Outcome, httpx.Response]


def pause_s(
    tried: int, retry_after: str | None, chance: random.Random, now_s: float = 0.0
) -> float:
    """Return the pause before the next try, in seconds: as told, else longer each time.

    Args:
        tried: how often the call was sent.
        retry_after: the answer's header, seconds or a date (RFC 9110, 10.2.3).
        chance: spreads clients that failed together.
        now_s: the time, in seconds since the epoch.
    """
    told_s = retry_after_us(retry_after, int(now_s * 1_000_000)) / 1_000_000
    if told_s > 0:
        return min(MAX_PAUSE_S, told_s)
    grown_s = min(MAX_PAUSE_S, MIN_PAUSE_S * 2 ** min(tried, 30))
    return float(grown_s * chance.uniform(0.5, 1.0))


class RetryOptions(TypedDict, total=False):
    """The schedule on which a call is sent again; see `retrying`."""

    max_tries: int
    is_awaited: Callable[[], bool]
    key: str | None


def retrying(
    url: str,
    chance: random.Random,
    clock_s: Callable[[], float],
    *,
    max_tries: int = MAX_TRIES,
    is_awaited: Callable[[], bool] = lambda: False,
    key: str | None = None,
) -> Retries:
    """Yield the seconds to wait before each sending of one call; takes what came of it.

    Args:
        url: of the gateway, for sentences.
        chance: spreads clients that failed together.
        clock_s: the time, in seconds since the epoch.
        max_tries: how often the call is sent at least, while its failure may pass.
        is_awaited: whether it is sent still more often: its caller has time left.
        key: the idempotency key of a submission: once that may have been taken, it is sent for
            longer before its failure is told, and the key is told with it.

    Returns:
        The answer, a success.

    Raises:
        HerdError: what the answer says; `HerdUnavailable` or `SetupError` if there is no answer.
    """
    tried, wait_s, is_open = 0, 0.0, False
    while True:
        outcome = yield wait_s
        tried += 1
        if isinstance(outcome, httpx.Response) and outcome.is_success:
            return outcome
        error, retry_after, passes = _judge(outcome, url, clock_s())
        is_open = is_open or (key is not None and _may_be_taken(outcome))
        if is_open:
            max_tries = MAX_SETTLING_TRIES
        if not passes or (tried >= max_tries and not is_awaited()):
            if is_open and isinstance(error, errors.HerdUnavailable):
                error = _unsettled(error, str(key))
            raise error from (outcome if isinstance(outcome, Exception) else None)
        wait_s = pause_s(tried, retry_after, chance, clock_s())


def _unsettled(error: errors.HerdUnavailable, key: str) -> errors.HerdUnavailable:
    return errors.HerdUnavailable(
        f"{error.message} The order may have been taken: the same call with "
        f"idempotency_key={key!r} finds it, and is charged once.",
        **{**error.data, "idempotency_key": key},
    )


def _judge(outcome: Outcome, url: str, now_s: float) -> tuple[errors.HerdError, str | None, bool]:
    """Return a failure's error, when to try again, and whether it is temporary."""
    if isinstance(outcome, httpx.RequestError):
        return away(outcome, url), None, not lasts(outcome)
    if isinstance(outcome, Cut):
        return outcome.error or away(None, url), None, True
    error = error_of(outcome.status_code, outcome.content, outcome.headers, url, now_s)
    return error, outcome.headers.get("retry-after"), outcome.status_code in PASSING


def _may_be_taken(outcome: Outcome) -> bool:
    """Return whether a submission that ended so may have become an order.

    A gateway says 503 of what it did not take, unless it says otherwise (`order` of its data).
    What stands before one says 502, 503 or 504 of what it may have passed on.
    """
    if isinstance(outcome, httpx.Response):
        told = told_by(outcome.content)
        return outcome.status_code in PASSING and (told is None or "order" in told.data)
    return not isinstance(outcome, (httpx.ConnectError, httpx.ConnectTimeout))
