"""The database as the herder opens it: what its transactions see, whom they wait for, and what is
said when it is out of reach."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from uuid import uuid4

import anyio
import pytest
from sqlalchemy import insert, select, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError

from herder.accounts.accounts import open_ledger
from herder.db import migrations
from herder.db.database import Database, short_reads
from herder.db.tables import account, clock
from herder.errors import HerdUnavailable, SetupError
from herder.gateway.short_reads import look
from herder.host import home
from herder.settings import InitialPolicy, load_settings
from herder.store import models as model_sql

pytestmark = pytest.mark.usefixtures("clean_environment")


@pytest.fixture
def address(new_database, tmp_path) -> str:
    """Where a herd's database is."""
    settings = load_settings(tmp_path, database_url=new_database())
    home.init(settings, InitialPolicy(model="stub"))
    return settings.database


@pytest.fixture
def database(address) -> Iterator[Database]:
    """A herd's database."""
    made = Database(address, lease_s=3)
    yield made
    made.close()


@pytest.fixture
def server_database(postgres_server, tmp_path) -> Iterator[Database]:
    """The same, on PostgreSQL alone."""
    name = postgres_server.new_database(postgres_server.migrated)
    settings = load_settings(tmp_path, database_url=postgres_server.url(name))
    home.init(settings, InitialPolicy(model="stub"))
    made = Database(settings.database, lease_s=3)
    yield made
    made.close()
    postgres_server.drop(name)


def names(connection) -> list[str]:
    return list(connection.execute(select(account.c.name).order_by(account.c.name)).scalars())


def add(connection, name: str) -> None:
    connection.execute(insert(account).values(name=name, created_us=0))


# Transactions


def test_a_transaction_is_committed_at_its_end_and_undone_by_an_exception(database):
    with database.write() as connection:
        add(connection, "kept")

    def fail(connection):
        add(connection, "undone")
        raise RuntimeError

    with pytest.raises(RuntimeError), database.write() as connection:
        fail(connection)
    with database.read() as connection:
        assert names(connection) == ["default", "kept"]


def test_a_reader_sees_one_moment_and_writes_nothing(database):
    with database.read() as reader:
        before = names(reader)
        with database.write() as connection:
            add(connection, "later")
        assert names(reader) == before
    with database.read() as connection:
        assert "later" in names(connection)


@pytest.fixture
def busy(address, monkeypatch) -> Iterator[Database]:
    """A database of which as many long reads go on as it has connections for."""
    # All of them are held for as long as it takes to open the last, on a slow machine too.
    database = Database(address, lease_s=600)
    pool = database._server._reader.pool
    monkeypatch.setattr(pool, "_timeout", 0.1)
    with closing(database), ExitStack() as readers:
        for _ in range(pool.size() + pool._max_overflow):
            connection = readers.enter_context(database.read())
            names(connection)
        yield database


def test_a_read_that_gets_no_connection_in_time_is_told_to_come_again(busy):
    with pytest.raises(HerdUnavailable, match="in use; try again"), busy.read():
        pass


def test_short_reads_do_not_wait_for_long_ones(busy):
    with short_reads(), busy.read() as connection:
        assert names(connection) == ["default"]
    with pytest.raises(HerdUnavailable), busy.read():
        pass  # the block is over


def test_the_gateways_short_reads_do_not_wait_for_long_ones(busy):
    def read():
        with busy.read() as connection:
            return names(connection)

    assert anyio.run(look, busy, read) == ["default"]


def test_short_reads_write_nothing_either(server_database):
    with (
        pytest.raises(HerdUnavailable, match="does not accept writes"),
        short_reads(),
        server_database.read() as connection,
    ):
        add(connection, "nobody")


def test_a_reader_of_postgresql_cannot_write(server_database):
    with pytest.raises(HerdUnavailable, match="writes"), server_database.read() as connection:
        add(connection, "never")


def test_a_transaction_that_writes_sees_what_others_commit_meanwhile(server_database):
    with server_database.write() as connection:
        names(connection)
        with server_database.write() as other:
            add(other, "meanwhile")
        assert "meanwhile" in names(connection)


def test_what_a_model_wrote_is_stored_whatever_it_is(database):
    with database.write() as connection:
        connection.execute(
            update(account).where(account.c.name == "default").values(name="a\0b 水 🦙 %s ?")
        )
        (stored,) = names(connection)
    assert stored in ("a\0b 水 🦙 %s ?", "a\N{REPLACEMENT CHARACTER}b 水 🦙 %s ?")


def test_amounts_beyond_32_bits_are_stored(database):
    with database.write() as connection:
        connection.execute(update(clock).values(heard_s=2**62, marked_us=2**40))
        stored = connection.execute(select(clock.c.heard_s, clock.c.marked_us)).one()
    assert tuple(stored) == (2**62, 2**40)


# Doing it again


def test_a_step_is_taken_once_where_nobody_is_in_the_way(database):
    taken = []

    def step(connection):
        taken.append(1)
        add(connection, "once")
        return names(connection)

    assert database.transact(step) == ["default", "once"]
    assert taken == [1]


