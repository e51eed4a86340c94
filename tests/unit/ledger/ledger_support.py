"""What the ledger's tests share: a database with books in it, a clock, and mutated schemas."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any
from uuid import UUID, uuid5

from sqlalchemy import Connection, Engine, create_engine, event, make_url

from ledger import SQLITE_PRAGMAS, Ledger, Transfer, create_schema
from ledger.backend import Backend
from ledger.border import dialect_of

NAMESPACE = UUID("5f3c1b52-0d5e-4d0a-9f0b-6a8f5d1c7e11")


def uid(*words: object) -> str:
    """A transfer id that is the same on every run."""
    return str(uuid5(NAMESPACE, ":".join(map(str, words))))


def is_sqlite(url: str) -> bool:
    return url.startswith("sqlite:")


def open_engine(url: str, timeout_s: float = 60.0, program: str = "books") -> Engine:
    """An engine with the rules that DESIGN asks of whoever opens the books."""
    engine = (_open_sqlite if is_sqlite(url) else _open_postgres)(url, timeout_s, program)
    _opened.append(engine)
    return engine


_opened: list[Engine] = []


def close_engines() -> None:
    """Give back the connections of every engine that was opened here."""
    while _opened:
        _opened.pop().dispose()


def _open_sqlite(url: str, timeout_s: float, _program: str) -> Engine:
    engine = create_engine(url, connect_args={"timeout": timeout_s})

    @event.listens_for(engine, "connect")
    def _configure(driver, _record):
        driver.isolation_level = None
        for pragma in ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", *SQLITE_PRAGMAS):
            driver.execute(pragma)

    @event.listens_for(engine, "begin")
    def _begin(conn):
        conn.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def _open_postgres(url: str, timeout_s: float, program: str) -> Engine:
    engine = create_engine(
        make_url(url).set(drivername="postgresql+psycopg"),
        isolation_level="READ COMMITTED",
        connect_args={"application_name": program},
    )

    @event.listens_for(engine, "connect")
    def _configure(driver, _record):
        driver.autocommit = True
        driver.execute(f"SET lock_timeout = {max(1, int(timeout_s * 1000))}")
        driver.autocommit = False

    return engine


def run(conn: Connection, sql: str, *params: object) -> Any:
    """Execute a statement that marks its parameters with `?`, as the ledger's own do."""
    return conn.exec_driver_sql(dialect_of(conn).spell(sql), params)


@dataclass
class Clock:
    """Rises by one microsecond whenever it is asked."""

    now_us: Iterator[int] = field(default_factory=lambda: count(1_000_000))

    def __call__(self) -> int:
        return next(self.now_us)


@dataclass
class Books:
    """A database with an outside, two clients with 1,000 winston each, and a revenue account."""

    url: str
    engine: Engine
    book: Ledger

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        with self.engine.begin() as conn:
            yield conn

    def available(self, account: str) -> int:
        with self.begin() as conn:
            return self.book.get_balance(conn, account).available

    def held(self, amount: int, name: str = "h") -> Transfer:
        """A hold of ada's money for the revenue."""
        with self.begin() as conn:
            return self.book.hold(conn, uid(name), "ada", "revenue", amount, {"order": name})


def open_books(url: str, without: str | None = None) -> Books:
    """Fresh books; `without` leaves a constraint or trigger out of the schema."""
    books = Books(url, open_engine(url), Ledger(Clock()))
    with books.begin() as conn:
        if without is None:
            create_schema(conn)
        else:
            create_mutant(conn, without)
        books.book.create_account(conn, "outside", "outside", allow_overdraft=True)
        for name, kind in (("ada", "client"), ("bob", "client"), ("revenue", "revenue")):
            books.book.create_account(conn, name, kind)
        for name in ("ada", "bob"):
            books.book.deposit(conn, uid("fund", name), name, 1_000)
    return books


# Mutants


def constraint_names(backend: Backend) -> list[str]:
    """Every name by which the schema refuses."""
    ddl = "\n".join(map(_bare, backend.ddl()))
    names = re.findall(r"CONSTRAINT (\w+)", ddl) + re.findall(r"UNIQUE INDEX (\w+)", ddl)
    refusing = r"CREATE TRIGGER (\w+)[^;]*FUNCTION ledger_re(?:fuse|quire\w+)\("
    return names + re.findall(r"RAISE\(ABORT, '(\w+)'\)", ddl) + re.findall(refusing, ddl)


def create_mutant(conn: Connection, without: str) -> None:
    """The schema with one constraint, unique index or trigger left out."""
    found = 0
    for statement in map(_bare, dialect_of(conn).ddl()):
        mutated = _without(statement, without)
        found += mutated != statement
        if mutated:
            run(conn, mutated)
    assert found == 1, f"{without} stands {found} times in the schema"


def _bare(statement: str) -> str:
    return re.sub(r"--[^\n]*", "", statement)


def _without(statement: str, name: str) -> str:
    if re.match(rf"\s*CREATE (TRIGGER|UNIQUE INDEX) {name}\b", statement):
        return ""
    start = re.search(rf"CONSTRAINT {name}\b", statement)
    if start is None:
        return statement
    depth, end = 0, start.end()
    while depth > 0 or statement[end] not in ",)":  # to the comma or the table's own bracket
        depth += {"(": 1, ")": -1}.get(statement[end], 0)
        end += 1
    head, tail = statement[: start.start()], statement[end:]
    return head + tail[1:] if tail[0] == "," else head.rstrip().rstrip(",") + tail
