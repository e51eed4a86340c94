"""Files that hold prompts or keys are their owner's alone, whatever folder they are in."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import text

from herder.db.database import Database
from herder.examples.room.store import Store
from herder.herd.herder_key import load_herder_key
from herder.host import home
from herder.settings import InitialPolicy, Settings, load_settings
from tests.unit.cli.herder_cli_support import Cli
from workers.settings import read_join_file
from workers.transport import private_files

pytestmark = pytest.mark.usefixtures("clean_environment")


@pytest.fixture
def open_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder that was there before, and a umask, as most users have them."""
    before = os.umask(0o022)
    folder = tmp_path / "open"
    folder.mkdir(mode=0o755)
    yield folder
    os.umask(before)


def modes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): f"{stat.S_IMODE(path.stat().st_mode):04o}"
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def init(folder: Path) -> Settings:
    settings = load_settings(folder)
    home.init(settings, InitialPolicy(model="stub"))
    return settings


def use(settings: Settings) -> dict[str, str]:
    """The modes of all files while the database is written to and read."""
    with closing(Database(settings.database)) as database:
        with database.write() as connection:
            connection.execute(text("UPDATE clock SET heard_s = 1"))
        with database.read() as connection:
            connection.execute(text("SELECT heard_s FROM clock")).scalar_one()
            return modes(settings.home)


def test_all_files_of_a_herd_are_private_from_the_beginning(open_folder):
    settings = init(open_folder)
    found = use(settings)
    assert {"herd.db", "herd.db-wal", "herd.db-shm", "herd.db.lock", "herder.jwk"} <= set(found)
    assert set(found.values()) == {"0600"}


def test_files_that_are_open_are_mended_when_they_are_opened(open_folder):
    settings = init(open_folder)
    for path in open_folder.rglob("*"):
        if path.is_file():
            path.chmod(0o644)
    load_herder_key(settings)
    read_join_file(open_folder / "workers" / "worker.json")
    found = use(settings)
    del found["herd.env"]  # no prompt and no key, and programs of a group may share it
    assert set(found.values()) == {"0600"}


def test_a_first_file_is_private_where_only_root_may_make_nodes(open_folder, monkeypatch):
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "mknod", refuse)
    private_files.make_private(open_folder / "a.db")
    assert modes(open_folder) == {"a.db": "0600"}
    (open_folder / "a.db").write_text("kept")
    private_files.make_private(open_folder / "a.db")
    assert (open_folder / "a.db").read_text() == "kept"


def test_the_rooms_file_is_mended_too(open_folder):
    path = open_folder / "room.db"
    Store(path).close()
    path.chmod(0o644)
    store = Store(path)
    assert set(modes(open_folder).values()) == {"0600"}
    store.close()


def test_init_warns_of_an_open_folder_and_not_of_a_closed_one(house, monkeypatch, open_folder):
    cli = Cli(house, monkeypatch)
    monkeypatch.setenv("HERD_HOME", str(open_folder))
    done = cli.run("init")
    assert done.exit_code == 0
    assert f"chmod 700 {open_folder}" in done.stderr
    assert "mode 0755" in done.stderr
    assert done.stderr.count("\n") == 1
    open_folder.chmod(0o700)
    assert cli.run("init").stderr == ""
    assert home.open_home(open_folder / "nowhere") is None
