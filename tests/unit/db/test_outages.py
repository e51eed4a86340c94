"""The database goes away while an order is taken, bid for or paid: it happened once, or not."""

from __future__ import annotations

import sqlite3
import threading
import time
from contextlib import closing
from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite

from herder.db import database as databases
from herder.db.database import Database
from herder.db.outages import CommitUnknown, pause_s, ride_out
from herder.errors import AccountExists, HerdUnavailable, SetupError
from herder.market.policy import read_policy, set_policy, set_rates
from herder.store import orders as order_sql
from tests.support.house import FakeReceiver


def back_after(outage, cut: threading.Event, seconds: float) -> threading.Thread:
    """Gives the database back so long after a commit was cut off."""

    def wait() -> None:
        assert cut.wait(60)
        time.sleep(seconds)
        outage.end()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def all_orders(house):
    with house.database.read() as connection:
        return order_sql.list_orders(connection)


@pytest.mark.parametrize("away_s", [0.3, 3])
def test_an_order_whose_commit_was_cut_off_is_one_order(outage_house, outage, away_s):
    house = outage_house
    waiting = back_after(outage, outage.at_commit(), away_s)
    order = house.submit(fee=50)
    waiting.join()
    assert [one.id for one in all_orders(house)] == [order.id]
    balance = house.accounts.balance("default")
    assert (balance.available, balance.held) == (99_950, 50)


def test_bids_cancellations_refunds_and_deposits_that_were_cut_off_happen_once(
    outage_house, outage
):
    house = outage_house
    order = house.submit(fee=50)

    waiting = back_after(outage, outage.at_commit(), 0.3)
    assert house.intake.rebid(order.id, 70).fee == 70
    waiting.join()
    assert house.accounts.balance("default").held == 70

    waiting = back_after(outage, outage.at_commit(), 0.3)
    assert house.cancellation.cancel(order.id).returned == 70
    waiting.join()
    assert house.accounts.balance("default").available == 100_000

    waiting = back_after(outage, outage.at_commit(), 0.3)
    assert house.accounts.deposit("default", 5, str(uuid4())).available == 100_005
    waiting.join()

    paid = house.submit(fee=50)
    worker = house.worker()
    worker.finish(house.dispatched(), generated=10)
    waiting = back_after(outage, outage.at_commit(), 0.3)
    assert house.intake.refund(paid.id, None, "it was bad") == 50
    waiting.join()
    assert house.accounts.balance("default").available == 100_005


def test_keys_accounts_and_models_that_were_cut_off_are_made_once(outage_house, outage):
    """And what is shown only once, the secret, is shown."""
    house = outage_house

    def cut_off(call):
        waiting = back_after(outage, outage.at_commit(), 0.3)
        made = call()
        waiting.join()
        return made

    key, secret = cut_off(lambda: house.api_keys.create("default", max_fee=7))
    assert [one.id for one in house.api_keys.list("default")] == [key.id]
    assert house.api_keys.recognise(secret).max_fee == 7
    assert cut_off(lambda: house.api_keys.revoke(key.id)).revoked_us is not None

    cut_off(lambda: house.accounts.create("ada"))
    assert house.accounts.balance("ada").available == 0
    with pytest.raises(AccountExists):
        house.accounts.create("ada")
    cut_off(
        lambda: house.accounts.set_limits("ada", max_open_orders=3, tokens_per_minute=None),
    )

    model, is_new = cut_off(lambda: set_rates(house.database, "other"))
    assert (model.name, is_new) == ("other", True)
    assert cut_off(lambda: set_policy(house.database, max_open_orders=5)) == 0
    assert read_policy(house.database)["max_open_orders"] == 5


def test_webhooks_that_were_cut_off_are_made_once_and_show_their_secret(outage_house, outage):
    house = outage_house

    def cut_off(call):
        waiting = back_after(outage, outage.at_commit(), 0.3)
        made = call()
        waiting.join()
        return made

    made, first = cut_off(lambda: house.webhooks.create("default", "https://ada.example/"))
    assert [one.id for one in house.webhooks.list("default")] == [made.id]
    turned, second = cut_off(lambda: house.webhooks.rotate(made.id))
    sealer = house.sealer
    assert sealer.open(turned.secret, made.id) == second
    assert sealer.open(house.webhooks.get(made.id).old_secret, made.id) == first
    assert cut_off(lambda: house.webhooks.disable(made.id)).why == "asked"
    assert cut_off(lambda: house.webhooks.enable(made.id)).enabled
    cut_off(lambda: house.webhooks.deliveries.test(made.id))
    (told,) = house.webhooks.deliveries.page(made.id).items
    work_off(house.new_deliverer(FakeReceiver()))
    # Without the reads before, which on PostgreSQL are the first to be cut off.
    assert cut_off(lambda: house.webhooks.deliveries._replay([told.seq])) == 1
    assert cut_off(lambda: house.webhooks.delete(made.id)).id == made.id
    assert house.webhooks.list("default") == []


def work_off(deliverer):
    while deliverer.step(0):
        pass


def test_a_grant_that_was_cut_off_is_one_grant(outage_house, outage):
    """Its operator, told of a failure, would make another one."""
    waiting = back_after(outage, outage.at_commit(), 0.3)
    grant = outage_house.grants.create("default", 5, "month")
    waiting.join()
    assert [one.id for one in outage_house.grants.list()] == [grant.id]
    assert (grant.periods, outage_house.available()) == (1, 100_005)


