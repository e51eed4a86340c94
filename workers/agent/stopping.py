"""The time that the whole stop of a worker may take: pure but for the clock.

Whoever stops processes gives them so long and then kills them, Docker after 10 s. So the grace time
is that of the whole stop, and orders have all of it but what the rest takes: to hand them back, to
have outcomes confirmed, to say farewell, and to free the model.
"""

from __future__ import annotations

from collections.abc import Callable

CLOSE_S = 3.0
"""Seconds at the end of a stop in which no order runs any more; the shortest stop too."""

FAREWELL_S = 1.5
"""Seconds of those that are kept from waiting for confirmations: a read of the control stream may
take one to return."""


class StopClock:
    """The time that is left of a stop.

    Args:
        clock: seconds that only rise.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._end_s: float | None = None

    def begin(self, grace_s: float) -> float:
        """Begin the stop, or shorten one that has begun.

        Args:
            grace_s: seconds that all of it takes at most, or `CLOSE_S` if that is more.

        Returns:
            Seconds for which orders may go on.
        """
        end_s = self._clock() + max(grace_s, CLOSE_S)
        if self._end_s is None or end_s < self._end_s:
            self._end_s = end_s
        return max(0.0, self.left_s - CLOSE_S)

    @property
    def begun(self) -> bool:
        """Whether the stop has begun."""
        return self._end_s is not None

    @property
    def left_s(self) -> float:
        """Seconds that are left of it; 0 once they are over, or where none began."""
        return 0.0 if self._end_s is None else max(0.0, self._end_s - self._clock())

    @property
    def to_confirm_s(self) -> float:
        """Seconds in which outcomes may still be confirmed."""
        return max(0.0, self.left_s - FAREWELL_S)
