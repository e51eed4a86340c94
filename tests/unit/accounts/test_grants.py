"""Grants: each period is posted once, whoever dies, comes late, or has the wrong time."""

from __future__ import annotations

import threading
from collections import Counter
from datetime import date
from unittest.mock import Mock

import pytest
from sqlalchemy import Engine, event, update

import ledger
from herder.accounts import grants as grants_module
from herder.accounts.accounts import what
from herder.accounts.grants import Grants
from herder.db.database import Database
from herder.db.tables import grants as grants_table
from herder.domain.periods import day_of, start_us
from herder.errors import (
    AccountNotFound,
    GrantNotFound,
    IdempotencyKeyReused,
    InvalidAmount,
    InvalidIdempotencyKey,
    InvalidName,
    InvalidRequest,
)

DAY_US = 86_400_000_000
ID = "2f5c0a52-6a0e-4f0c-9d5e-1f0c7c2f3b11"


@pytest.fixture
def house(make_house):
    """A herd at noon on Wednesday, 25 November 2026, with nothing in its accounts."""
    made = make_house()
    made.now_us = start_us(date(2026, 11, 25)) + DAY_US // 2
    made.accounts.create("ada")
    return made


def at(house, year, month, day):
    house.now_us = start_us(date(year, month, day))


def given(house, account="ada"):
    """The periods that an account was given something for, in the order of its statement."""
    entries = house.accounts.statement(account, limit=1000)
    assert {what(one) for one in entries} <= {"grant"}
    return [one.tags["period"] for one in entries]


def test_a_grant_is_posted_at_once_and_then_in_each_month(house):
    made = house.grants.create("ada", 500, "month", note="the team's share")
    assert (made.periods, day_of(made.next_us)) == (1, date(2026, 12, 1))
    assert house.available("ada") == 500
    (entry,) = house.accounts.statement("ada")
    assert (what(entry), entry.amount) == ("grant", 500)
    assert entry.tags == {"grant": made.id, "period": "2026-11", "note": "the team's share"}
    assert house.grants.post_due() == 0

    at(house, 2026, 12, 1)
    house.now_us -= 1
    assert house.grants.post_due() == 0
    house.now_us += 1
    assert house.grants.post_due() == 1
    assert house.grants.post_due() == 0
    assert given(house) == ["2026-11", "2026-12"]
    (now,) = house.grants.list("ada")
    assert (now.periods, day_of(now.next_us)) == (2, date(2027, 1, 1))


def test_days_and_weeks_come_when_they_begin(house):
    house.grants.create("ada", 1, "day")
    house.grants.create("default", 10, "week")
    for day in (26, 27, 30):
        at(house, 2026, 11, day)
        house.grants.post_due()
    assert given(house) == [f"2026-11-{day}" for day in range(25, 31)]
    assert given(house, "default") == ["2026-W48", "2026-W49"]


def test_periods_that_nobody_was_there_for_are_posted_on_return_a_bounded_number_at_once(
    house, monkeypatch
):
    monkeypatch.setattr(grants_module, "MAX_POSTED", 5)
    house.grants.create("ada", 1, "day")
    house.grants.create("default", 10, "month")
    at(house, 2026, 12, 4)
    assert [house.grants.post_due() for _ in range(4)] == [5, 5, 0, 0]
    assert given(house) == [*(f"2026-11-{day}" for day in range(25, 31)), *_december(4)]
    assert given(house, "default") == ["2026-11", "2026-12"]
    at(house, 2027, 3, 1)
    for _ in range(100):
        house.grants.post_due()
    assert given(house, "default") == ["2026-11", "2026-12", "2027-01", "2027-02", "2027-03"]
    assert len(set(given(house))) == len(given(house)) == 6 + 31 + 31 + 28 + 1
    assert house.available("ada") == 97


def _december(last):
    return [f"2026-12-{day:02}" for day in range(1, last + 1)]


def test_a_clock_that_is_set_back_posts_nothing_twice(house):
    house.grants.create("ada", 500, "month")
    at(house, 2026, 12, 3)
    house.grants.post_due()
    at(house, 2026, 10, 1)
    assert house.grants.post_due() == 0
    for month in (11, 12):
        at(house, 2026, month, 5)
        assert house.grants.post_due() == 0
    assert given(house) == ["2026-11", "2026-12"]


def test_a_grant_that_forgot_what_it_posted_posts_it_no_second_time(house):
    """A row that came back from a backup, say: the ledger knows what was posted."""
    made = house.grants.create("ada", 500, "month")
    at(house, 2026, 12, 1)
    house.grants.post_due()
    with house.database.write() as connection:
        connection.execute(update(grants_table).values(next_us=made.first_us, periods=0))
    house.grants.post_due()
    assert given(house) == ["2026-11", "2026-12"]
    assert house.available("ada") == 1000


class Killed(BaseException):
    """The process dies: nobody catches it."""


