"""Several processes, one file: every hold is resolved once, no balance is spent twice, and what was
acknowledged survives a kill at any moment."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
from collections import Counter
from pathlib import Path

import pytest
from ledger_support import Clock, open_books, open_engine, uid

import ledger
from ledger import Ledger, post_id

PROCESSES = 3
HOLDS = 90
COINS = 100  # what `purse` has: one process alone could spend it
IDS = 60
SEED = random.randrange(2**32)


def race(path: Path, number: int, seed: int, start, results) -> None:
    """One process's run: resolve every hold, spend a shared purse, write shared ids."""
    engine, book = open_engine(path), Ledger(Clock())
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


def test_processes_race_for_the_same_holds_coins_and_ids(tmp_path):
    print(f"seed {SEED}")
    books = open_books(tmp_path / "books.db")
    with books.begin() as conn:
        books.book.create_account(conn, "purse", "client")
        books.book.deposit(conn, uid("purse"), "purse", COINS)
        for n in range(HOLDS):
            books.book.hold(conn, uid("hold", n), "ada", "revenue", 5)
    spawn = multiprocessing.get_context("spawn")
    start, results = spawn.Barrier(PROCESSES), spawn.Queue()
    runners = [
        spawn.Process(target=race, args=(books.path, n, SEED, start, results))
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


def work_until_killed(path: Path, round_: int, log: int) -> None:
    engine, book = open_engine(path), Ledger(Clock())
    n = 0
    while True:
        name = f"order {round_} {n}"
        os.write(log, f"TRY {name}\n".encode())
        with engine.begin() as conn:
            order(book, conn, name)
        os.write(log, f"ACK {name}\n".encode())
        n += 1


def start_worker(path: Path, round_: int, log: Path) -> None:
    work_until_killed(path, round_, os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND))


@pytest.mark.parametrize("round_", range(8))
def test_what_was_acknowledged_survives_a_kill(tmp_path, round_):
    print(f"seed {SEED}")
    chance = random.Random(SEED + round_)
    books = open_books(tmp_path / "books.db")
    log = tmp_path / "log"
    spawn = multiprocessing.get_context("spawn")
    child = spawn.Process(target=start_worker, args=(books.path, round_, log))
    child.start()
    enough = chance.randrange(1, 60)
    while not log.exists() or log.read_text().count("ACK") < enough:
        assert child.is_alive()
        child.join(0.0002 * chance.random())
    child.join(0.002 * chance.random())  # somewhere between a TRY and its ACK
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    lines = [line.split(" ", 1) for line in log.read_text().splitlines()]
    acked = [name for word, name in lines if word == "ACK"]
    in_doubt = [name for word, name in lines if word == "TRY" and name not in acked]
    assert len(acked) >= enough
    assert len(in_doubt) <= 1

    # Somebody else opens the file: what was acknowledged is there, whole
    engine = open_engine(books.path)
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
