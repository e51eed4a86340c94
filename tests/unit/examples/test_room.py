"""The room's rules, and the rooms under a clock that the test turns."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from herder.errors import HerdUnavailable, InvalidName, NotFound, RateLimited, Unauthorized
from herder.examples.room.rooms import Rooms
from herder.examples.room.rules import (
    MAX_CHARS,
    MAX_JOINS_AT_ONCE,
    MAX_MESSAGES_AT_ONCE,
    MINUTE_US,
    NAME_HELD_S,
    InvalidText,
    NameTaken,
    Pace,
    parse_name,
    parse_text,
)
from herder.examples.room.settings import RoomSettings
from herder.examples.room.store import Store


class Clock:
    now_us = 1_000_000_000_000

    def __call__(self):
        return self.now_us

    def pass_s(self, seconds):
        self.now_us += int(seconds * 1_000_000)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def make_rooms(tmp_path, clock, clean_environment):
    stores = []

    def make(**settings):
        for store in stores:
            store.close()
        stores[:] = [Store(tmp_path / "room.db")]
        return Rooms(stores[0], RoomSettings(home=tmp_path, **settings), clock_us=clock)

    yield make
    stores[0].close()


def test_a_message_is_kept_without_the_space_around_it():
    assert parse_text("  Hi\tthere\n\nyou 🦙 \n") == "Hi\tthere\n\nyou 🦙"
    assert parse_text("a" * MAX_CHARS + " ") == "a" * MAX_CHARS
    for wrong in ("", " \n", "a" * (MAX_CHARS + 1), "a\x00b", "\x1b[2J", "\x7f", "\x9b", "\ud800"):
        with pytest.raises(InvalidText):
            parse_text(wrong)


def test_a_name_is_one_that_looks_like_no_other():
    assert parse_name("Ada-2.b_c") == "Ada-2.b_c"
    for wrong in ("", "a b", "\u0430", "ada\n", "-ada", "a" * 33):  # the third is Cyrillic
        with pytest.raises(InvalidName):
            parse_name(wrong)


def test_a_pace_allows_a_burst_and_then_its_rate():
    pace, now_us = Pace(per_minute=60, at_once=3), 5_000_000
    assert [pace.wait_us("a", now_us) for _ in range(4)] == [0, 0, 0, 1_000_000]
    assert pace.wait_us("b", now_us) == 0, "each has a pace of its own"
    assert pace.wait_us("a", now_us + 999_999) == 1
    assert pace.wait_us("a", now_us + 1_000_000) == 0
    assert pace.wait_us("a", now_us + 1_000_000) == 1_000_000
    assert [pace.wait_us("a", now_us + MINUTE_US) for _ in range(4)] == [0, 0, 0, 1_000_000]


def test_a_pace_keeps_count_of_so_many_and_forgets_who_may_go_on():
    pace = Pace(per_minute=60, at_once=3, most=2)
    assert pace.wait_us("a", 0) == pace.wait_us("b", 0) == 0
    assert pace.wait_us("c", 0) > 0, "nobody more while both are counted"
    assert pace.wait_us("a", 0) == 0
    assert pace.wait_us("c", 1_500_000) == 0, "b's time has come, and it is as if it was never here"
    assert pace.wait_us("b", 1_500_000) > 0


def test_a_name_is_held_while_its_holder_shows_up_and_free_a_while_after(make_rooms, clock):
    rooms = make_rooms()
    ada, token = rooms.join("lobby", "ada", "here")
    for _ in range(3):
        clock.pass_s(NAME_HELD_S)
        assert rooms.recognise("lobby", token).id == ada.id
    with pytest.raises(NameTaken):
        rooms.join("lobby", "Ada", "here")
    clock.pass_s(NAME_HELD_S)
    rooms.still_here(ada)  # by a line that is open
    clock.pass_s(NAME_HELD_S)
    assert rooms.members("lobby") == ["ada"]
    clock.pass_s(1)
    assert rooms.members("lobby") == []
    with pytest.raises(Unauthorized, match="10 minutes"):
        rooms.recognise("lobby", token)
    other, _ = rooms.join("lobby", "ada", "here")
    assert other.id != ada.id


def test_a_token_is_for_one_room(make_rooms):
    rooms = make_rooms(room_names="lobby,market")
    _, token = rooms.join("lobby", "ada", "here")
    with pytest.raises(Unauthorized):
        rooms.recognise("market", token)
    with pytest.raises(NotFound, match="lobby, market"):
        rooms.join("attic", "ada", "here")
    rooms.join("market", "ada", "here")


def test_an_address_takes_so_many_names_and_another_is_not_hindered(make_rooms, clock):
    rooms = make_rooms()
    for n in range(MAX_JOINS_AT_ONCE):
        rooms.join("lobby", f"a{n}", "there")
    with pytest.raises(RateLimited) as refused:
        rooms.join("lobby", "more", "there")
    rooms.join("lobby", "ada", "here")
    clock.pass_s(refused.value.retry_after_s)
    rooms.join("lobby", "more", "there")


def test_a_full_room_takes_nobody_until_somebody_goes(make_rooms, monkeypatch):
    monkeypatch.setattr("herder.examples.room.rooms.MAX_MEMBERS", 2)
    rooms = make_rooms()
    ada, _ = rooms.join("lobby", "ada", "here")
    rooms.join("lobby", "bob", "here")
    with pytest.raises(RateLimited, match="full"):
        rooms.join("lobby", "cyd", "here")
    rooms.leave(ada)
    rooms.join("lobby", "cyd", "here")


def test_history_is_a_window_and_a_reader_behind_it_is_told(make_rooms, clock):
    rooms = make_rooms(room_history=5, room_messages_per_minute=6000)
    ada, _ = rooms.join("lobby", "ada", "here")
    for n in range(12):
        clock.pass_s(1)
        rooms.say(ada, str(n))
    assert [one.text for one in rooms.read("lobby", None, 3).messages] == ["9", "10", "11"]
    page = rooms.read("lobby", 0, 3)
    assert ([one.text for one in page.messages], page.missed) == (["7", "8", "9"], True)
    page = rooms.read("lobby", page.next, 3)
    assert ([one.text for one in page.messages], page.missed) == (["10", "11"], False)
    assert rooms.read("lobby", page.next, 3).messages == []
    assert rooms.read("lobby", page.next, 3).next == page.next
    again = make_rooms()  # what was said and who has which name stays; ids go on
    assert [one.text for one in again.read("lobby", None, 1).messages] == ["11"]
    with pytest.raises(NameTaken):
        again.join("lobby", "ada", "here")
    assert again.say(ada, "12").id == page.next + 1


def test_a_burst_of_messages_is_bounded(make_rooms, clock):
    rooms = make_rooms()
    ada, _ = rooms.join("lobby", "ada", "here")
    for _ in range(MAX_MESSAGES_AT_ONCE):
        rooms.say(ada, "Hi!")
    with pytest.raises(RateLimited) as refused:
        rooms.say(ada, "Hi!")
    clock.pass_s(refused.value.retry_after_s)
    rooms.say(ada, "Hi!")


def test_only_its_owner_may_read_the_file(make_rooms, tmp_path):
    make_rooms()
    assert {oct(path.stat().st_mode & 0o777) for path in tmp_path.glob("room.db*")} == {"0o600"}


def test_a_file_that_fails_is_told_without_words_of_the_database(make_rooms, tmp_path):
    make_rooms()
    store = Store(tmp_path / "other.db")
    store._connection.close()
    with pytest.raises(HerdUnavailable) as told:
        store.count("lobby")
    store.close()
    assert str(told.value) == "The room cannot use its file now; try again."


def test_it_starts_without_what_only_a_herd_needs():
    look = (
        "import sys, herder.examples.room.app; heavy = {'celery', 'kombu', 'sqlalchemy', 'numpy', "
        "'llama_cpp', 'herder.local'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", look], check=True, timeout=60, env=dict(os.environ))
