"""A disk that is full or fails sets no order aside, whichever statement it is noticed by."""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from uuid import uuid4

import pytest
from sqlalchemy import Engine, event

from herder.errors import HerdUnavailable


@contextmanager
def full_disk(house, begins):
    """While the block lasts, statements that begin so find no room."""
    if house.database.reads_at_once:
        error: Exception = sqlite3.OperationalError("database or disk is full")
    else:
        from psycopg.errors import DiskFull

        error = DiskFull("could not extend file: No space left on device")

    def fail(_cursor, statement, _parameters, _context):
        if statement.lstrip().startswith(begins):
            raise error

    for name in ("do_execute", "do_executemany"):
        event.listen(Engine, name, fail)
    try:
        yield
    finally:
        for name in ("do_execute", "do_executemany"):
            event.remove(Engine, name, fail)


@pytest.mark.parametrize("begins", ["INSERT INTO ledger_transfer", "UPDATE account"])
def test_orders_end_once_there_is_room_again(house, begins):
    worker = house.worker(slots=3)
    ran = [house.submit() for _ in range(3)]
    answers = [worker.answer(job, generated=5) for job in house.dispatch()]
    waits = house.submit(start_by_us=house.now_us + 10**6)
    cancelled = house.submit()
    house.now_us += 2 * 10**6
    with full_disk(house, begins):
        for end in (
            lambda: house.settlement.settle(answers),
            house.cancellation.sweep,
            lambda: house.cancellation.cancel(cancelled.id),
        ):
            with pytest.raises(HerdUnavailable):
                end()
    assert house.aside.count() == 0
    house.settlement.settle(answers)
    house.cancellation.sweep()
    house.cancellation.cancel(cancelled.id)
    states = [house.order(one.id).state for one in (*ran, waits, cancelled)]
    assert states == ["completed"] * 3 + ["expired", "cancelled"]


def test_who_pays_is_told_that_the_database_cannot_do_it_now(house):
    with full_disk(house, "INSERT INTO ledger_transfer"):
        with pytest.raises(HerdUnavailable):
            house.submit()
        with pytest.raises(HerdUnavailable):
            house.accounts.deposit("default", 5, str(uuid4()))
    assert house.available() == 100_000
