"""The database itself refuses, whoever asks: raw SQL against every constraint by name.

Each probe breaks one rule and no other. It is refused under that rule's name, and it is let
through by a schema that lacks the rule: so every constraint is needed, and every probe is sharp.
"""

from __future__ import annotations

import pytest
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, IntegrityError

from ledger import post_id
from ledger.border import dialect_of
from ledger.postgres import POSTGRES
from ledger.sqlite import SQLITE
from tests.unit.ledger.ledger_support import (
    Books,
    constraint_names,
    is_sqlite,
    open_books,
    run,
    uid,
)

UNNAMED = {  # SQLite says of a foreign key only that it is one
    "ledger_transfer_debit_fk",
    "ledger_transfer_credit_fk",
    "ledger_refundable_transfer_fk",
}
ELSEWHERE = {  # SQLite has no TRUNCATE
    "ledger_transfer_no_truncate",
    "ledger_account_no_truncate",
    "ledger_refundable_no_truncate",
}
KEYS = {  # what tables and foreign keys stand on: no schema works without them
    "ledger_account_id_key",
    "ledger_transfer_seq_key",
    "ledger_transfer_id_key",
    "ledger_refundable_transfer_id_key",
}


def insert(conn: Connection, verb: str = "INSERT", tail: str = "", **columns: object) -> None:
    """A raw transfer: 10 winston from ada to revenue, but for what is given."""
    row = {
        "id": uid("raw"), "kind": "direct", "debit": "ada", "credit": "revenue", "amount": 10,
        "fingerprint": "", "tags": "{}", "at_us": 0,
    } | columns  # fmt: skip
    names, marks = ", ".join(row), ", ".join("?" * len(row))
    run(conn, f"{verb} INTO ledger_transfer ({names}) VALUES ({marks}){tail}", *row.values())


def resolve(conn: Connection, kind: str, hold: str, **columns: object) -> None:
    insert(conn, **{"kind": kind, "pending_id": uid(hold), "pending_amount": 400} | columns)


def give_back(conn: Connection, amount: int, **columns: object) -> None:
    row = {"debit": "revenue", "credit": "ada", "reverses_id": post_id(uid("posted"))} | columns
    insert(conn, amount=amount, **row)


def account(conn: Connection, **columns: object) -> None:
    row = {"id": "new", "kind": "client", "allow_overdraft": 0, "created_us": 0} | columns
    names, marks = ", ".join(row), ", ".join("?" * len(row))
    run(conn, f"INSERT INTO ledger_account ({names}) VALUES ({marks})", *row.values())


def counter(conn: Connection, name: str, value: int, of: str = "outside") -> None:
    run(conn, f"UPDATE ledger_account SET {name} = ? WHERE id = ?", value, of)


def sql(statement: str, *params: object):
    return lambda conn: run(conn, statement, *params)


