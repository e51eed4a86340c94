"""Several processes, one database: every hold is resolved once, no balance is spent twice, and what
was acknowledged survives a kill at any moment."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
from collections import Counter
from itertools import count
from pathlib import Path

import pytest

import ledger
from ledger import Ledger, post_id
from tests.support.wait import wait_for
from tests.unit.ledger.ledger_support import (
    Books,
    Clock,
    is_sqlite,
    open_books,
    open_engine,
    run,
    uid,
)

PROCESSES = 3
HOLDS = 90
COINS = 100  # what `purse` has: one process alone could spend it
IDS = 60
SEED = random.randrange(2**32)
VICTIM = "victim"
"""What a process that will be killed is called at its server."""


def race(url: str, number: int, seed: int, start, results) -> None:
    """One process's run: resolve every hold, spend a shared purse, write shared ids."""
    engine, book = open_engine(url), Ledger(Clock())
    random.seed(seed + number)
    done: list[tuple[str, str]] = []

    def once(name: str, call) -> None:
        with engine.begin() as conn:
            try:
                done.append((name, "replayed" if call(conn).replayed else "done"))
            except ledger.LedgerError as refused:
                done.append((name, refused.code))

    start.wait()
    for n in random.sample(range(HOLDS), HOLDS):
        if random.random() < 0.5:
            once(f"hold {n}", lambda conn, n=n: book.post(conn, uid("hold", n), 3))
        else:
            once(f"hold {n}", lambda conn, n=n: book.void(conn, uid("hold", n)))
    for n in range(COINS // 2):
        once("coin", lambda conn, n=n: book.transfer(
            conn, uid("coin", number, n), "purse", "revenue", 1))  # fmt: skip
    for n in range(IDS):
        once(f"id {n}", lambda conn, n=n: book.deposit(conn, uid("shared", n), "bob", 1))
    results.put(done)


def test_processes_race_for_the_same_holds_coins_and_ids(new_url):
    print(f"seed {SEED}")
    books = open_books(new_url())
    with books.begin() as conn:
        books.book.create_account(conn, "purse", "client")
        books.book.deposit(conn, uid("purse"), "purse", COINS)
        for n in range(HOLDS):
            books.book.hold(conn, uid("hold", n), "ada", "revenue", 5)
    spawn = multiprocessing.get_context("spawn")
    start, results = spawn.Barrier(PROCESSES), spawn.Queue()
    runners = [
        spawn.Process(target=race, args=(books.url, n, SEED, start, results))
        for n in range(PROCESSES)
    ]
    for runner in runners:
        runner.start()
    histories = [results.get(timeout=120) for _ in runners]
    for runner in runners:
        runner.join()
        assert runner.exitcode == 0

    happened = Counter(event for history in histories for event in history)
    for n in range(HOLDS):
        assert happened[f"hold {n}", "done"] == 1
    for n in range(IDS):
        assert happened[f"id {n}", "done"] == 1
        assert happened[f"id {n}", "replayed"] == PROCESSES - 1
    assert happened["coin", "done"] == COINS
    assert happened["coin", "ledger_insufficient_funds"] == PROCESSES * (COINS // 2) - COINS
    assert {code for _, code in happened} <= {
        "done", "replayed", "ledger_insufficient_funds", "ledger_hold_already_posted",
        "ledger_hold_already_voided",
    }  # fmt: skip
    with books.begin() as conn:
        report = books.book.audit(conn)
        assert report.drifts == ()
        assert report.open_holds == 0
        assert books.book.get_balance(conn, "purse").posted == 0
        assert books.book.get_balance(conn, "bob").posted == 1_000 + IDS
        posted = sum(1 for n in range(HOLDS) if _exists(books.book, conn, post_id(uid("hold", n))))
        assert books.book.get_balance(conn, "revenue").posted == COINS + 3 * posted


def _exists(book: Ledger, conn, transfer_id: str) -> bool:
    try:
        book.get_transfer(conn, transfer_id)
    except ledger.TransferNotFound:
        return False
    return True


def order(book: Ledger, conn, name: str) -> None:
    """What must happen as a whole: a hold, its post and a batch of ten transfers."""
    hold = book.hold(conn, uid(name), "ada", "revenue", 4)
    book.post(conn, hold.id, 1)
    book.transfer_many(
        conn,
        [ledger.NewTransfer(uid(name, n), "revenue", "ada", 1) for n in range(1)]
        + [ledger.NewTransfer(uid(name, n), "outside", "bob", 1) for n in range(1, 10)],
    )


def work_until_killed(url: str, round_: int, path: Path) -> None:
    engine, book = open_engine(url, program=VICTIM), Ledger(Clock())
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for n in count():
        name = f"order {round_} {n}"
        os.write(log, f"TRY {name}\n".encode())
        with engine.begin() as conn:
            order(book, conn, name)
        os.write(log, f"ACK {name}\n".encode())


def start_work(books: Books, round_: int, log: Path, chance: random.Random):
    """A process that writes orders; comes back somewhere between a TRY and its ACK."""
    spawn = multiprocessing.get_context("spawn")
    child = spawn.Process(target=work_until_killed, args=(books.url, round_, log))
    child.start()
    enough = chance.randrange(1, 60)
    while not log.exists() or log.read_text().count("ACK") < enough:
        assert child.is_alive()
        child.join(0.0002 * chance.random())
    child.join(0.002 * chance.random())
    return child


@pytest.mark.parametrize("round_", range(8))
def test_what_was_acknowledged_survives_a_kill(new_url, tmp_path, round_):
    print(f"seed {SEED}")
    books = open_books(new_url())
    log = tmp_path / "log"
    child = start_work(books, round_, log, random.Random(SEED + round_))
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    if not is_sqlite(books.url):  # what the server was told before, it goes on to do
        wait_for(lambda: _sessions(books, VICTIM) == 0, "the server notices the kill")
    require_acknowledged(books, log)


@pytest.mark.parametrize("round_", range(3))
def test_what_was_acknowledged_survives_the_crash_of_the_server(own_postgres, tmp_path, round_):
    print(f"seed {SEED}")
    books = open_books(own_postgres.new_books())
    books.engine.dispose()
    log = tmp_path / "log"
    child = start_work(books, round_, log, random.Random(SEED + round_))
    own_postgres.crash()
    child.join()  # of the error
    own_postgres.start()
    require_acknowledged(books, log)


def _sessions(books: Books, program: str) -> int:
    query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = ?"
    with books.begin() as conn:
        return run(conn, query, program).scalar_one()


def require_acknowledged(books: Books, log: Path) -> None:
    """What was acknowledged is there, and the rest is there as a whole or not at all."""
    lines = [line.split(" ", 1) for line in log.read_text().splitlines()]
    acked = [name for word, name in lines if word == "ACK"]
    in_doubt = [name for word, name in lines if word == "TRY" and name not in acked]
    assert acked
    assert len(in_doubt) <= 1
    engine = open_engine(books.url)
    with engine.begin() as conn:
        for name in acked:
            assert books.book.get_transfer(conn, post_id(uid(name))).amount == 1
        assert books.book.audit(conn).clean
        for name in in_doubt:  # all of it or nothing of it
            there = [_exists(books.book, conn, uid(name, n)) for n in range(10)]
            there += [_exists(books.book, conn, ident) for ident in (uid(name), post_id(uid(name)))]
            assert len(set(there)) == 1
    # And doing what is in doubt again, by the same ids, does it once
    with engine.begin() as conn:
        for name in [*in_doubt, acked[-1]]:
            order(books.book, conn, name)
        report = books.book.audit(conn)
        assert report.drifts == ()
        assert report.transfers == 2 + 12 * (len(acked) + len(in_doubt))
        assert books.book.get_balance(conn, "ada").posted == 1_000
        assert books.book.get_balance(conn, "bob").posted == 1_000 + 9 * (
            len(acked) + len(in_doubt)
        )
