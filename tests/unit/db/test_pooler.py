"""PostgreSQL behind a pooler: limits are each transaction's own, and nothing is left behind."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing

import psycopg
import pytest
from sqlalchemy import select, text, update
from sqlalchemy.exc import DBAPIError

from herder.db.database import Database
from herder.db.tables import clock
from herder.errors import HerdUnavailable, SetupError
from herder.host import home
from herder.settings import InitialPolicy, load_settings
from tests.support.bouncer import Bouncer, require_bouncer

pytestmark = pytest.mark.usefixtures("clean_environment")


@pytest.fixture
def behind(postgres_server, tmp_path) -> Iterator[Callable[..., str]]:
    """Gives the address of a herd's database behind a PgBouncer of a mode."""
    require_bouncer()
    with ExitStack() as ends:

        def make(mode: str, **options: int) -> str:
            name = postgres_server.new_database(postgres_server.migrated)
            ends.callback(postgres_server.drop, name)
            settings = load_settings(tmp_path, database_url=postgres_server.url(name))
            home.init(settings, InitialPolicy(model="stub"))
            bouncer = Bouncer(postgres_server.port, mode, **options)
            ends.callback(bouncer.close)
            return bouncer.url(name)

        yield make


def shown(connection, name: str) -> str:
    return str(connection.execute(text(f"SHOW {name}")).scalar_one())


@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_each_transaction_has_its_limits(behind, mode):
    with closing(Database(behind(mode), lease_s=20)) as database:
        for _ in range(12):  # beyond the fifth time, a driver left alone prepares a statement
            for transaction in (database.read, database.write):
                with transaction() as connection:
                    assert shown(connection, "lock_timeout") == "6s"
                    assert shown(connection, "idle_in_transaction_session_timeout") == "6s"
                    assert shown(connection, "synchronous_commit") == "on"


def test_nothing_stays_behind_in_a_connection_that_others_share(behind):
    url = behind("transaction", pool=1)
    with closing(Database(url, lease_s=20)) as database:
        for _ in range(12):
            with database.write() as connection:
                connection.execute(select(clock.c.heard_s)).scalar_one()
    with psycopg.connect(url, autocommit=True, prepare_threshold=None) as other:
        assert other.execute("SHOW lock_timeout").fetchone() == ("0",)
        assert other.execute("SHOW idle_in_transaction_session_timeout").fetchone() == ("0",)
        assert other.execute("SELECT count(*) FROM pg_prepared_statements").fetchone() == (0,)


def test_two_programs_that_share_one_connection_take_turns(behind):
    url = behind("transaction", pool=1)
    with closing(Database(url)) as one, closing(Database(url)) as two:
        for _ in range(12):
            for database in (one, two):
                with database.write() as connection:
                    connection.execute(update(clock).values(heard_s=clock.c.heard_s + 1))
        with one.read() as connection:
            assert connection.execute(select(clock.c.heard_s)).scalar_one() == 24


def test_who_is_stopped_in_mid_transaction_stops_nobody_else(behind):
    with closing(Database(behind("transaction"), lease_s=3)) as database:
        stopped = database.write()
        connection = stopped.__enter__()
        connection.execute(update(clock).values(heard_s=1))
        time.sleep(1.5)  # it does nothing, and holds the lock
        with database.write() as other:
            other.execute(update(clock).values(heard_s=2))
        with pytest.raises(DBAPIError) as gone:
            connection.execute(update(clock).values(heard_s=3))
        with pytest.raises(HerdUnavailable):
            stopped.__exit__(type(gone.value), gone.value, gone.value.__traceback__)


# What cannot work is refused in a line.


def refusal(url: str) -> str:
    with (
        pytest.raises(SetupError) as refused,
        closing(Database(url)) as database,
        database.write(),
    ):
        pass
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_a_mode_without_transactions_is_refused(behind):
    assert "pool_mode to transaction" in refusal(behind("statement"))


def test_an_option_that_pgbouncer_does_not_take_is_named(behind):
    url = behind("transaction")
    assert "'options'" in refusal(f"{url}?options=-csearch_path%3Dherd")
