"""Duties: batches, guards, time limits, and what is counted of them."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy import text

from herder.db.postgres import statement_limit
from herder.duties.records import LEASE_S, DutyGuard, Tally
from herder.duties.runner import Duty, Runner, each_alone
from herder.errors import HerdUnavailable, SetupError
from herder.store import duties as duty_sql
from herder.store.duties import Counts
from tests.support.wait import wait_for
from workers.transport.loops import Loop


def go_on(_seconds):
    return False


def counted(house):
    with house.database.read() as connection:
        return duty_sql.counted(connection)


# Rows that fail


@pytest.mark.parametrize("error", [SetupError("No rights."), HerdUnavailable("Busy."), OSError()])
def test_what_no_row_is_to_blame_for_sets_none_aside(error):
    def do(rows):
        raise error

    with pytest.raises(type(error)):
        each_alone([1, 2, 3], do, lambda row, _: pytest.fail(f"set aside {row}"))


def test_one_bad_row_of_a_batch_is_set_aside_and_the_others_are_done_in_their_order():
    done, aside, calls = [], [], []

    def do(rows):
        calls.append(rows)
        if 7 in rows or 400 in rows:
            raise ValueError(f"{rows[0]}")
        done.extend(rows)

    each_alone(range(500), do, lambda row, error: aside.append((row, str(error))))
    assert done == [row for row in range(500) if row not in (7, 400)]
    assert aside == [(7, "7"), (400, "400")]
    assert len(calls) < 50, "each alone would be 500 transactions"


def test_if_every_row_is_bad_each_is_set_aside():
    aside = []

    def do(rows):
        raise ValueError

    each_alone(["a", "b", "c"], do, lambda row, _error: aside.append(row))
    assert aside == ["a", "b", "c"]


def test_a_batch_without_a_bad_row_is_done_at_once():
    calls = []
    each_alone([1, 2, 3], lambda rows: calls.append(list(rows)), pytest.fail)
    assert calls == [[1, 2, 3]]
    each_alone([], pytest.fail, pytest.fail)


@pytest.mark.parametrize("at", [1, 3])
def test_an_outage_blames_no_row(at):
    calls = []

    def do(rows):
        calls.append(rows)
        if len(calls) == at:
            raise HerdUnavailable("away")
        if len(rows) > 1:
            raise ValueError

    with pytest.raises(HerdUnavailable):
        each_alone([1, 2, 3], do, pytest.fail)
    assert len(calls) == at


# Batches


def test_batches_are_done_until_there_is_no_more_with_a_pause_between():
    left, pauses = [1200], []

    def step(limit):
        left[0] -= min(limit, left[0])
        return left[0] > 0

    def pause(seconds):
        pauses.append(seconds)
        return False

    tally = Tally()
    Runner(Duty("purge", step, batch=500, pause_s=0.25), tally).run(pause)
    assert left == [0]
    assert pauses == [0.25, 0.25]
    assert tally.take()["purge"].runs == 3


def test_a_duty_that_is_to_stop_does_no_further_batch():
    taken = []
    duty = Duty("purge", lambda limit: not taken.append(limit))
    Runner(duty, Tally()).run(lambda _seconds: len(taken) == 3)
    assert len(taken) == 3


def test_a_batch_is_halved_after_each_failure_and_grows_again():
    """A batch that takes longer than the database lets it would never be done else."""
    limits = []

    def step(limit):
        limits.append(limit)
        if limit > 100:
            raise HerdUnavailable("too slow")
        return len(limits) < 6

    tally = Tally()
    runner = Runner(Duty("purge", step, batch=400), tally)
    for _ in range(3):
        if len(limits) < 3:
            try:
                runner.run(go_on)
            except HerdUnavailable:
                continue
    assert limits[:4] == [400, 200, 100, 200]
    assert tally.take()["purge"][:2] == (1, 3)


def test_a_batch_that_takes_longer_than_it_may_is_counted():
    now_s = [0.0]

    def step(_limit):
        now_s[0] += 7.5
        return False

    tally = Tally()
    Runner(Duty("purge", step, limit_s=5), tally, clock_s=lambda: now_s[0]).run(go_on)
    assert tally.take() == {"purge": Counts(runs=1, overruns=1, busy_us=7_500_000)}


def test_a_statement_that_takes_longer_than_its_duty_may_is_ended(house):
    if "postgresql" not in house.settings.database:
        pytest.skip("SQLite ends no statement: there are few rows in each")

    def step(_limit):
        with house.database.write() as connection:
            connection.execute(text("SELECT pg_sleep(600)"))
        return False

    tally = Tally()
    with pytest.raises(HerdUnavailable):
        Runner(Duty("slow", step, limit_s=0.2), tally).run(go_on)
    assert tally.take()["slow"].failures == 1
    with house.database.read() as connection:  # the limit went with the transaction
        assert connection.execute(text("SHOW statement_timeout")).scalar_one() == "0"


def test_a_limit_ends_with_its_block(house):
    if "postgresql" not in house.settings.database:
        pytest.skip("SQLite has no such limit")
    with statement_limit(3.0), house.database.read() as connection:
        assert connection.execute(text("SHOW statement_timeout")).scalar_one() == "3s"
    with house.database.write() as connection:
        assert connection.execute(text("SHOW statement_timeout")).scalar_one() == "0"


# Guards


@pytest.fixture
def two(house):
    """Two herders with a guarded duty each, and how often each did it."""

    def herder(name):
        done = []
        duty = Duty("purge", lambda _limit: done.append(1), period_s=600, alone=True)
        guard = DutyGuard(house.database, name, house.clock)
        return Runner(duty, Tally(), guard), done

    return herder("h-1"), herder("h-2")


def test_a_guarded_duty_is_done_once_in_its_period(house, two):
    (first, done), (second, too) = two
    for _ in range(3):
        first.run(go_on)
        second.run(go_on)
    assert (len(done), len(too)) == (1, 0)
    house.now_us += 600_000_000
    second.run(go_on)
    first.run(go_on)
    assert (len(done), len(too)) == (1, 1)


def test_of_many_herders_at_once_one_does_it(house):
    done, together = [], threading.Barrier(4)

    def run(name):
        duty = Duty("purge", lambda _limit: done.append(name), period_s=600, alone=True)
        together.wait(60)
        Runner(duty, Tally(), DutyGuard(house.database, name, house.clock)).run(go_on)

    threads = [threading.Thread(target=run, args=(f"h-{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(done) == 1


def test_a_herder_that_dies_at_it_holds_it_for_a_lease(house, two):
    (_, _), (second, done) = two
    assert DutyGuard(house.database, "h-dead", house.clock).take("purge", 600)
    second.run(go_on)
    house.now_us += int(LEASE_S * 1e6)
    second.run(go_on)
    assert not done
    house.now_us += 1
    second.run(go_on)
    assert done == [1]


def test_a_herder_that_stood_still_does_not_go_on_once_another_has_it(house):
    taken = []

    def step(_limit):
        taken.append(1)
        house.now_us += int(LEASE_S * 1e6) + 1  # it stands still for as long
        assert DutyGuard(house.database, "h-2", house.clock).take("purge", 600)
        return True

    guard = DutyGuard(house.database, "h-1", house.clock)
    duty = Duty("purge", step, alone=True)
    Runner(duty, Tally(), guard, clock_s=lambda: house.now_us / 1e6).run(go_on)
    assert len(taken) == 1
    assert DutyGuard(house.database, "h-2", house.clock).keep("purge"), "it was not taken away"


def test_a_duty_that_fails_at_one_herder_is_tried_by_another(house, two):
    (_, _), (second, done) = two

    def fail(_limit):
        raise ZeroDivisionError

    guard = DutyGuard(house.database, "h-1", house.clock)
    with pytest.raises(ZeroDivisionError):
        Runner(Duty("purge", fail, period_s=600, alone=True), Tally(), guard).run(go_on)
    second.run(go_on)
    assert done == [1]


def test_a_clock_that_was_far_ahead_keeps_nobody_from_a_duty(house, two):
    (first, done), _ = two
    day_us = 86_400_000_000
    ahead = DutyGuard(house.database, "h-ahead", lambda: house.now_us + 3650 * day_us)
    assert ahead.take("purge", 600)
    first.run(go_on)
    assert done == [1]
    assert ahead.take("purge", 600)
    ahead.done("purge", 600)
    first.run(go_on)
    assert done == [1, 1]


# What is counted


def test_what_is_counted_is_added_up_over_all_herders(house):
    first, second = Tally(["purge", "lapse"]), Tally(["purge"])
    first.note("purge", Counts(runs=2, busy_us=5))
    second.failed("purge")
    first.write(house.database)
    second.write(house.database)
    first.write(house.database)
    assert counted(house) == {"lapse": Counts(), "purge": Counts(runs=2, failures=1, busy_us=5)}


def test_what_cannot_be_written_is_kept_and_written_later(house, monkeypatch):
    tally = Tally()
    tally.failed("purge")

    def away(*_):
        raise HerdUnavailable("away")

    with monkeypatch.context() as patched:
        patched.setattr(house.database, "transact", away)
        for _ in range(1000):
            tally.failed("purge")
            with pytest.raises(HerdUnavailable):
                tally.write(house.database)
    tally.write(house.database)
    assert counted(house) == {"purge": Counts(failures=1001)}


def test_counting_leaves_a_guard_as_it_is(house):
    guard = DutyGuard(house.database, "h-1", house.clock)
    assert guard.take("purge", 600)
    tally = Tally(["purge"])
    tally.write(house.database)
    assert guard.keep("purge")
    assert not DutyGuard(house.database, "h-2", house.clock).take("purge", 600)


def test_a_duty_on_a_loop_of_its_own_goes_on_after_a_failure():
    taken = []

    def step(_limit):
        taken.append(1)
        if len(taken) == 1:
            raise ValueError
        return False

    runner = Runner(Duty("lapse", step), Tally())
    loop = Loop("lapse", lambda: runner.run(loop.pause), every_s=3600.0, retry_s=(0.01, 0.01))
    loop.start()
    wait_for(lambda: len(taken) == 2, "the batch after the failure")
    assert loop.stop(60)