PROBES = {
    "ledger_account_id_key": lambda c: account(c, id="ada"),
    "ledger_account_id_length": lambda c: account(c, id=""),
    "ledger_account_kind_length": lambda c: account(c, kind="x" * 65),
    "ledger_account_allow_overdraft_flag": lambda c: account(c, allow_overdraft=2),
    "ledger_account_no_overdraft": lambda c: counter(c, "debits_posted", 501, of="poor"),
    "ledger_account_debits_posted_range": lambda c: counter(c, "debits_posted", -1),
    "ledger_account_credits_posted_range": lambda c: counter(c, "credits_posted", 2**62),
    "ledger_account_debits_pending_range": lambda c: counter(c, "debits_pending", -1),
    "ledger_account_credits_pending_range": lambda c: counter(c, "credits_pending", -1),
    "ledger_account_no_delete": sql("DELETE FROM ledger_account WHERE id = 'unused'"),
    "ledger_account_no_truncate": sql("TRUNCATE ledger_account CASCADE"),
    "ledger_account_born_empty": lambda c: account(c, credits_posted=5),
    "ledger_transfer_seq_key": lambda c: insert(c, seq=1),
    "ledger_transfer_id_key": lambda c: insert(c, id=uid("fund", "bob")),
    "ledger_transfer_id_length": lambda c: insert(c, id="short"),
    "ledger_transfer_kind_known": lambda c: insert(c, kind="gift"),
    "ledger_transfer_two_accounts": lambda c: insert(c, credit="ada"),
    "ledger_transfer_amount_range": lambda c: insert(c, amount=0),
    "ledger_transfer_tags_length": lambda c: insert(c, tags=""),
    "ledger_transfer_pending_shape": lambda c: resolve(c, "direct", "live"),
    "ledger_transfer_post_within_hold": lambda c: resolve(c, "post", "live", amount=401),
    "ledger_transfer_void_whole": lambda c: resolve(c, "void", "live", amount=399),
    "ledger_transfer_refund_direct": lambda c: give_back(c, 1, kind="pending"),
    "ledger_transfer_debit_fk": lambda c: insert(c, debit="nobody"),
    "ledger_transfer_credit_fk": lambda c: insert(c, credit="nobody"),
    "ledger_transfer_pending_id_key": lambda c: resolve(c, "post", "posted"),
    "ledger_transfer_of_hold": lambda c: resolve(c, "post", "live", pending_amount=300),
    "ledger_transfer_of_refunded": lambda c: give_back(c, 1, credit="bob"),
    "ledger_transfer_no_update": sql("UPDATE ledger_transfer SET amount = 1 WHERE seq = 1"),
    "ledger_transfer_no_delete": sql("DELETE FROM ledger_transfer WHERE seq = 1"),
    "ledger_transfer_no_truncate": sql("TRUNCATE ledger_transfer CASCADE"),
    "ledger_refundable_transfer_id_key": sql(
        "INSERT INTO ledger_refundable VALUES (?, 300, 0)", post_id(uid("posted"))
    ),
    "ledger_refundable_within_amount": lambda c: give_back(c, 201),
    "ledger_refundable_transfer_fk": sql(
        "INSERT INTO ledger_refundable VALUES (?, 1, 0)", uid("never written")
    ),
    "ledger_refundable_no_delete": sql("DELETE FROM ledger_refundable"),
    "ledger_refundable_no_truncate": sql("TRUNCATE ledger_refundable"),
}


def open_probed(url: str, without: str | None = None) -> Books:
    """Books with a live hold, a posted one (300 of 400, of which 100 were refunded), a void one."""
    books = open_books(url, without)
    with books.begin() as conn:
        book = books.book
        book.create_account(conn, "unused", "client")
        book.create_account(conn, "poor", "client")
        book.deposit(conn, uid("more"), "ada", 9_000)
        book.deposit(conn, uid("earlier sales"), "revenue", 5_000)
        book.transfer(conn, uid("alms"), "ada", "poor", 500)
        for name in ("live", "also live", "posted", "voided"):
            book.hold(conn, uid(name), "ada", "revenue", 400)
        book.post(conn, uid("posted"), 300)
        book.void(conn, uid("voided"))
        book.refund(conn, uid("refund"), post_id(uid("posted")), 100)
    return books


def refusal(books: Books, name: str) -> str | None:
    """The rule under which the probe is refused; None if it is let through."""
    with books.begin() as conn:
        try:
            PROBES[name](conn)
        except IntegrityError as error:
            return dialect_of(conn).violated(error.orig)
        finally:
            conn.rollback()
    return None


def test_every_constraint_has_a_probe_and_both_databases_have_the_same():
    assert sorted(constraint_names(POSTGRES)) == sorted(PROBES)
    assert sorted(constraint_names(SQLITE)) == sorted(set(PROBES) - ELSEWHERE)


def test_every_rule_is_refused_under_its_own_name(new_url):
    books = open_probed(new_url())
    expected = {name: name for name in PROBES}
    if is_sqlite(books.url):
        expected = {name: name for name in PROBES if name not in ELSEWHERE}
        expected |= dict.fromkeys(UNNAMED, "foreign_key")
    assert {name: refusal(books, name) for name in expected} == expected
    with books.begin() as conn:
        assert books.book.audit(conn).clean


@pytest.mark.parametrize("name", sorted(set(PROBES) - KEYS - ELSEWHERE))
def test_without_its_constraint_the_same_probe_is_let_through(new_url, name):
    assert refusal(open_probed(new_url(), without=name), name) is None


