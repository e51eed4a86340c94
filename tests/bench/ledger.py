"""Transfers a second through the ledger, beside the raw sqlite3 driver doing the same work.

    .venv/bin/python tests/bench/ledger.py [--rounds N] [--json] [--folder PATH]

The work is what the ledger does all day: a hundred clients pay the revenue. Single means one
transaction each, durable (`synchronous=FULL`); by 100 means a hundred in one call and one
transaction. The raw driver writes the same rows into the same tables, with the same checks and
indexes, in a second file, and updates the two balances by hand where the ledger's triggers do.
Both work on one machine at once, in turn, in rounds of a few hundred; ratios are taken within a
round, and the medians of the rounds are shown. Figures go to `ledger.json` in the folder.

Measured on two shared cores, Python 3.11.7, SQLite 3.40.1, fdatasync of a page 189 us, 15 rounds:

    raw driver, single     4,239 a second     raw driver, by 100    34,213
    ledger, single         3,105              ledger, by 100        24,553
    ledger, hold           3,037                among clients       19,220
                                              ledger, post by 100   18,097
    single_vs_raw 0.71 (aim 0.5)              batch100_vs_single 8.2 (aim 8)

Eight other runs, with up to four processes beside them, gave 0.58 to 0.77 and 7.0 to 14.7 (one of
them under 8): the second ratio falls as the disk gets faster, since a batch shares out the wait for
it. In RAM, with no wait at all, they were 0.50 and 3.7.

Where the time goes, in microseconds a transfer:

    single  235 commit, 57 insert (of which SQLAlchemy about 20), 39 begin, 15 the ledger's Python
    by 100   14 commit, 12 insert, 7 the ledger's Python, 1 the rest

A commit by 100 is mostly the pages written: a transfer's id falls anywhere in its index, and each
account has its own place in the statement's. That is why a wide key that only served a foreign
key went (22 us), why a batch is one statement and not a hundred under a SAVEPOINT (43 us), and why
the connection keeps 16 MiB of pages and folds its log back every 16 MiB.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

ROOT = Path(__file__).resolve().parents[2]
if sys.path[0] == str(Path(__file__).resolve().parent):
    sys.path[0] = str(ROOT)  # run as a script: this very file would be `ledger` otherwise

from sqlalchemy import Engine, create_engine, event  # noqa: E402

from ledger import SQLITE_PRAGMAS, Ledger, NewTransfer, create_schema  # noqa: E402
from ledger.sqlite import SQLITE  # noqa: E402

ACCOUNTS = 100
SINGLES = 300
BATCHES = 20
BATCH = 100
AIMS = {"single_vs_raw": 0.5, "batch100_vs_single": 8.0}
PRAGMAS = ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", *SQLITE_PRAGMAS)

RAW_INSERT = """
INSERT INTO ledger_transfer (id, kind, debit, credit, amount, fingerprint, tags, at_us)
VALUES (?, 'direct', ?, ?, ?, ?, '{}', ?)
"""
RAW_DEBIT = "UPDATE ledger_account SET debits_posted = debits_posted + ? WHERE id = ?"
RAW_CREDIT = "UPDATE ledger_account SET credits_posted = credits_posted + ? WHERE id = ?"
FINGERPRINT = "0" * 32

Moves = list[tuple[str, str, str, int]]


def now_us() -> int:
    return time.time_ns() // 1_000


def moves(count: int, spread: bool = False) -> Moves:
    """Clients pay the revenue, or each other (`spread`); drawn before the clock starts."""
    return [
        (
            str(uuid4()),
            f"client:{n % ACCOUNTS}",
            f"client:{(7 * n + 1) % ACCOUNTS}" if spread else "revenue",
            1 + n % 50,
        )
        for n in range(count)
    ]


# The raw driver: the same tables, checks and indexes, the balances updated by hand


def open_raw(path: Path) -> sqlite3.Connection:
    driver = sqlite3.connect(path, isolation_level=None)
    for pragma in PRAGMAS:
        driver.execute(pragma)
    for statement in SQLITE.ddl():
        if "TRIGGER ledger_transfer_apply" not in statement:
            driver.execute(statement)
    driver.executemany(
        "INSERT INTO ledger_account (id, kind, allow_overdraft, created_us) VALUES (?, 'c', 0, 0)",
        [("revenue",)] + [(f"client:{n}",) for n in range(ACCOUNTS)],
    )
    driver.execute("UPDATE ledger_account SET credits_posted = 1000000000")
    return driver


def raw_single(driver: sqlite3.Connection, work: Moves) -> None:
    for ident, debit, credit, amount in work:
        driver.execute("BEGIN IMMEDIATE")
        driver.execute(RAW_INSERT, (ident, debit, credit, amount, FINGERPRINT, now_us()))
        driver.execute(RAW_DEBIT, (amount, debit))
        driver.execute(RAW_CREDIT, (amount, credit))
        driver.execute("COMMIT")


def raw_batch(driver: sqlite3.Connection, work: Moves) -> None:
    for start in range(0, len(work), BATCH):
        part = work[start : start + BATCH]
        at_us = now_us()
        driver.execute("BEGIN IMMEDIATE")
        driver.executemany(RAW_INSERT, [(i, d, c, a, FINGERPRINT, at_us) for i, d, c, a in part])
        driver.executemany(RAW_DEBIT, [(a, d) for _, d, _, a in part])
        driver.executemany(RAW_CREDIT, [(a, c) for _, _, c, a in part])
        driver.execute("COMMIT")


# The ledger, on an engine as the herder opens it


def open_ledger(path: Path) -> tuple[Engine, Ledger]:
    engine = create_engine(f"sqlite:///{path}")

    @event.listens_for(engine, "connect")
    def _configure(driver: sqlite3.Connection, _record: object) -> None:
        driver.isolation_level = None
        for pragma in PRAGMAS:
            driver.execute(pragma)

    @event.listens_for(engine, "begin")
    def _begin(conn) -> None:
        conn.exec_driver_sql("BEGIN IMMEDIATE")

    book = Ledger(now_us)
    with engine.begin() as conn:
        create_schema(conn)
        book.create_account(conn, "outside", "outside", allow_overdraft=True)
        book.create_account(conn, "revenue", "revenue")
        for n in range(ACCOUNTS):
            book.create_account(conn, f"client:{n}", "client")
            book.deposit(conn, str(uuid4()), f"client:{n}", 1_000_000_000)
    return engine, book


def measure(folder: Path, rounds: int) -> dict[str, float]:
    raw = open_raw(folder / "raw.db")
    engine, book = open_ledger(folder / "ledger.db")
    conn = engine.connect()

    def single(work: Moves) -> None:
        for ident, debit, credit, amount in work:
            with conn.begin():
                book.transfer(conn, ident, debit, credit, amount)

    def batch(work: Moves) -> None:
        for start in range(0, len(work), BATCH):
            part = [NewTransfer(*move) for move in work[start : start + BATCH]]
            with conn.begin():
                book.transfer_many(conn, part)

    def hold(work: Moves) -> None:
        for ident, debit, _, amount in work:
            with conn.begin():
                book.hold(conn, ident, debit, "revenue", amount)

    def post(work: Moves) -> None:
        for start in range(0, len(work), BATCH):
            with conn.begin():
                book.post_many(conn, [(ident, 1) for ident, *_ in work[start : start + BATCH]])

    runs: dict[str, Callable[[Moves], None]] = {
        "raw_single": lambda work: raw_single(raw, work),
        "single": single,
        "raw_batch100": lambda work: raw_batch(raw, work),
        "batch100": batch,
        "spread100": batch,
        "hold": hold,
        "post100": post,
    }
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    seconds["fdatasync"] = []
    for number in range(-1, rounds):  # the first warms up and does not count
        holds = moves(SINGLES)
        # What comes first in one round comes last in the next, but for posts, which need holds.
        order = [*list(runs)[:5][:: 1 if number % 2 else -1], "hold", "post100"]
        for name in order:
            many = name.endswith("batch100") or name == "spread100"
            work = moves(BATCHES * BATCH if many else SINGLES, spread=name == "spread100")
            work = holds if name in ("hold", "post100") else work
            start = time.perf_counter()
            runs[name](work)
            spent = (time.perf_counter() - start) / len(work)
            if number >= 0:
                seconds[name].append(spent)
        if number >= 0:
            seconds["fdatasync"].append(sync_seconds(folder))
    with conn.begin():
        assert book.audit(conn).clean
    conn.close()

    figures = {f"{name}_per_s": 1 / statistics.median(seconds[name]) for name in runs}
    figures["fdatasync_us"] = 1e6 * statistics.median(seconds["fdatasync"])
    for key, (quick, slow) in {
        "single_vs_raw": ("raw_single", "single"),
        "batch100_vs_single": ("single", "batch100"),
        "batch100_vs_raw": ("raw_batch100", "batch100"),
    }.items():  # within a round, so that a busy machine is busy for both
        figures[key] = statistics.median(
            a / b for a, b in zip(seconds[quick], seconds[slow], strict=True)
        )
    return figures


def sync_seconds(folder: Path) -> float:
    """What the disk asks for one durable write of a page, which is most of a single transfer."""
    with (folder / "sync").open("wb", buffering=0) as file:
        start = time.perf_counter()
        for _ in range(20):
            file.write(b"\0" * 4_096)
            os.fdatasync(file.fileno())
        return (time.perf_counter() - start) / 20


def table(figures: dict[str, float]) -> str:
    lines = [f"{'':24}{'a second':>12}{'us each':>12}"]
    for name, words in {
        "raw_single": "raw driver, single",
        "single": "ledger, single",
        "hold": "ledger, hold",
        "raw_batch100": "raw driver, by 100",
        "batch100": "ledger, by 100",
        "spread100": "  among clients",
        "post100": "ledger, post by 100",
    }.items():
        rate = figures[f"{name}_per_s"]
        lines.append(f"{words:24}{rate:12,.0f}{1e6 / rate:12,.1f}")
    lines.append(f"{'one fdatasync':36}{figures['fdatasync_us']:12,.1f}")
    for name, aim in AIMS.items():
        met = "met" if figures[name] >= aim else "missed"
        lines.append(f"{name:24}{figures[name]:12.2f}   aim {aim:g}: {met}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=11, help="rounds to take medians of (11)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument(
        "--folder",
        type=Path,
        default=ROOT / "build" / "bench",
        help="where the files are made and the figures written: a real disk (build/bench)",
    )
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        figures = measure(Path(folder), given.rounds)
    written = {name: round(value, 3) for name, value in figures.items()} | {
        f"aim_{name}": aim for name, aim in AIMS.items()
    }
    written |= {"python": platform.python_version(), "sqlite": sqlite3.sqlite_version}
    text = json.dumps(written, indent=2)
    (given.folder / "ledger.json").write_text(text + "\n")
    print(text if given.json else table(figures))


if __name__ == "__main__":
    main()