def test_a_refusal_is_no_reason_to_take_the_step_again(database):
    taken = []

    def step(connection):
        taken.append(1)
        add(connection, "default")

    with pytest.raises(IntegrityError):
        database.transact(step)
    assert taken == [1]


def test_of_two_that_wait_for_each_other_one_is_taken_again(server_database):
    meet = threading.Barrier(2)
    with server_database.write() as connection:
        for name in ("a", "b"):
            add(connection, name)
    tries = []

    def touch(name):
        return update(account).where(account.c.name == name).values(created_us=len(tries))

    def cross(first, second):
        def step(connection):
            tries.append(first)
            # Whoever is first waits for the other, who may be late.
            connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
            connection.execute(touch(first))
            if len(tries) <= 2:
                meet.wait(60)
            connection.execute(touch(second))

        server_database.transact(step)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(cross, ("a", "b"), ("b", "a")))
    # More often, if it comes back before the other has what it waits for.
    assert len(tries) >= 3
    assert set(tries) == {"a", "b"}


def test_a_lost_connection_is_no_reason_to_take_the_step_again(server_database):
    """It may have been lost after the commit."""
    taken = []

    def step(connection):
        taken.append(1)
        end_sessions(server_database, connection)
        names(connection)

    with pytest.raises(HerdUnavailable):
        server_database.transact(step)
    assert taken == [1]


def end_sessions(database, connection) -> None:
    """The server ends this connection."""
    pid = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
    with database.read() as other:
        other.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})


# Waiting


@pytest.mark.parametrize(
    ("lease_s", "holding", "waiting"), [(20, "6s", "6s"), (6, "2s", "2s"), (3, "1s", "2s")]
)
def test_who_waits_gives_the_server_time_to_undo_one_of_two(
    postgres_server, lease_s, holding, waiting
):
    with (
        closing(Database(postgres_server.url("postgres"), lease_s, any_version=True)) as database,
        database.write() as connection,
    ):

        def shown(name):
            return connection.execute(text(f"SHOW {name}")).scalar_one()

        assert shown("deadlock_timeout") == "1s"
        assert shown("idle_in_transaction_session_timeout") == holding
        assert shown("lock_timeout") == waiting


def test_nobody_waits_for_a_lock_for_longer_than_two_thirds_of_a_lease(server_database):
    with server_database.write() as holder:
        holder.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        holder.execute(update(clock).values(heard_s=1))
        began_s = time.monotonic()
        with (
            pytest.raises(HerdUnavailable, match="busy"),
            server_database.write() as connection,
        ):
            connection.execute(update(clock).values(heard_s=2))
        assert 0.9 < time.monotonic() - began_s < 30


def test_who_is_stopped_in_mid_transaction_stops_nobody_else(server_database):
    stopped = server_database.write()
    connection = stopped.__enter__()
    connection.execute(update(clock).values(heard_s=1))
    time.sleep(1.5)  # it does nothing, and holds the lock
    with server_database.write() as other:
        other.execute(update(clock).values(heard_s=2))
    with pytest.raises(DBAPIError) as gone:
        connection.execute(update(clock).values(heard_s=3))
    with pytest.raises(HerdUnavailable, match="lost"):
        stopped.__exit__(type(gone.value), gone.value, gone.value.__traceback__)
    with server_database.read() as connection:
        assert connection.execute(select(clock.c.heard_s)).scalar_one() == 2


# A server that comes and goes


def test_a_server_that_was_started_again_costs_nobody_anything(own_postgres, tmp_path):
    settings = load_settings(tmp_path, database_url=own_postgres.url("postgres"))
    home.init(settings, InitialPolicy(model="stub"))
    database = Database(settings.database, lease_s=3)
    with database.write() as one, database.read() as two:  # two connections in the pool
        assert names(one) == names(two)

    own_postgres.crash()
    for transaction in (database.read, database.write):
        with pytest.raises(HerdUnavailable, match="does not answer"), transaction():
            pass

    own_postgres.start()
    with database.write() as connection:
        assert names(connection) == ["default"]
    with database.write() as one, database.read() as two:
        assert names(one) == names(two)

    def stop_it(connection):
        names(connection)
        own_postgres.stop()
        names(connection)

    with pytest.raises(HerdUnavailable), database.write() as connection:
        stop_it(connection)
    own_postgres.start()
    with database.read() as connection:
        assert names(connection) == ["default"]
    database.close()


# Addresses


def sentence(address: str) -> str:
    """What is said of a database that cannot be used: one sentence, and no password in it."""
    with (
        pytest.raises(SetupError) as refused,
        closing(Database(address)) as database,
        database.read() as connection,
    ):
        model_sql.read_policy(connection)
    said = str(refused.value)
    assert "\n" not in said
    assert "never-to-be-shown" not in said
    assert "wrong-secret" not in said
    return said