def test_a_truncate_is_refused_as_long_as_any_of_the_three_rules_stands(postgres_server):
    """Each table but the last is referred to by another, which a TRUNCATE of it takes along."""
    books = open_probed(postgres_server.new_books())
    tables = ("ledger_account", "ledger_transfer", "ledger_refundable")
    for done, table in enumerate(tables):
        for probe in tables[: done + 1]:
            assert refusal(books, f"{probe}_no_truncate") == f"{tables[done]}_no_truncate"
        with books.begin() as conn:
            run(conn, f"DROP TRIGGER {table}_no_truncate ON {table}")
    assert refusal(books, "ledger_account_no_truncate") is None


@pytest.mark.parametrize(
    "columns",
    [
        {"amount": 1.5}, {"amount": "ten"}, {"amount": None}, {"amount": b"1"}, {"amount": 2**53},
        {"amount": -5}, {"kind": None}, {"debit": None}, {"credit": None}, {"id": None},
        {"at_us": None}, {"at_us": 0.5}, {"tags": None}, {"fingerprint": None},
        {"kind": "post"}, {"kind": "void"}, {"kind": "post", "pending_id": uid("live")},
        {"pending_amount": 400}, {"reverses_id": uid("never written")},
        {"reverses_id": uid("refund"), "debit": "ada", "credit": "revenue"},
        {"reverses_id": uid("live"), "debit": "revenue", "credit": "ada"},
        {"kind": "pending", "pending_id": uid("live"), "pending_amount": 400},
        {"kind": "post", "pending_id": uid("live"), "pending_amount": 400, "debit": "bob"},
        {"kind": "post", "pending_id": uid("live"), "pending_amount": 400, "credit": "bob"},
        {"kind": "post", "pending_id": uid("live"), "pending_amount": 401, "amount": 401},
        {"kind": "post", "pending_id": uid("more"), "pending_amount": 9_000, "debit": "outside",
         "credit": "ada"},
        {"kind": "void", "pending_id": uid("posted"), "pending_amount": 400, "amount": 400},
        {"kind": "post", "pending_id": uid("voided"), "pending_amount": 400},
        {"kind": "post", "pending_id": uid("never written"), "pending_amount": 10},
        {"kind": "post", "id": uid("raw"), "pending_id": uid("raw"), "pending_amount": 10},
        {"amount": 9_000}, {"kind": "pending", "amount": 9_000},
        {"debit": "poor", "credit": "outside", "amount": 501},
    ],
    ids=str,
)  # fmt: skip
def test_malformed_rows_are_refused(new_url, columns):
    books = open_probed(new_url())
    if not is_sqlite(books.url) and any(isinstance(value, float) for value in columns.values()):
        pytest.skip("PostgreSQL rounds a fraction before any rule sees it")
    with books.begin() as conn:
        refused = IntegrityError if is_sqlite(books.url) else DBAPIError
        with pytest.raises(refused), conn.begin_nested():
            insert(conn, **columns)
        report = books.book.audit(conn)
        assert report.clean
        assert report.transfers == 12


@pytest.mark.parametrize(
    "columns",
    [
        {"id": uid("live"), "kind": "pending", "amount": 1},
        {"id": uid("fund", "bob"), "debit": "outside", "credit": "bob", "amount": 1_000},
        {"seq": 1},
        {"kind": "void", "pending_id": uid("posted"), "pending_amount": 400, "amount": 400},
    ],
    ids=str,
)
def test_history_cannot_be_replaced_by_the_back_door(tmp_path, columns):
    books = open_probed(f"sqlite:///{tmp_path}/books.db")
    with books.begin() as conn:
        with pytest.raises(IntegrityError, match="ledger_transfer_no_delete"):
            insert(conn, verb="INSERT OR REPLACE", **columns)
        assert books.book.audit(conn).clean


def test_an_upsert_changes_no_history_and_moves_no_money(postgres_server):
    books = open_probed(postgres_server.new_books())
    again = {"id": uid("fund", "bob"), "debit": "outside", "credit": "bob"}
    with books.begin() as conn:
        with pytest.raises(IntegrityError, match="ledger_transfer_no_update"), conn.begin_nested():
            insert(conn, tail=" ON CONFLICT (id) DO UPDATE SET amount = 1", **again)
        before = books.book.get_balance(conn, "bob")
        insert(conn, tail=" ON CONFLICT (id) DO NOTHING", **again)
        assert books.book.get_balance(conn, "bob") == before
        assert books.book.audit(conn).clean
