"""Days, weeks and months of the calendar, in UTC: pure.

A day is a day wherever its order was bought, or no two herders would agree where a month ends.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum

from herder.errors import InvalidRequest, shown

FIRST_YEAR, LAST_YEAR = 1970, 9998
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Every(StrEnum):
    """The length of a calendar period, in UTC; a week begins on Monday (ISO 8601)."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"

    def beginning(self, day: date) -> date:
        """Return the first day of the period that this day lies in."""
        if self is Every.WEEK:
            return day - timedelta(days=day.weekday())
        return day.replace(day=1) if self is Every.MONTH else day

    def following(self, first: date) -> date:
        """Return the first day of the period after the one that begins so."""
        days = {Every.DAY: 1, Every.WEEK: 7, Every.MONTH: 31}[self]
        return self.beginning(first + timedelta(days=days))

    def label(self, first: date) -> str:
        """Return the period that begins so, as people write it.

        >>> Every.MONTH.label(date(2026, 11, 1)), Every.WEEK.label(date(2026, 12, 28))
        ('2026-11', '2026-W53')
        """
        if self is Every.WEEK:
            year, week, _ = first.isocalendar()
            return f"{year}-W{week:02}"
        return f"{first:%Y-%m}" if self is Every.MONTH else first.isoformat()


def parse_every(value: object) -> Every:
    """Parse a period as callers write it.

    Raises:
        InvalidRequest: it is not one of the three.
    """
    if value not in list(Every):
        raise InvalidRequest(f"every must be one of {', '.join(Every)}, not {shown(value)!r}.")
    return Every(str(value))


def parse_day(name: str, value: object) -> date:
    """Return a day as a caller writes it: `2026-11-25`.

    Args:
        name: what it is called in the sentence that refuses it.
        value: the text.

    Raises:
        InvalidRequest: there is no such day, or it is too far away.
    """
    try:
        # The shape first: Python reads `20261125` and `2026-W48-3` as well.
        day = date.fromisoformat(value) if _DAY.fullmatch(str(value)) else None  # type: ignore[arg-type]
    except ValueError:
        day = None
    if day is None or not FIRST_YEAR <= day.year <= LAST_YEAR:
        raise InvalidRequest(
            f"{name} must be a date such as 2026-11-25, in the years {FIRST_YEAR} to {LAST_YEAR}, "
            f"not {shown(value)!r}."
        )
    return day


def day_of(at_us: int) -> date:
    """Return the day of a moment, given in microseconds since the epoch."""
    return moment(at_us).date()


def start_us(day: date) -> int:
    """Return the beginning of a day, in microseconds since the epoch."""
    return (datetime(day.year, day.month, day.day, tzinfo=UTC) - _EPOCH) // _MICROSECOND


def moment_or_none(at_us: int | None) -> datetime | None:
    """Return a moment; None where there is none, or none that a calendar has.

    For what is shown: a row that another program wrote keeps no list from being read.
    """
    try:
        return None if at_us is None else moment(at_us)
    except OverflowError:
        return None


def moment(at_us: int) -> datetime:
    """Return a moment, given in microseconds since the epoch; exact, as a float would not be."""
    return _EPOCH + at_us * _MICROSECOND