def test_what_an_operator_decides_of_an_order_set_aside_is_done_and_told_once(outage_house, outage):
    house = outage_house
    order = house.submit(fee=50)
    with house.database.write() as connection:
        house.books.post(connection, order.hold_id, 20)
    assert house.cancellation.cancel(order.id).state == "set_aside"
    waiting = back_after(outage, outage.at_commit(), 0.3)
    receipt = house.aside.give_back(order.id)
    waiting.join()
    assert (receipt.state, receipt.charged, receipt.refunded) == ("failed", 20, 20)
    assert (house.available(), house.aside.count()) == (100_000, 0)


def test_a_commit_of_which_nothing_is_heard_says_which_order_it_was(
    outage_house, outage, monkeypatch
):
    monkeypatch.setattr(databases, "SETTLE_S", 0.2)
    cut = outage.at_commit()
    with pytest.raises(CommitUnknown) as caught:
        outage_house.submit(fee=50)
    assert cut.is_set()
    outage.end()
    (order,) = all_orders(outage_house)
    assert caught.value.data == {"order": order.id}
    assert order.id in str(caught.value)


def test_what_was_not_committed_is_refused_at_once(outage_house, outage):
    outage.begin()
    with pytest.raises(HerdUnavailable) as caught:
        outage_house.submit(fee=50)
    assert not isinstance(caught.value, CommitUnknown)
    outage.end()
    assert all_orders(outage_house) == []


def test_a_wait_goes_on_until_the_database_is_back_or_its_time_is_up():
    asked, told = [], []

    def ask() -> int:
        asked.append(1)
        if len(asked) < 4:
            raise HerdUnavailable("It is away.")
        return len(asked)

    assert ride_out(ask, on_outage=lambda: told.append(1)) == 4
    assert told == [1]
    asked.clear()
    with pytest.raises(HerdUnavailable):
        ride_out(ask, until_s=time.monotonic() - 1)
    assert len(asked) == 1
    assert [pause_s(tried) for tried in (1, 2, 10_000)] == [0.05, 0.1, 1.0]


# What is said


def refusal(database: Database, statement: str = "SELECT 1") -> str:
    with pytest.raises(HerdUnavailable) as caught, database.write() as connection:
        connection.execute(text(statement))
    said = str(caught.value)
    assert "\n" not in said
    assert "never-to-be-shown" not in said
    return said


def test_a_server_that_turns_away_is_quoted_and_one_that_is_silent_is_not(
    postgres_server, own_postgres
):
    from tests.support.postgres_server import GUARDED, PASSWORD

    own_postgres.execute(f"CREATE USER {GUARDED} PASSWORD '{PASSWORD}' CONNECTION LIMIT 0")
    guarded = Database(own_postgres.url("postgres", GUARDED, PASSWORD), any_version=True)
    with closing(guarded) as database:
        said = refusal(database)
        assert "too many connections for role" in said
        assert "raise its max_connections" in said
        assert "does not answer" not in said
        own_postgres.execute(f"ALTER USER {GUARDED} CONNECTION LIMIT 9")
        with database.write() as connection:
            assert connection.execute(text("SELECT 1")).scalar_one() == 1
        own_postgres.execute(f"ALTER USER {GUARDED} NOLOGIN")
    with (
        closing(Database(own_postgres.url("postgres", GUARDED, PASSWORD))) as database,
        pytest.raises(SetupError, match="rejected the user"),
        database.write(),
    ):
        pass
    with closing(Database(own_postgres.url("postgres"), any_version=True)) as database:
        limit = "SET LOCAL statement_timeout = 1; SELECT pg_sleep(10)"
        assert "took it too long" in refusal(database, limit)
        short = "DO $$ BEGIN RAISE EXCEPTION 'no space left' USING ERRCODE = '53100'; END $$"
        assert "disk of PostgreSQL at" in refusal(database, short)
        short = short.replace("53100", "53200")
        assert '"no space left"' in refusal(database, short)
        own_postgres.stop()
        assert "does not answer" in refusal(database)


def test_a_host_that_is_not_known_and_encryption_that_is_not_there_are_named(postgres_server):
    with closing(Database("postgresql://herd:never-to-be-shown@no.such.invalid/herd")) as database:
        assert "cannot be looked up" in refusal(database)
    url = postgres_server.url("postgres", sslmode="require")
    with (
        closing(Database(url)) as database,
        pytest.raises(SetupError, match="encryption"),
        database.write(),
    ):
        pass


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("database is locked", "busy"),
        ("database or disk is full", "disk of the database is full"),
        ("disk I/O error", "answers with errors"),
    ],
)
def test_what_sqlite_says_is_said_in_our_words(tmp_path, monkeypatch, reason, said):
    def fail(*_: object) -> None:
        raise sqlite3.OperationalError(reason)

    with closing(Database(f"sqlite:///{tmp_path}/herd.db", any_version=True)) as database:
        with database.write() as connection:
            connection.execute(text("CREATE TABLE t (a)"))
        monkeypatch.setattr(SQLiteDialect_pysqlite, "do_execute", fail)
        assert said in refusal(database)


def test_a_disk_that_is_really_full(tmp_path):
    with closing(Database(f"sqlite:///{tmp_path}/herd.db", any_version=True)) as database:
        with database.write() as connection:
            connection.execute(text("CREATE TABLE t (a)"))
            connection.execute(text("PRAGMA max_page_count = 3"))
        assert "is full" in refusal(database, "INSERT INTO t VALUES (zeroblob(1000000))")
