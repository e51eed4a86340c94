"""A disk that is full or read-only: nothing is lost, and what to do is said in one sentence."""

from __future__ import annotations

import os
import sqlite3
from types import SimpleNamespace

import pytest
from sqlalchemy import event, text

from herder.db import sqlite_errors
from herder.db.database import Database
from herder.errors import HerdUnavailable, SetupError

pytestmark = pytest.mark.usefixtures("clean_environment")


@pytest.fixture
def sqlite_house(tmp_path):
    from tests.support.house import House

    made = House(tmp_path / "house")
    made.fund(100_000)
    yield made
    made.check()
    made.close()


def test_wherever_the_disk_is_full_an_order_is_taken_whole_or_not_at_all(sqlite_house):
    """At each size at which it may stop, from none to all that the order takes."""
    house = sqlite_house
    with house.database.read() as connection:
        pages = connection.execute(text("PRAGMA page_count")).scalar_one()
    limit = None

    @event.listens_for(house.database._server._writer, "begin")
    def set_limit(connection) -> None:
        connection.exec_driver_sql(f"PRAGMA max_page_count = {limit or 1_000_000}")

    taken, refused = 0, set()
    for more in range(40):
        limit = pages + more
        for _ in range(3):
            try:
                house.submit(prompt="word " * 2000, fee=5000)
            except HerdUnavailable as error:
                refused.add(error.message)
            else:
                taken += 1
    limit = None
    assert refused == {sqlite_errors.FULL}
    assert taken > 3
    assert house.accounts.balance("default").held == 5000 * taken


@pytest.mark.parametrize("words", ["unable to open database file", "disk I/O error"])
def test_a_disk_that_is_full_is_seen_behind_other_words_of_sqlite(tmp_path, monkeypatch, words):
    path = tmp_path / "herd.db"
    path.touch()
    full = SimpleNamespace(f_flag=0, f_bavail=0, f_frsize=4096)
    monkeypatch.setattr(os, "statvfs", lambda _: full)
    said = sqlite_errors.meaning(words, str(path))
    assert isinstance(said, HerdUnavailable)
    assert said.message == sqlite_errors.FULL
    assert "disk" not in said.told_callers


@pytest.mark.parametrize(
    "words",
    ["unable to open database file", "attempt to write a readonly database", "disk I/O error"],
)
def test_a_disk_that_is_mounted_read_only_is_waited_for(tmp_path, monkeypatch, words):
    path = tmp_path / "herd.db"
    path.touch()
    read_only = SimpleNamespace(f_flag=os.ST_RDONLY, f_bavail=1000, f_frsize=4096)
    monkeypatch.setattr(os, "statvfs", lambda _: read_only)
    said = sqlite_errors.meaning(words, str(path))
    assert isinstance(said, HerdUnavailable)
    assert said.message == sqlite_errors.READ_ONLY


def test_a_file_of_somebody_else_is_no_disk_and_no_herd_to_be_made(tmp_path):
    path = tmp_path / "herd.db"
    path.touch()
    for words in ("unable to open database file", "attempt to write a readonly database"):
        said = sqlite_errors.meaning(words, str(path))
        assert isinstance(said, SetupError)
        assert "herd init" not in said.message
        assert "the user that made it" in said.message
    missing = sqlite_errors.meaning("unable to open database file", str(tmp_path / "no.db"))
    assert "`herd init` creates it" in str(missing)


@pytest.mark.parametrize(
    ("number", "said"), [("ENOSPC", sqlite_errors.FULL), ("EROFS", sqlite_errors.READ_ONLY)]
)
def test_a_lock_that_no_disk_takes_says_what_the_disk_lacks(tmp_path, monkeypatch, number, said):
    import errno

    code = getattr(errno, number)

    def fail(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    database = Database(f"sqlite:///{tmp_path / 'herd.db'}", any_version=True)
    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(HerdUnavailable) as refused, database.write():
        pass
    monkeypatch.undo()
    assert refused.value.message == said
    database.close()


def test_the_words_are_sqlites_own(tmp_path):
    """What the sentences are found by, said by the SQLite that is here."""
    with sqlite3.connect(tmp_path / "a.db") as connection:
        connection.execute("CREATE TABLE t (a)")
        connection.execute("PRAGMA max_page_count = 3")
        with pytest.raises(sqlite3.OperationalError, match="is full"):
            connection.execute("INSERT INTO t VALUES (zeroblob(1000000))")
    connection.close()
    with pytest.raises(sqlite3.OperationalError, match="unable to open"):
        sqlite3.connect(tmp_path / "no" / "a.db")
