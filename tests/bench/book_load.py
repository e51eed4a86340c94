"""A book of many waiting orders, made in bulk: as order intake would have written it, row for row.

Accounts with a deposit each, and for each order its hold, its row, its request and its event. On
SQLite the ledger's triggers apply the balances as ever. PostgreSQL's do some three thousand a
second, so there the rows are copied past triggers and foreign keys, and the balances are written as
the sums of the transfers; afterwards the ledger's own audit
recomputes every one of them (`Book.check`).
"""

from __future__ import annotations

import json
import random
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import ledger
from herder.accounts.accounts import OUTSIDE, client_account
from herder.db.database import Database
from herder.domain.order import OrderRequest, Prompt
from herder.domain.pricing import Rates, count_words, needed, rank
from herder.host.home import REVENUE_STRIPES
from herder.store import accounts as account_sql
from herder.store.orders import StoredRequest
from ledger.ids import derive
from ledger.model import NewTransfer
from ledger.requests import draft_transfer
from workers.wire import Sampling

MODEL = "stub"
DEPOSIT = 10**12
CHUNK = 10_000
_WORDS = ("the", "herd", "decodes", "one", "long", "prompt", "of", "many", "words", "paid", "for")
PROMPTS = [Prompt(" ".join(_WORDS * (1 + n % 7)) + f" {n}") for n in range(1000)]
RATES = Rates(1, 1)
BYTES_PER_WORD = 16

Say = Callable[[str], None]

TRANSFER = (
    "seq, id, kind, debit, credit, amount, fingerprint, pending_id, pending_amount, reverses_id, "
    "tags, at_us"
)
ORDER = (
    "seq, id, account, model, state, rank, fee, needed, prompt_fee, fee_per_token, charge_unused, "
    "bid_factor, automatic, words, tokens, reference, idempotency_key, fingerprint, hold_id, "
    "start_by_us, run_limit_s, submitted_us"
)
TEXT = "order_id, request"
EVENT = "order_id, kind, at_us, attempt"
TABLES = {
    "ledger_transfer": TRANSFER,
    "orders": ORDER,
    "order_text": TEXT,
    "event": EVENT,
}


@cache
def words_of(prompt: Prompt) -> int:
    """As order intake counts them; a million times is too often for a thousand prompts."""
    return count_words(prompt.counted, BYTES_PER_WORD)


@cache
def request_of(prompt: Prompt) -> str:
    """As it is stored."""
    return json.dumps(StoredRequest(prompt, (), Sampling()).to_json())


