"""A database that another version made is refused in one sentence, and nothing is done to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import text

from herder.db import migrations
from herder.db.database import Database
from herder.errors import DatabaseVersionMismatch, SetupError
from herder.host import home
from herder.settings import InitialPolicy
from tests.unit.cli.herder_cli_support import Cli

LATER, EARLIER = "0999", migrations.KNOWN[-2]
SAYS = {LATER: "later version", EARLIER: "`herd init` brings it up to date"}

pytestmark = pytest.mark.usefixtures("clean_environment")


def test_the_versions_that_are_known_are_those_of_the_migrations():
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    script = ScriptDirectory.from_config(config)
    assert script.get_current_head() == migrations.KNOWN[-1]
    assert {one.revision for one in script.walk_revisions()} == set(migrations.KNOWN)


@pytest.fixture
def made_by(house) -> Callable[..., object]:
    """Has the house's database be of another version for a block."""

    def mark(version: str) -> None:
        with house.database.write() as connection:
            connection.execute(
                text("UPDATE alembic_version SET version_num = :to"), {"to": version}
            )

    @contextmanager
    def during(version: str) -> Iterator[None]:
        mark(version)
        try:
            yield
        finally:
            mark(migrations.KNOWN[-1])

    return during


@pytest.mark.parametrize("version", [LATER, EARLIER])
def test_whoever_opens_it_is_told_which_version_it_is_of(house, made_by, version):
    with made_by(version), closing(Database(house.settings.database)) as database:
        for transaction in (database.read, database.write):
            with pytest.raises(DatabaseVersionMismatch, match=SAYS[version]) as told, transaction():
                pass
    error = told.value
    assert (error.code, error.data["version"]) == ("database_version", version)
    assert isinstance(error, SetupError)
    assert error.message.count("\n") == 0
    with closing(Database(house.settings.database)) as database, database.read():
        pass


@pytest.mark.parametrize("version", [LATER, EARLIER])
@pytest.mark.parametrize(
    "words", ["info", "submit hello -n 3", "account list", "worker list", "audit", "gateway"]
)
def test_a_command_ends_with_one_line_and_78(house, monkeypatch, made_by, version, words):
    cli = Cli(house, monkeypatch)
    monkeypatch.setenv("HERD_DATABASE_URL", house.settings.database_url)
    with made_by(version):
        done = cli.run(*words.split())
    assert (done.exit_code, done.stdout) == (78, "")
    assert SAYS[version] in done.stderr
    assert done.stderr.count("\n") == 1


def test_init_leaves_a_later_database_alone_and_says_so(house, monkeypatch, made_by):
    cli = Cli(house, monkeypatch)
    monkeypatch.setenv("HERD_DATABASE_URL", house.settings.database_url)
    with made_by(LATER):
        done = cli.run("init")
        assert (done.exit_code, done.stdout) == (78, "")
        assert SAYS[LATER] in done.stderr
        assert done.stderr.count("\n") == 1
        with pytest.raises(DatabaseVersionMismatch):
            home.init(house.settings, InitialPolicy(model="stub"))


def test_a_process_that_runs_goes_on_while_a_later_version_is_made(house, made_by):
    """Migrations let the version before theirs go on, so that herders are upgraded one by one."""
    with made_by(LATER):
        order = house.submit()
    assert house.order(order.id).id == order.id
