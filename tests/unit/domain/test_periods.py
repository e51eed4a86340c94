"""Periods of the calendar: each day lies in one, and they follow each other without a gap."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from herder.domain.periods import Every, day_of, moment, parse_day, parse_every, start_us
from herder.errors import InvalidRequest

days = st.dates(date(1970, 1, 8), date(9998, 12, 31))


@given(st.sampled_from(Every), days)
def test_a_day_lies_in_one_period_and_they_follow_each_other(every, day):
    first = every.beginning(day)
    after = every.following(first)
    assert first <= day < after
    assert every.beginning(first) == first
    assert every.beginning(after) == after
    assert every.beginning(date.fromordinal(after.toordinal() - 1)) == first
    assert every.label(first) != every.label(after)


@pytest.mark.parametrize(
    ("every", "day", "first", "after", "label"),
    [
        ("day", "2028-02-28", "2028-02-28", "2028-02-29", "2028-02-28"),
        ("week", "2027-01-03", "2026-12-28", "2027-01-04", "2026-W53"),
        ("week", "2026-11-23", "2026-11-23", "2026-11-30", "2026-W48"),
        ("month", "2026-12-31", "2026-12-01", "2027-01-01", "2026-12"),
        ("month", "2027-02-28", "2027-02-01", "2027-03-01", "2027-02"),
    ],
)
def test_days_weeks_and_months(every, day, first, after, label):
    kind = parse_every(every)
    begins = kind.beginning(date.fromisoformat(day))
    assert begins.isoformat() == first
    assert kind.following(begins).isoformat() == after
    assert kind.label(begins) == label


@given(days)
def test_a_day_begins_at_midnight_in_utc(day):
    begins = start_us(day)
    assert (day_of(begins), day_of(begins - 1)) == (day, date.fromordinal(day.toordinal() - 1))
    assert moment(begins + 1) == datetime(day.year, day.month, day.day, 0, 0, 0, 1, UTC)


@pytest.mark.parametrize(
    "text",
    [
        *("", "today", "2026-13-01", "2026-02-29", "20261125", "2026-W48-3", "2026-1-5"),
        *(
            "1969-12-31",
            "9999-01-01",
            "2026-11-25T00:00",
            " 2026-11-25",
            "\uff12\uff10\uff12\uff16-11-25",
            "x" * 99,
        ),
        *(None, 5),
    ],
)
def test_what_is_no_day_is_one_sentence(text):
    with pytest.raises(InvalidRequest) as refused:
        parse_day("from", text)
    assert refused.value.message.startswith("from must be a date")
    assert len(refused.value.message) < 150


def test_what_is_no_period_is_one_sentence():
    for wrong in ("year", "", None, ["day"], "Month"):
        with pytest.raises(InvalidRequest, match="day, week, month"):
            parse_every(wrong)