@dataclass(frozen=True, slots=True)
class Clients:
    """Who orders: a hundred orders an account, some accounts far more than others."""

    count: int

    @classmethod
    def of(cls, orders: int) -> Clients:
        """As many as so many orders come from."""
        return cls(max(50, orders // 100))

    def one(self, draw: random.Random) -> str:
        """Somebody: the first account orders some twenty times as much as the last."""
        return f"client{int(self.count * draw.random() ** 1.5)}"

    @property
    def names(self) -> list[str]:
        """All of them."""
        return [f"client{number}" for number in range(self.count)]


def call(draw: random.Random, account: str, now_us: int) -> OrderRequest:
    """An order as somebody might submit it, for the least fee or a few times that.

    One in ten has to begin within the day.
    """
    prompt = draw.choice(PROMPTS)
    tokens = draw.randint(16, 512)
    need = needed(RATES, words_of(prompt), tokens)
    return OrderRequest(
        account=account,
        prompt=prompt,
        tokens=tokens,
        fee=int(need * (1 + draw.expovariate(1))),
        model=MODEL,
        reference=f"job {draw.randrange(10**6)}" if draw.random() < 0.3 else None,
        start_by_us=now_us + 86_400_000_000 if draw.random() < 0.1 else None,
    )


def new_id(draw: random.Random) -> str:
    """A version 4 UUID that the seed decides."""
    return str(UUID(int=draw.getrandbits(128), version=4))


Rows = dict[str, list[tuple[Any, ...]]]


def waiting(orders: int, stripes: int, after_seq: int, now_us: int) -> Iterator[Rows]:
    """The rows of so many orders that wait, by table, a chunk at a time; transfers after one."""
    draw = random.Random(orders)
    clients = Clients.of(orders)
    for first in range(0, orders, CHUNK):
        rows: Rows = {name: [] for name in TABLES}
        for number in range(first, min(orders, first + CHUNK)):
            _add(rows, number, draw, clients, stripes, after_seq, now_us)
        yield rows


def _add(
    rows: Rows,
    number: int,
    draw: random.Random,
    clients: Clients,
    stripes: int,
    after_seq: int,
    now_us: int,
) -> None:
    account = clients.one(draw)
    at_us = now_us - 1_000_000_000 + 100 * number
    asked = call(draw, account, now_us)
    assert asked.fee is not None
    words = words_of(asked.prompt)
    need = needed(RATES, words, asked.tokens)
    order_id = new_id(draw)
    hold_id = derive(order_id, "hold", "1")
    revenue = f"revenue:{ledger.stripe(hold_id, stripes)}"
    held = NewTransfer(hold_id, client_account(account), revenue, asked.fee, {"order": order_id})
    transfer = (after_seq + number + 1, *draft_transfer("pending", held, at_us).row())
    rows["ledger_transfer"].append(transfer)
    rows["orders"].append(
        (
            number + 1,
            order_id,
            account,
            MODEL,
            "queued",
            rank(asked.fee, need),
            asked.fee,
            need,
            RATES.prompt_fee,
            RATES.fee_per_token,
            False,
            "1",
            False,
            words,
            asked.tokens,
            asked.reference,
            None,
            None,
            hold_id,
            asked.start_by_us,
            None,
            at_us,
        )
    )
    rows["order_text"].append((order_id, request_of(asked.prompt)))
    rows["event"].append((order_id, "submitted", at_us, 0))


def open_accounts(database: Database, books: ledger.Ledger, names: list[str], now_us: int) -> None:
    """Open accounts with more money than they will spend."""
    for first in range(0, len(names), 500):
        part = names[first : first + 500]
        with database.write() as connection:
            for name in part:
                books.create_account(connection, client_account(name), "client")
                account_sql.add_account(connection, name, now_us)
            deposits = [
                NewTransfer(str(uuid4()), OUTSIDE, client_account(name), DEPOSIT) for name in part
            ]
            books.transfer_many(connection, deposits)


LAST_SEQ = "SELECT max(seq) FROM ledger_transfer"
COUNT_OPEN = """
UPDATE account SET open_orders = (SELECT count(*) FROM orders WHERE orders.account = account.name)
"""
SUMS = """
UPDATE ledger_account SET debits_pending = held.amount
FROM (SELECT debit AS id, sum(amount) AS amount FROM ledger_transfer WHERE kind = 'pending'
    GROUP BY debit) AS held
WHERE ledger_account.id = held.id;
UPDATE ledger_account SET credits_pending = held.amount
FROM (SELECT credit AS id, sum(amount) AS amount FROM ledger_transfer WHERE kind = 'pending'
    GROUP BY credit) AS held
WHERE ledger_account.id = held.id
"""


def load_sqlite(path: Path, orders: int, now_us: int, say: Say) -> list[tuple[str, int]]:
    """Fill a migrated file; gives (id, fee) of some of the orders.

    No statistics are made: nothing of the herder makes any on SQLite.
    """
    driver = sqlite3.connect(path, isolation_level=None)
    for pragma in (*ledger.SQLITE_PRAGMAS, "PRAGMA cache_size=-1000000", "PRAGMA synchronous=OFF"):
        driver.execute(pragma)
    some = Sample()
    driver.execute("BEGIN IMMEDIATE")
    (after_seq,) = driver.execute(LAST_SEQ).fetchone()
    for rows in waiting(orders, REVENUE_STRIPES["sqlite"], after_seq, now_us):
        for table, names in TABLES.items():
            marks = ", ".join("?" * (names.count(",") + 1))
            driver.executemany(f"INSERT INTO {table} ({names}) VALUES ({marks})", rows[table])
        some.add(rows)
        say(f"sqlite: {some.seen:,} of {orders:,} orders")
    driver.execute(COUNT_OPEN)
    driver.execute("COMMIT")
    driver.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    driver.close()
    return some.kept


def load_postgres(url: str, orders: int, now_us: int, say: Say) -> list[tuple[str, int]]:
    """Fill a migrated database; gives (id, fee) of some of the orders.

    At the end it is vacuumed and analysed, as autovacuum does within a minute of such a growth.
    """
    import psycopg  # only where there is one

    some = Sample()
    with psycopg.connect(url) as driver:
        driver.execute("SET session_replication_role = replica")
        (after_seq,) = driver.execute(LAST_SEQ).fetchone()
        for rows in waiting(orders, REVENUE_STRIPES["postgresql"], after_seq, now_us):
            for table, names in TABLES.items():
                with driver.cursor().copy(f"COPY {table} ({names}) FROM STDIN") as copy:
                    for row in rows[table]:
                        copy.write_row(row)
            some.add(rows)
            say(f"postgres: {some.seen:,} of {orders:,} orders")
        driver.execute(SUMS)
        driver.execute(COUNT_OPEN)
        driver.execute("SELECT setval('orders_seq_seq', max(seq)) FROM orders")
        driver.execute("SELECT setval('ledger_transfer_seq', max(seq)) FROM ledger_transfer")
    with psycopg.connect(url, autocommit=True) as driver:
        driver.execute("VACUUM (ANALYZE)")
        driver.execute("CHECKPOINT")
    return some.kept


class Sample:
    """Some of the orders, drawn evenly: a million ids would only fill the memory."""

    MAX = 20_000

    def __init__(self) -> None:
        self.kept: list[tuple[str, int]] = []
        self.seen = 0
        self._draw = random.Random(7)

    def add(self, rows: Rows) -> None:
        """Draw from another chunk (a reservoir)."""
        for row in rows["orders"]:
            self.seen += 1
            if len(self.kept) < self.MAX:
                self.kept.append((row[1], row[6]))
            elif (place := self._draw.randrange(self.seen)) < self.MAX:
                self.kept[place] = (row[1], row[6])
