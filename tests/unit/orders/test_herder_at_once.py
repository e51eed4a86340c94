"""Two herders that do the same at once, on PostgreSQL: neither sees the other's work, and both are
right."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Connection, text, update

from herder.db.tables import orders
from herder.domain.pricing import Rates, rank
from herder.market import policy
from herder.store import herd as herd_sql
from herder.store import models as model_sql
from herder.store import orders as order_sql
from tests.support.house import MODEL, House
from tests.support.wait import wait_for
from workers.wire import Announcement, PrivateKey

KEY = PrivateKey.generate()


@pytest.fixture
def house(postgres_server, tmp_path, clean_environment):
    name = postgres_server.new_database(postgres_server.migrated)
    made = House(tmp_path, database_url=postgres_server.url(name))
    yield made
    made.close()
    postgres_server.drop(name)


def one_waits(house: House) -> bool:
    """Whether a session waits for a lock."""
    query = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
    with house.database.read() as connection:
        return int(connection.execute(query).scalar_one()) == 1


def both(house: House, first: Callable[[Connection], None], second: Callable[[], object]) -> None:
    """The first has written and not yet committed when the second begins."""
    with ThreadPoolExecutor(1) as pool:
        with house.database.write() as connection:
            first(connection)
            waiting = pool.submit(second)
            wait_for(lambda: one_waits(house), "the second waits for the first")
        waiting.result()


def written(house: House, write: Callable[[Connection], None]) -> Callable[[], None]:
    def in_a_transaction() -> None:
        with house.database.write() as connection:
            write(connection)

    return in_a_transaction


def believe(connection: Connection, owner: str) -> None:
    herd_sql.add_key(connection, herd_sql.WORKER, owner, KEY.public, 1)


def announce(connection: Connection, beat: int, slots: int) -> None:
    herd_sql.put_worker(
        connection,
        "w-1",
        KEY.kid,
        Announcement(name="one", model=MODEL, slots=slots, context=4096),
        beat=beat,
        strays=0,
        heard_s=0,
        now_us=beat,
    )


def test_a_key_that_two_add_is_the_firsts(house):
    both(
        house,
        lambda connection: believe(connection, "first"),
        written(house, lambda connection: believe(connection, "second")),
    )
    with house.database.read() as connection:
        found = connection.execute(
            text("SELECT owner FROM key WHERE kid = :kid"), {"kid": KEY.kid}
        ).scalars()
        assert list(found) == ["first"]


@pytest.mark.parametrize(("beats", "slots"), [((1, 2), 2), ((2, 1), 1)])
def test_of_a_workers_beats_that_two_hear_the_later_one_stays(house, beats, slots):
    with house.database.write() as connection:
        believe(connection, "one")
    both(
        house,
        lambda connection: announce(connection, beats[0], slots=1),
        written(house, lambda connection: announce(connection, beats[1], slots=2)),
    )
    with house.database.read() as connection:
        known = herd_sql.get_worker(connection, "w-1")
    assert known is not None
    assert (known.beat, known.slots) == (2, slots)


def test_a_model_that_two_configure_has_the_rates_of_the_last(house):
    both(
        house,
        lambda connection: model_sql.put_model(connection, "new", Rates(2, 3)),
        lambda: policy.set_rates(house.database, "new", prompt_fee=5, fee_per_token=7),
    )
    assert house.model("new").rates == Rates(5, 7)


def test_a_model_that_two_make_the_herds_is_that_of_the_last(house):
    def first(connection):
        model_sql.lock_policy(connection)
        model_sql.put_model(connection, "new", Rates(2, 3))
        model_sql.set_default_model(connection, "new")

    both(house, first, lambda: policy.set_herd_model(house.database, "newer"))
    assert house.model("newer").rates == Rates(2, 3)
    assert policy.read_policy(house.database)["default_model"] == "newer"


def test_what_is_submitted_while_waiting_is_weighed_anew_ranks_like_the_others(house, monkeypatch):
    house.fund(1000)
    insert, priced, go_on = order_sql.insert_order, threading.Event(), threading.Event()

    def insert_slowly(*given):
        priced.set()
        assert go_on.wait(60)
        return insert(*given)

    monkeypatch.setattr(order_sql, "insert_order", insert_slowly)
    with ThreadPoolExecutor(2) as pool:
        submitting = pool.submit(house.submit, fee=26)
        assert priced.wait(60)
        weighing = pool.submit(policy.set_policy, house.database, aging_s=60)
        wait_for(lambda: weighing.done() or one_waits(house), "the operator waits")
        go_on.set()
        weighing.result()
    order = house.order(submitting.result().id)
    assert order.rank == rank(26, 13, aging_s=60, submitted_us=order.submitted_us)


@pytest.mark.parametrize("look", ["workers_here", "unclaimed"])
def test_what_is_claimed_while_slots_are_counted_keeps_its_slot(house, monkeypatch, look):
    """What an earlier herder sent was for any worker, and takes a slot of somebody's already."""
    house.fund(1000)
    worker = house.worker(slots=1)
    house.submit()
    job = house.dispatched()
    with house.database.write() as connection:
        connection.execute(update(orders).where(orders.c.id == job.order).values(instance=None))
    house.submit()
    count = getattr(herd_sql, look)

    def count_and_claim(connection, model=None):
        counted = count(connection, model)
        monkeypatch.undo()
        worker.claim(job)  # committed between one look and the other
        return counted

    with house.database.read() as connection:
        assert not herd_sql.workers_here(connection, MODEL)[0].out
    monkeypatch.setattr(herd_sql, look, count_and_claim)
    assert house.dispatch() == []
    assert house.order(job.order).state == "running"
    house.check()


def test_what_was_sent_to_a_worker_takes_its_slot_before_it_is_claimed(house):
    house.fund(1000)
    house.worker(slots=1)
    house.submit()
    house.dispatched()
    house.submit()
    with house.database.read() as connection:
        assert herd_sql.workers_here(connection, MODEL)[0].out == 1
    assert house.dispatch() == []
