"""What only PostgreSQL has: many writers at once, locks that are waited for, sessions that end."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

import ledger
from ledger import NewTransfer, statement
from tests.support.wait import wait_for
from tests.unit.ledger.ledger_support import Books, open_books, open_engine, run, uid

CLIENTS = [f"c{n}" for n in range(6)]
STRIPES = [f"r{n}" for n in range(3)]
THREADS = 4
SEED = random.randrange(2**32)


@pytest.fixture
def books(postgres_server) -> Iterator[Books]:
    """Beside the usual ones: clients and stripes of revenue with 10,000 winston each."""
    made = open_books(postgres_server.new_books())
    with made.begin() as conn:
        for name in (*CLIENTS, *STRIPES):
            made.book.create_account(conn, name, "any")
            made.book.deposit(conn, uid("fund", name), name, 10_000)
    yield made
    made.engine.dispose()


# Connections that are refused


def test_a_connection_that_would_commit_by_itself_is_refused(books):
    loose = open_engine(books.url).execution_options(isolation_level="AUTOCOMMIT")
    with loose.connect() as conn, pytest.raises(ledger.LedgerMisconfigured, match="BEGIN"):
        books.book.deposit(conn, uid("d"), "ada", 1)


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_a_connection_that_does_not_see_what_others_commit_is_refused(books, level):
    strict = open_engine(books.url).execution_options(isolation_level=level)
    with strict.connect() as conn, pytest.raises(ledger.LedgerMisconfigured, match="COMMITTED"):
        books.book.deposit(conn, uid("d"), "ada", 1)


def test_a_connection_whose_triggers_do_not_fire_is_refused(books):
    with open_engine(books.url).connect() as conn:
        run(conn, "SET session_replication_role = replica")
        with pytest.raises(ledger.LedgerMisconfigured, match="session_replication_role"):
            books.book.deposit(conn, uid("d"), "ada", 1)


# Waiting for each other


def together(*steps):
    """Take steps at the same time, each on a thread of its own; what they came to."""
    with ThreadPoolExecutor(len(steps)) as pool:
        return [future.result() for future in [pool.submit(step) for step in steps]]


def test_a_deadlock_is_busy_and_no_lack_of_funds(books):
    """Two who take the same accounts call by call, each in its own order."""
    meet = threading.Barrier(2)

    def take(first: str, second: str) -> str:
        with books.engine.connect() as conn:
            books.book.transfer(conn, uid(first), first, f"r{first[1]}", 1)
            meet.wait()
            try:
                books.book.transfer(conn, uid(first, second), second, "revenue", 1)
            except ledger.LedgerBusy as busy:
                return busy.reason
            conn.commit()
            return ""

    ends = together(lambda: take("c0", "c1"), lambda: take("c1", "c0"))
    assert sorted(ends) == ["", "deadlock detected"]
    with books.begin() as conn:
        assert books.book.audit(conn).clean


def test_payments_to_and_fro_never_wait_for_each_other(books):
    print(f"seed {SEED}")

    def pay(number: int) -> None:
        chance = random.Random(SEED + number)
        for n in range(60):
            pairs = [chance.sample(CLIENTS, 2) for _ in range(chance.randrange(1, 8))]
            batch = [
                NewTransfer(uid("p", number, n, i), payer, payee, 1)
                for i, (payer, payee) in enumerate(pairs)
            ]
            with books.begin() as conn:
                books.book.transfer_many(conn, batch)

    together(*(lambda number=number: pay(number) for number in range(THREADS)))
    with books.begin() as conn:
        assert books.book.audit(conn).clean
        assert sum(books.book.get_balance(conn, name).posted for name in CLIENTS) == 60_000


def test_settlements_in_any_order_never_wait_for_each_other(books):
    """Posts and voids in one transaction, over accounts that all share."""
    print(f"seed {SEED}")
    rounds = 25

    def settle(number: int) -> None:
        chance = random.Random(SEED + number)
        for n in range(rounds):
            holds = [uid("h", number, n, i) for i in range(6)]
            with books.begin() as conn:
                for hold in sorted(holds, key=lambda _: chance.random()):
                    books.book.lock_accounts(conn, [*CLIENTS, *STRIPES])
                    payer, payee = chance.choice(CLIENTS), chance.choice(STRIPES)
                    books.book.hold(conn, hold, payer, payee, 2)
            with books.begin() as conn:
                books.book.lock_holds(conn, holds)
                books.book.post_many(conn, [(hold, 1) for hold in holds[:3]])
                books.book.void_many(conn, holds[3:])

    together(*(lambda number=number: settle(number) for number in range(THREADS)))
    with books.begin() as conn:
        report = books.book.audit(conn)
        assert report.clean
        assert report.open_holds == 0
        posted = sum(books.book.get_balance(conn, name).posted for name in STRIPES)
        assert posted == 30_000 + 3 * rounds * THREADS


def test_a_reader_who_goes_on_after_the_last_number_misses_no_transfer(books):
    """Of two transfers of one account, the one that is committed first has the lower number."""
    slow = books.engine.connect()
    books.book.lock_accounts(slow, ["ada"])

    def wait_and_pay() -> None:
        with books.begin() as conn:
            books.book.transfer(conn, uid("second"), "ada", "bob", 1)

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(wait_and_pay)
        wait_for(lambda: _waiting(books) == 1, "the other waits for ada")
        books.book.transfer(slow, uid("first"), "ada", "bob", 1)
        slow.commit()
        waiting.result()
    slow.close()
    with books.begin() as conn:
        entries = books.book.list_entries(conn, "ada")
        assert [entry.transfer_id for entry in entries[-2:]] == [uid("first"), uid("second")]
        assert books.book.list_entries(conn, "ada", after_seq=entries[-2].seq) == entries[-1:]


def _waiting(books: Books) -> int:
    query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    with books.begin() as conn:
        return run(conn, query).scalar_one()


def test_a_session_that_the_server_ended_is_busy(books):
    for call in (
        lambda conn: books.book.deposit(conn, uid("d"), "ada", 1),
        lambda conn: books.book.post_many(conn, [(uid("h"), 1), (uid("g"), 1)]),
        lambda conn: books.book.get_balance(conn, "ada"),
    ):
        with books.engine.connect() as conn:
            books.book.get_balance(conn, "ada")
            session = run(conn, "SELECT pg_backend_pid()").scalar_one()
            with books.begin() as other:
                run(other, "SELECT pg_terminate_backend(?)", session)
            with pytest.raises(ledger.LedgerBusy) as refused:
                call(conn)
            assert "\n" not in refused.value.reason


# Reading


def test_the_statement_walks_its_indexes_and_reads_a_page_of_each(books):
    with books.begin() as conn:
        for setting in ("enable_seqscan", "enable_bitmapscan", "enable_sort"):
            run(conn, f"SET LOCAL {setting} = off")
        rows = run(conn, f"EXPLAIN {statement._ENTRIES}", *("ada", 0, 10) * 2, 10)
        plan = "\n".join(rows.scalars())
    assert "ledger_transfer_debit_idx" in plan
    assert "ledger_transfer_credit_idx" in plan
    assert plan.count("Limit") == 3
    assert plan.count("->  Sort") <= 1, plan