def test_whoever_is_killed_before_any_statement_leaves_the_rest_to_the_next(house):
    for account in ("ada", "default"):
        house.grants.create(account, 500, "month")
    at(house, 2027, 1, 15)
    before = house.accounts.audit().transfers

    left = [0]

    def die(*_):
        left[0] -= 1
        if left[0] < 0:
            raise Killed

    died = 0
    event.listen(Engine, "before_cursor_execute", die)
    try:
        while True:
            left[0] = died
            try:
                house.grants.post_due()
                break
            except Killed:
                left[0] = 10**9
                assert house.accounts.audit().transfers == before, f"at statement {died}"
                died += 1
    finally:
        event.remove(Engine, "before_cursor_execute", die)
    assert died > 4, "it takes some statements to post"
    # The last one was killed after its commit, and could tell nobody.
    assert house.grants.post_due() == 0
    for account in ("ada", "default"):
        assert given(house, account) == ["2026-11", "2026-12", "2027-01"]


def test_one_that_is_killed_while_it_makes_a_grant_has_made_none(house, monkeypatch):
    def die(*_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(ledger.Ledger, "transfer_many", die)
        with pytest.raises(Killed):
            house.grants.create("ada", 500, "month", grant_id=ID)
    assert house.grants.list() == []
    house.grants.create("ada", 500, "month", grant_id=ID)
    assert given(house) == ["2026-11"]


def test_many_herders_at_once_post_each_period_once(house, monkeypatch):
    monkeypatch.setattr(grants_module, "MAX_POSTED", 20)
    names = [f"a{number}" for number in range(10)]
    for name in names:
        house.accounts.create(name)
        house.grants.create(name, 3, "day")
    house.now_us += 12 * DAY_US
    gate = threading.Barrier(4)
    wrong: list[BaseException] = []
    posted: Counter[int] = Counter()

    def herder(number):
        database = Database(house.settings.database)
        other = house.on(database)
        gate.wait()
        try:
            while done := other.grants.post_due():
                posted[number] += done
            # Nothing was due when it looked; what others had taken is theirs to commit.
        except BaseException as error:  # noqa: BLE001 (raised again below)
            wrong.append(error)
        finally:
            database.close()

    threads = [threading.Thread(target=herder, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong, wrong
    while house.grants.post_due():
        pass
    for name in names:
        assert len(given(house, name)) == len(set(given(house, name))) == 13
        assert house.available(name) == 39


def test_many_calls_with_one_id_at_once_make_one_grant(house):
    gate = threading.Barrier(4)
    made = []

    def make():
        gate.wait()
        made.append(house.grants.create("ada", 500, "month", grant_id=ID))

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [one.id for one in made] == [ID] * 4
    assert given(house) == ["2026-11"]


def test_the_same_call_again_is_the_same_grant_and_another_is_refused(house):
    made = house.grants.create("ada", 500, "month", grant_id=ID, note="share")
    at(house, 2027, 2, 3)
    again = house.grants.create("ada", 500, "month", grant_id=ID, note="share")
    assert again == made, "herders post what is due, not whoever asks again"
    for other, field in (
        ({"account": "default"}, "account"),
        ({"amount": 501}, "amount"),
        ({"every": "week"}, "every"),
        ({"note": ""}, "note"),
        ({"starts": date(2027, 3, 1)}, "starts"),
    ):
        asked = {"account": "ada", "amount": 500, "every": "month", "note": "share"} | other
        with pytest.raises(IdempotencyKeyReused, match=f"{field} differs"):
            house.grants.create(grant_id=ID, **asked)
    assert len(house.grants.list()) == 1


def test_a_grant_may_begin_later(house):
    later = house.grants.create("ada", 500, "month", starts=date(2026, 12, 15))
    assert (later.periods, day_of(later.next_us)) == (0, date(2027, 1, 1))
    exact = house.grants.create("ada", 1, "week", starts=date(2026, 11, 30))
    assert day_of(exact.next_us) == date(2026, 11, 30)
    today = house.grants.create("default", 7, "day", starts=date(2026, 11, 25))
    assert today.periods == 1
    at(house, 2026, 12, 1)
    house.grants.post_due()
    assert given(house) == ["2026-W49"]
    with pytest.raises(InvalidRequest, match="must begin today"):
        house.grants.create("ada", 500, "month", starts=date(2026, 11, 30))
    # The call that made one may come again whenever it likes.
    same = house.grants.create("ada", 1, "week", starts=date(2026, 11, 30), grant_id=exact.id)
    assert same.id == exact.id


def test_what_has_ended_gives_nothing_more(house):
    made = house.grants.create("ada", 500, "month")
    at(house, 2026, 12, 1)
    ended = house.grants.end(made.id)
    assert ended.ended_us == house.now_us
    assert house.grants.post_due() == 0, "not what was due and nobody had posted, either"
    house.now_us += 400 * DAY_US
    assert house.grants.post_due() == 0
    assert house.grants.end(made.id) == ended
    assert given(house) == ["2026-11"]
    for nobody in (ID, "", "x", "\ud800"):
        with pytest.raises(GrantNotFound):
            house.grants.end(nobody)


def test_one_that_the_ledger_refuses_ends_and_keeps_nobody_from_theirs(house, caplog):
    broken = house.grants.create("ada", 500, "month")
    house.grants.create("default", 500, "month")
    house.accounts.deposit("ada", 7, ledger.derive(broken.id, "grant", "2026-12"))
    at(house, 2026, 12, 1)
    assert house.grants.post_due() == 1
    assert given(house, "default") == ["2026-11", "2026-12"]
    (now,) = house.grants.list("ada")
    assert now.ended_us == house.now_us
    assert now.failure is not None
    assert "amount differs" in now.failure
    assert broken.id in caplog.text
    assert house.available("ada") == 507


BAD = {
    "its period is a newer version's": ({"every": "fortnight"}, "not known to this version"),
    "its next period is out of the calendar": ({"next_us": -(2**62)}, "internal error"),
    "it gives nothing": ({"amount": 0}, None),
}


@pytest.mark.parametrize("how", BAD)
def test_one_that_cannot_be_read_is_set_aside_and_keeps_nobody_from_theirs(house, caplog, how):
    values, why = BAD[how]
    for number in range(3):
        house.accounts.create(f"other{number}")
        house.grants.create(f"other{number}", 500, "month")
    broken = house.grants.create("ada", 500, "month")
    at(house, 2026, 12, 1)
    change(house, broken.id, **values)
    assert house.grants.post_due() == 3
    (now,) = house.grants.list("ada")
    assert broken.id in caplog.text
    assert house.available("ada") == 500
    if why is None:
        assert now.ended_us == house.now_us, "the ledger refuses it for ever"
        return
    assert now.ended_us is None
    assert why in now.failure
    caplog.clear()
    assert house.grants.post_due() == 0
    assert not caplog.records, "it is not tried again at once"

    change(house, broken.id, every="month", next_us=start_us(date(2026, 12, 1)))
    assert house.grants.post_due() == 0
    house.now_us += grants_module.RETRY_US
    assert house.grants.post_due() == 1
    assert given(house) == ["2026-11", "2026-12"]
    assert house.grants.list("ada")[0].failure is None


def test_many_that_are_set_aside_are_tried_again_a_bounded_number_at_once(house):
    made = [house.grants.create("ada", 5, "day") for _ in range(5)]
    house.now_us += DAY_US
    for one in made:
        change(house, one.id, every="fortnight")
    assert house.grants.post_due() == 0
    for one in made:
        change(house, one.id, every="day")
    house.now_us += grants_module.RETRY_US
    assert [house.grants.post_due(2) for _ in range(4)] == [2, 2, 1, 0]


def test_a_herder_that_starts_tries_again_what_was_set_aside(house):
    made = house.grants.create("ada", 5, "day")
    house.now_us += DAY_US
    change(house, made.id, every="fortnight")
    assert house.grants.post_due() == 0
    change(house, made.id, every="day")
    assert house.grants.post_due() == 0
    after = Grants(house.database, house.books, clock_us=house.clock)
    assert after.post_due() == 1


def change(house, grant_id, **values):
    """A row as another version may have written it."""
    with house.database.write() as connection:
        connection.execute(
            update(grants_table).where(grants_table.c.id == grant_id).values(**values)
        )


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        ({"account": "nobody"}, AccountNotFound),
        ({"account": "two words"}, InvalidName),
        ({"amount": 0}, InvalidAmount),
        ({"amount": 1.5}, InvalidAmount),
        ({"amount": 2**53}, InvalidAmount),
        ({"every": "year"}, InvalidRequest),
        ({"every": None}, InvalidRequest),
        ({"note": "a\nb"}, InvalidRequest),
        ({"note": "\ud800"}, InvalidRequest),
        ({"note": "x" * 201}, InvalidRequest),
        ({"grant_id": "mine"}, InvalidIdempotencyKey),
    ],
)
def test_what_makes_no_sense_makes_no_grant(house, asked, error):
    with pytest.raises(error):
        house.grants.create(**{"account": "ada", "amount": 500, "every": "month"} | asked)
    assert house.grants.list() == []
    assert given(house) == []


def test_the_longest_note_fits_into_a_statement(house):
    house.grants.create("ada", 500, "month", note="🦙" * 200)
    (entry,) = house.accounts.statement("ada")
    assert entry.tags["note"] == "🦙" * 200


def test_grants_are_listed_by_pages_oldest_first(house):
    made = []
    for number in range(5):
        house.now_us += number % 2  # some of them were made at the same moment
        made.append(house.grants.create(("ada", "default")[number % 2], 5, "week").id)
    found = []
    after = None
    while page := house.grants.list(after=after, limit=2):
        found += [one.id for one in page]
        after = page[-1].id
    assert sorted(found) == sorted(made)
    assert [one.account for one in house.grants.list("ada")] == ["ada"] * 3
    with pytest.raises(GrantNotFound):
        house.grants.list(after=ID)


def test_a_herder_posts_what_is_due_each_second(house, monkeypatch):
    posted = Mock(return_value=0)
    monkeypatch.setattr(house.grants, "post_due", posted)
    service = house.new_service()
    for _ in range(3):
        service.tick()
        house.now_us += 1_000_000
    assert posted.call_count == 3
