"""PostgreSQL hangs: it takes connections, or had, and answers nothing. Time-outs hold all the same.

No end of a connection tells the driver, and the server's own time limits do not count while it
stands still.
"""

from __future__ import annotations

import threading
import time
from contextlib import closing

import pytest

from herder.db.database import Database
from herder.db.outages import CommitUnknown, giving_up, ride_out
from herder.errors import HerdUnavailable, ResultTimeout
from herder.local import cancellations
from herder.local.local_herd import LocalHerd
from herder.settings import load_settings
from tests.support.cut_proxy import CutProxy
from tests.support.house import House
from tests.support.wait import wait_for
from tests.unit.cli.herder_cli_support import NO_REDIS

FAR_TOO_LONG_S = 60


@pytest.fixture
def proxy(postgres_server):
    with CutProxy(postgres_server.port) as made:
        yield made


@pytest.fixture
def house(proxy, postgres_server, tmp_path, clean_environment):
    name = postgres_server.new_database(postgres_server.migrated)
    made = House(tmp_path / "house", database_url=proxy.through(postgres_server.url(name)))
    made.fund(100_000)
    yield made
    proxy.restore()
    made.check()
    made.close()
    postgres_server.drop(name)


@pytest.fixture
def herd(house):
    settings = load_settings(
        house.settings.home, database_url=house.settings.database, redis_url=NO_REDIS
    )
    made = LocalHerd(settings)
    yield made
    made.close()


def held(proxy, seconds):
    """Let it hang; a test that hangs with it ends all the same, and fails."""
    proxy.hold()
    timer = threading.Timer(seconds, proxy.restore)
    timer.daemon = True
    timer.start()


@pytest.mark.parametrize("warm", [True, False])
def test_a_result_is_waited_for_no_longer_than_its_time_out(house, herd, proxy, warm):
    order = house.submit(fee=50)
    if warm:
        assert herd.receipt(order.id).state == "queued"
    began_s = time.monotonic()
    held(proxy, FAR_TOO_LONG_S)
    with pytest.raises(ResultTimeout):
        herd.result(order.id, 1)
    assert time.monotonic() - began_s < FAR_TOO_LONG_S / 2
    proxy.restore()
    house.worker().finish(house.dispatched(), text="so it is", generated=10)
    assert herd.result(order.id, FAR_TOO_LONG_S).text == "so it is"


def test_a_database_that_hangs_while_one_waits_ends_no_wait_late(house, herd, proxy):
    order = house.submit(fee=50)
    ended = threading.Event()

    def wait() -> None:
        with pytest.raises(ResultTimeout):
            herd.result(order.id, 3)
        ended.set()

    thread = threading.Thread(target=wait)
    thread.start()
    wait_for(lambda: herd.watcher._waiting, "it waits")
    held(proxy, FAR_TOO_LONG_S)
    assert ended.wait(FAR_TOO_LONG_S / 2)
    thread.join()


def test_a_cancellation_is_remembered_while_it_hangs(house, herd, proxy, monkeypatch):
    monkeypatch.setattr(cancellations, "PATIENCE_S", 0.5)
    order = house.submit(fee=50)
    began_s = time.monotonic()
    held(proxy, FAR_TOO_LONG_S)
    with pytest.raises(HerdUnavailable, match="not cancelled yet"):
        herd.cancel(order.id)
    assert time.monotonic() - began_s < FAR_TOO_LONG_S / 2
    proxy.restore()
    wait_for(lambda: house.order(order.id).state.value == "cancelled", "it is made")


def test_a_commit_that_hangs_is_not_known_to_have_happened(house, proxy):
    database = house.database
    until_s = time.monotonic() + 5  # for all before the commit, on a busy machine
    cut = proxy.cut_at(b"COMMIT", then="held")

    def step(connection):
        return connection.exec_driver_sql("SELECT txid_current()").scalar_one()

    with giving_up(until_s), pytest.raises(CommitUnknown):
        database.settle(step)
    assert cut.is_set()


def test_of_two_limits_the_earlier_counts_and_none_is_no_limit(proxy, postgres_server):
    with closing(
        Database(proxy.through(postgres_server.url("postgres")), any_version=True)
    ) as database:

        def read() -> int:
            with database.read() as connection:
                return int(connection.exec_driver_sql("SELECT 1").scalar_one())

        now_s = time.monotonic()
        with giving_up(now_s + FAR_TOO_LONG_S), giving_up(None):
            assert read() == 1
        held(proxy, FAR_TOO_LONG_S)
        far_s = now_s + FAR_TOO_LONG_S
        impatient = giving_up(far_s), giving_up(now_s - 1), giving_up(far_s)
        with impatient[0], impatient[1], impatient[2], pytest.raises(HerdUnavailable):
            read()
        assert time.monotonic() - now_s < FAR_TOO_LONG_S / 2
        proxy.restore()
        assert ride_out(read, until_s=time.monotonic() + FAR_TOO_LONG_S) == 1
