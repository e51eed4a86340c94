"""Disks that are full, fail or are read-only under a herder: nobody pays for it, and it goes on."""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from herder.db import sqlite_errors
from herder.errors import HerdUnavailable
from tests.flow.test_full_servers import WATCHED_S, kinds, type_in
from tests.support.disks import FailingDisk, SmallDisk, small_disk
from tests.support.running import Child, RunningHerd
from tests.support.wait import wait_for

BIG = " ".join(hashlib.sha256(bytes([n % 256, n // 256])).hexdigest()[:8] for n in range(2000))
"""Nothing makes it shorter, so that it finds no room in what a full disk has left."""
FAILING_BYTES = 2**17
"""More than a herder logs, and less than SQLite's log has after the first orders."""


@dataclass
class Trouble:
    """A herd's database, and what befalls it.

    Attributes:
        begin, end: of the trouble, under the herder that is given.
        sentence: a part of what is said of it.
        is_for_all: whether everybody has it, and not the herder alone.
    """

    herd: RunningHerd
    begin: Callable[[Child | None], object]
    end: Callable[[], object]
    sentence: str
    is_for_all: bool = True


@pytest.fixture
def disk(tmp_path) -> Iterator[SmallDisk]:
    """A disk for SQLite's files alone: logs and keys are on another."""
    with small_disk(tmp_path / "disk", 16) as made:
        yield made


@pytest.fixture
def full_file(disk, make_herd) -> Trouble:
    """SQLite on a disk that fills."""
    herd = make_herd(HERD_DATABASE_URL=f"sqlite:///{disk.folder / 'herd.db'}")
    return Trouble(herd, lambda _: disk.fill(), disk.free, sqlite_errors.FULL)


@pytest.fixture
def read_only_file(disk, make_herd) -> Trouble:
    """SQLite on a disk that is mounted read-only before anybody opens it."""
    herd = make_herd(HERD_DATABASE_URL=f"sqlite:///{disk.folder / 'herd.db'}")

    def begin(_: object) -> None:
        herd.client.close()
        herd.database.close()
        disk.set_read_only(True)

    return Trouble(herd, begin, lambda: disk.set_read_only(False), sqlite_errors.READ_ONLY)


@pytest.fixture
def failing_file(make_herd) -> Trouble:
    """SQLite, of whose file the herder can write the first bytes alone."""
    herd = make_herd()
    wal = herd.folder / "herd.db-wal"
    failing: list[FailingDisk] = []

    def begin(herder: Child) -> None:
        number = 0
        while wal.stat().st_size <= FAILING_BYTES:
            herd.client.accounts.create(f"filler{number}")
            number += 1
        failing.append(FailingDisk(herder.process.pid, FAILING_BYTES))
        failing[0].begin()

    return Trouble(herd, begin, lambda: failing[0].end(), sqlite_errors.FAILING, is_for_all=False)


@pytest.fixture
def tablespace(own_postgres) -> Iterator[tuple[SmallDisk, str]]:
    """A disk for tables of PostgreSQL, whose log is on another, and its name there."""
    with small_disk(Path(tempfile.mkdtemp(prefix="herd-disk-")), 48) as made:
        yield made, own_postgres.new_tablespace(made.folder / "tables")


@pytest.fixture
def full_server(tablespace, own_postgres, make_herd) -> Trouble:
    """PostgreSQL on a disk that fills."""
    disk, name = tablespace
    herd = make_herd(HERD_DATABASE_URL=own_postgres.url(own_postgres.new_database(where=name)))
    return Trouble(herd, lambda _: disk.fill(), disk.free, "is full; make room there")


@pytest.fixture
def read_only_server(own_postgres, make_herd) -> Trouble:
    """PostgreSQL that is a standby for a while, and takes no writes."""
    herd = make_herd(HERD_DATABASE_URL=own_postgres.url(own_postgres.new_database()))
    begin, end = own_postgres.become_standby, own_postgres.promote
    return Trouble(herd, lambda _: begin(), end, "does not accept writes")


@pytest.fixture
def trouble(request) -> Trouble:
    """The one that a parameter names."""
    found: Trouble = request.getfixturevalue(request.param)
    return found


@pytest.mark.parametrize(
    "trouble", ["full_file", "failing_file", "full_server", "read_only_server"], indirect=True
)
def test_a_herder_says_in_a_sentence_what_its_disk_lacks_and_goes_on(trouble):
    herd = trouble.herd
    herder = herd.start_herder()
    herd.start_worker(HERD_STUB_STEP_MS="20")
    orders = [herd.submit(f"Number {n}", 20) for n in range(6)]
    wait_for(lambda: orders[0].receipt().attempts, "it is sent out")
    before, began_s = len(herder.log.splitlines()), time.monotonic()

    trouble.begin(herder)
    if trouble.is_for_all:
        # What was stored before has left room for some.
        said = wait_for(lambda: refused(herd, orders), "an order is refused")
        assert trouble.sentence in said
        code, said = type_in(herd, "submit", BIG, "-n", "3", "--no-wait")
        assert (code, said.count("\n")) == (1, 1)
        assert trouble.sentence in said
    wait_for(lambda: trouble.sentence in told(herder, before), "the herder says so")
    time.sleep(max(0.0, WATCHED_S - (time.monotonic() - began_s)))
    lines = told(herder, before).splitlines()
    most = 2 + int((time.monotonic() - began_s) / WATCHED_S)
    wait_for(lambda: is_even(herd), "nothing but orders that ended is charged")
    trouble.end()

    orders.append(herd.submit("when there is room", 5))
    results = [order.result(timeout=120) for order in orders]
    assert {one.receipt.state for one in results} == {"completed"}
    wait_for(lambda: herd.client.accounts.balance("default").held == 0, "all is settled")
    paid = 1_000_000 - herd.client.accounts.balance("default").available
    assert paid == sum(one.receipt.charged for one in results)
    assert len(herd.client.orders(limit=len(orders) + 3)) == len(orders), "refused: no order"
    assert herder.alive
    assert "Traceback" not in herder.log
    often = {kind: count for kind, count in kinds(lines).items() if count > most}
    assert not often, often


def is_even(herd: RunningHerd) -> bool:
    """Whether an account's money and what its orders were charged are all that it had."""
    charged = sum(one.charged for one in herd.client.orders(limit=1000))
    balance = herd.client.accounts.balance("default")
    return balance.available + balance.held + charged == 1_000_000


def told(herder: Child, before: int) -> str:
    """What it logged after so many lines."""
    return "\n".join(herder.log.splitlines()[before:])


def refused(herd: RunningHerd, orders: list) -> str | None:
    """Submit an order: what is said where it is refused."""
    try:
        orders.append(herd.submit(BIG, 3))
    except HerdUnavailable as error:
        return error.message
    return None


@pytest.mark.parametrize("trouble", ["read_only_file", "read_only_server"], indirect=True)
def test_a_herder_that_starts_on_a_read_only_disk_waits_for_it(trouble):
    herd = trouble.herd
    trouble.begin(None)
    herder = herd.begin_herder()
    herder.says("database_awaited")
    herder.says(trouble.sentence)
    trouble.end()
    herder.says("herder_ready")
    assert herder.log.count("database_awaited") == 1
    assert "Traceback" not in herder.log
    herd.start_worker()
    assert herd.submit().result(timeout=120).receipt.state == "completed"


def test_a_herder_that_starts_on_a_full_disk_goes_on_once_there_is_room(full_file, disk):
    herd = full_file.herd
    herd.client.close()
    herd.database.close()
    disk.fill()
    herder = herd.begin_herder()
    herder.says(full_file.sentence)
    disk.free()
    herder.says("herder_ready")
    assert "Traceback" not in herder.log
    herd.start_worker()
    assert herd.submit().result(timeout=120).receipt.state == "completed"
