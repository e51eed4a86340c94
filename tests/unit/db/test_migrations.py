"""The database: migrated, it is what the tables say; made twice, it is as it was."""

from __future__ import annotations

import json

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, make_url, select

from herder.accounts.accounts import Accounts, open_ledger
from herder.clock import clock_us
from herder.db.database import Database
from herder.db.tables import metadata
from herder.errors import SetupError
from herder.herd.herder_key import load_herder_key
from herder.host import home
from herder.settings import InitialPolicy, load_settings
from herder.store import herd as herd_sql
from herder.store import models as model_sql
from workers.settings import read_join_file

pytestmark = pytest.mark.usefixtures("clean_environment")


def not_the_ledgers(_object, name, kind, *_rest):
    return not (kind == "table" and name.startswith("ledger_"))


STATEMENTS = {
    "sqlite": "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL",
    "postgresql": """
        SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'
        UNION ALL SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint
        WHERE connamespace = 'public'::regnamespace
    """,
}


def plain_engine(address):
    url = make_url(address)
    return create_engine(url if "sqlite" in address else url.set(drivername="postgresql+psycopg"))


def schema(engine):
    """Every statement that made the database, but for what the ledger has of its own."""
    with engine.connect() as connection:
        rows = connection.exec_driver_sql(STATEMENTS[engine.dialect.name]).all()
    engine.dispose()
    return {
        name: " ".join(sql.split())
        for name, sql in rows
        if not name.startswith(("ledger_", "alembic_", "sqlite_"))
    }


def init(tmp_path, address="", deposit=0):
    settings = load_settings(tmp_path / "home", database_url=address)
    made = home.init(settings, InitialPolicy(model="stub"), deposit=deposit)
    return settings, made


@pytest.fixture
def make(tmp_path, new_database):
    """Makes a herd from nothing; called again, it finds what is there."""
    address = new_database(bare=True)

    return lambda deposit=0: init(tmp_path, address, deposit)


def test_a_migrated_database_equals_the_tables(make):
    settings, _ = make()
    engine = plain_engine(settings.database)
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection,
            opts={
                "include_object": not_the_ledgers,
                "compare_type": True,
                "compare_server_default": True,
            },
        )
        assert compare_metadata(context, metadata) == []
    engine.dispose()


def test_a_migrated_database_has_the_indexes_and_constraints_word_for_word(
    make, new_database, tmp_path
):
    """Alembic does not look at the conditions of partial indexes, nor at their order."""
    settings, _ = make()
    engine = plain_engine(new_database(bare=True) or f"sqlite:///{tmp_path / 'straight.db'}")
    metadata.create_all(engine)
    migrated, straight = schema(plain_engine(settings.database)), schema(engine)
    assert set(migrated) == set(straight)
    prefixes = ("ix_",) if engine.dialect.name == "sqlite" else ("ix_", "pk_", "fk_", "uq_")
    indexes = [name for name in straight if name.startswith(prefixes)]
    assert len(indexes) >= 5
    assert {name: migrated[name] for name in indexes} == {n: straight[n] for n in indexes}


def test_init_makes_a_herd(make):
    settings, made = make(deposit=500)
    assert len(made) == 6
    database = Database(settings.database)
    accounts = Accounts(database, open_ledger(), clock_us=clock_us)
    assert accounts.balance("default").available == 500
    with database.read() as connection:
        _, default_model, _ = model_sql.read_policy(connection)
        herders = herd_sql.live_keys(connection, herd_sql.HERDER)
        workers = herd_sql.live_keys(connection, herd_sql.WORKER)
    assert default_model == "stub"
    join = read_join_file(settings.home / "workers" / "worker.json")
    assert set(join.herders) == set(herders) == {load_herder_key(settings).kid}
    assert set(workers) == {join.key.kid}
    database.close()


def test_init_twice_changes_nothing(make):
    settings, _ = make(deposit=500)
    files = sorted(path for path in settings.home.rglob("*") if path.suffix != ".db")
    before = {path: path.read_bytes() for path in files if path.is_file()}
    assert make(deposit=500)[1] == []
    assert {path: path.read_bytes() for path in before} == before
    database = Database(settings.database)
    accounts = Accounts(database, open_ledger(), clock_us=clock_us)
    assert accounts.balance("default").available == 500
    assert accounts.audit().clean
    database.close()


def test_keys_and_settings_are_for_their_owner_alone(make):
    settings, _ = make()
    for path in (settings.key_path, settings.home / "workers" / "worker.json"):
        assert path.stat().st_mode & 0o077 == 0, path
    assert (settings.home / "herd.env").stat().st_mode & 0o077 == 0


def test_a_later_init_keeps_what_prices(make):
    settings, _ = make()
    home.init(settings, InitialPolicy(model="other", fee_bump="2"))
    database = Database(settings.database)
    with database.read() as connection:
        policy, default_model, _ = model_sql.read_policy(connection)
        assert [model.name for model in model_sql.list_models(connection)] == ["stub"]
    assert (default_model, str(policy.fee_bump)) == ("stub", "201/200")
    database.close()


def test_what_is_not_there_says_which_command_makes_it(tmp_path):
    settings = load_settings(tmp_path / "nowhere")
    with pytest.raises(SetupError, match="herd init"):
        load_herder_key(settings)
    database = Database(settings.database)
    with pytest.raises(SetupError, match="herd init"), database.read() as connection:
        connection.execute(select(metadata.tables["policy"]))
    with pytest.raises(SetupError, match="herd init"), database.write():
        pass
    database.close()

    empty = Database(f"sqlite:///{tmp_path / 'empty.db'}")
    with pytest.raises(SetupError, match="herd init"), empty.read() as connection:
        model_sql.read_policy(connection)
    empty.close()


@pytest.mark.parametrize("text", ["", "{}", "null", "[]", json.dumps({"kty": "OKP"})])
def test_a_broken_herders_key_is_named(tmp_path, text):
    settings, _ = init(tmp_path)
    settings.key_path.write_text(text)
    with pytest.raises(SetupError, match=r"herder\.jwk"):
        load_herder_key(settings)


@pytest.mark.parametrize("text", ["", "{}", "null", "[]", '{"worker": 5}'])
def test_a_broken_workers_key_is_named(tmp_path, text):
    settings, _ = init(tmp_path)
    path = settings.home / "workers" / "worker.json"
    path.write_text(text)
    with pytest.raises(SetupError, match=r"worker\.json"):
        init(tmp_path)