def test_a_wrong_password_a_missing_database_or_no_tables_are_named(postgres_server):
    from tests.support.postgres_server import GUARDED, PASSWORD

    postgres_server.execute(f"CREATE USER {GUARDED} PASSWORD '{PASSWORD}'")
    guarded = Database(postgres_server.url("postgres", GUARDED, PASSWORD), any_version=True)
    with guarded.read() as connection:
        assert connection.execute(text("SELECT 1")).scalar_one() == 1
    guarded.close()

    for password in ("wrong-secret", None):
        assert "password" in sentence(postgres_server.url("postgres", GUARDED, password))
    assert "password" in sentence(postgres_server.url("postgres", "nobody-known", "wrong-secret"))
    assert "createdb nowhere" in sentence(postgres_server.url("nowhere", password=PASSWORD))
    assert "herd init" in sentence(postgres_server.url("postgres", password=PASSWORD))
    assert "option" in sentence(postgres_server.url("postgres", nonsense="1"))


def test_a_server_that_is_not_there_may_come(postgres_server):
    from tests.support.redis_server import free_port

    database = Database(f"postgresql://herd:never-to-be-shown@127.0.0.1:{free_port()}/herd")
    with pytest.raises(HerdUnavailable) as refused, database.write():
        pass
    assert "never-to-be-shown" not in str(refused.value)


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_the_usual_spellings_are_taken(postgres_server, scheme):
    address = postgres_server.url("postgres").replace("postgresql", scheme, 1)
    database = Database(address, any_version=True)
    with database.read() as connection:
        level = connection.execute(text("SHOW transaction_isolation")).scalar_one()
        read_only = connection.execute(text("SHOW transaction_read_only")).scalar_one()
    assert (level, read_only) == ("repeatable read", "on")
    with database.write() as connection:
        level = connection.execute(text("SHOW transaction_isolation")).scalar_one()
        patience = connection.execute(text("SHOW lock_timeout")).scalar_one()
    assert (level, patience) == ("read committed", "6s")
    database.close()


def test_a_missing_driver_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    assert "pip install" in sentence("postgresql://herd:never-to-be-shown@db/herd")


def test_two_who_make_the_same_database_at_once_make_one_herd(postgres_server, tmp_path):
    name = postgres_server.new_database()
    start = threading.Barrier(3)

    def make(number):
        folder = tmp_path / f"home{number}"
        settings = load_settings(
            folder, database_url=postgres_server.url(name), account=f"a{number}"
        )
        start.wait()
        home.init(settings, InitialPolicy(model="stub"), deposit=5)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(make, range(3)))
    database = Database(postgres_server.url(name))
    with database.read() as connection:
        assert names(connection) == ["a0", "a1", "a2"]
        report = open_ledger().audit(connection)
    assert report.clean
    assert report.circulating == 15
    database.close()
    postgres_server.drop(name)


def test_who_comes_second_waits_for_the_first_longer_than_for_a_lock(server_database):
    """Making the tables takes seconds on a busy machine."""
    holds, lets_go = threading.Event(), threading.Event()

    def first() -> None:
        with server_database.write() as connection:
            migrations.upgrade(connection)
            holds.set()
            connection.execute(text("SELECT pg_sleep(3)"))  # a lock is waited for 2 s
            lets_go.set()

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(first)
        assert holds.wait(60)
        with server_database.write() as connection:
            migrations.upgrade(connection)
            assert lets_go.is_set()
            assert connection.execute(text("SHOW lock_timeout")).scalar_one() == "2s"
        done.result()


def test_making_the_tables_may_take_longer_than_a_transaction_may_stand_idle(
    postgres_server, monkeypatch
):
    """Alembic was loaded, and found its way, within 6 s or not: on a busy machine it was not."""
    from alembic import command

    name = postgres_server.new_database()
    upgrade = command.upgrade

    def slow(*given: object) -> None:
        time.sleep(1.5)
        upgrade(*given)

    monkeypatch.setattr(command, "upgrade", slow)
    with closing(Database(postgres_server.url(name), lease_s=3, any_version=True)) as database:
        with database.write() as connection:
            migrations.upgrade(connection)
        with database.write() as connection:
            shown = connection.execute(text("SHOW idle_in_transaction_session_timeout"))
            assert shown.scalar_one() == "1s", "of every other transaction"
            migrations.require_current(connection)
    postgres_server.drop(name)


def test_the_address_goes_into_the_settings_that_only_their_owner_reads(postgres_server, tmp_path):
    name = postgres_server.new_database(postgres_server.migrated)
    address = postgres_server.url(name)
    home.init(load_settings(tmp_path, database_url=address), InitialPolicy(model="stub"))
    assert load_settings(tmp_path).database == address
    database = Database(load_settings(tmp_path).database)
    with database.read() as connection:
        assert model_sql.read_policy(connection)[2] == home.REVENUE_STRIPES["postgresql"]
    database.close()
    postgres_server.drop(name)


def test_deposits_under_one_id_are_one(server_database):
    books = open_ledger()
    key = str(uuid4())
    start = threading.Barrier(4)

    def deposit(_):
        start.wait()
        with server_database.write() as connection:
            return books.deposit(connection, key, "client:default", 5).replayed

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(deposit, range(4))) == [False, True, True, True]
