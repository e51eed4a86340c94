"""The audit finds what got past the constraints: each fault is planted in a schema that lets it."""

from __future__ import annotations

import re

import pytest

from ledger import Drift, NewTransfer, audit, post_id
from tests.unit.ledger.ledger_support import open_books, run, uid

MISSING = uid("never written")
POST, VOID = post_id(uid("posted")), uid("second")
RAW = """
INSERT INTO ledger_transfer (id, kind, debit, credit, amount, fingerprint, pending_id,
    pending_amount, reverses_id, tags, at_us) VALUES (?, ?, ?, ?, ?, '', ?, ?, ?, '{}', 0)
"""


def row(kind, debit, credit, amount, hold=None, held=None, reverses=None):
    return RAW, (uid("raw"), kind, debit, credit, amount, hold, held, reverses)


def counter(name, account, by):
    return f"UPDATE ledger_account SET {name} = {name} + ? WHERE id = ?", (by, account)


# What is left out of the schema, what is done, and what the audit must say of it
FAULTS = {
    "money appears": (None, counter("credits_posted", "bob", 7), {
        ("credits_posted", "bob", 1_000, 1_007), ("conservation", "all accounts", 0, 7),
    }),
    "money vanishes": (None, counter("debits_posted", "bob", 7), {
        ("debits_posted", "bob", 0, 7), ("conservation", "all accounts", 0, -7),
    }),
    "a hold of nothing": (None, counter("debits_pending", "bob", 7), {
        ("debits_pending", "bob", 0, 7), ("conservation_of_holds", "all accounts", 0, -7),
    }),
    "a promise of nothing": (None, counter("credits_pending", "bob", 7), {
        ("credits_pending", "bob", 0, 7), ("conservation_of_holds", "all accounts", 0, 7),
    }),
    "an overdraft": (
        "ledger_account_no_overdraft", row("direct", "bob", "revenue", 1_001),
        {("overdraft", "bob", 0, -1)},
    ),
    "a transfer to nobody": ("ledger_transfer_credit_fk", row("direct", "bob", "nobody", 5), {
        ("account_missing", "nobody", 1, 0), ("conservation", "all accounts", 0, -5),
    }),
    "a transfer that moved nothing": (
        "ledger_transfer_apply_direct", row("direct", "bob", "revenue", 5),
        {("debits_posted", "bob", 5, 0), ("credits_posted", "revenue", 5_305, 5_300)},
    ),
    "a second resolution": (
        "ledger_transfer_pending_id_key",
        row("void", "ada", "revenue", 400, uid("posted"), 400),
        {("resolved_once", uid("posted"), 1, 2)},
    ),
    "a post above its hold": (
        "ledger_transfer_post_within_hold",
        row("post", "ada", "revenue", 401, uid("live"), 400),
        {("resolution_of_hold", uid("raw"), 400, 400)},
    ),
    "a post of a hold that never was": (
        "ledger_transfer_of_hold", row("post", "ada", "revenue", 5, MISSING, 5),
        {("resolution_of_hold", uid("raw"), 0, 5)},
    ),
    "a void in part": (
        "ledger_transfer_void_whole", row("void", "ada", "revenue", 5, uid("live"), 400),
        {("resolution_of_hold", uid("raw"), 400, 400)},
    ),
    "a refund by another": (
        "ledger_transfer_of_refunded", row("direct", "bob", "ada", 5, reverses=POST),
        {("refund_of_transfer", uid("raw"), 1, 0)},
    ),
    "a refund above the amount": (
        "ledger_refundable_within_amount", row("direct", "revenue", "ada", 250, reverses=POST),
        {("refunded_within_amount", POST, 300, 350)},
    ),
    "a refund that was not counted": (
        "ledger_transfer_apply_refund",
        row("direct", "ada", "outside", 5, reverses=uid("fund", "ada")),
        {("refunded", uid("fund", "ada"), 5, 0)},
    ),
    "a refundable that forgets": (
        None, ("UPDATE ledger_refundable SET refunded = 0", ()), {("refunded", POST, 100, 0)},
    ),
    "a refundable that grows": (
        None, ("UPDATE ledger_refundable SET amount = 999", ()),
        {("refundable_amount", POST, 300, 999)},
    ),
}  # fmt: skip


def open_faulty(url, without):
    books = open_books(url, without)
    with books.begin() as conn:
        book = books.book
        book.deposit(conn, uid("earlier sales"), "revenue", 5_000)
        for name in ("live", "posted"):
            book.hold(conn, uid(name), "ada", "revenue", 400)
        book.post(conn, uid("posted"), 300)
        book.refund(conn, uid("refund"), POST, 100)
    return books


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_found_and_nothing_else(new_url, fault):
    without, statement, expected = FAULTS[fault]
    trigger = without is not None and "_apply_" in without
    books = open_faulty(new_url(), None if trigger else without)
    with books.begin() as conn:
        assert books.book.audit(conn).clean
        if trigger:
            on = "" if conn.dialect.name == "sqlite" else " ON ledger_transfer"
            run(conn, f"DROP TRIGGER {without}{on}")
        run(conn, statement[0], *statement[1])
        report = books.book.audit(conn)
        assert not report.clean
        assert set(report.drifts) == {Drift(*drift) for drift in expected}


def test_every_check_is_tried():
    checks = set(re.findall(r"SELECT '(\w+)'", "".join(audit._CHECKS)))
    tried = {drift[0] for *_, expected in FAULTS.values() for drift in expected}
    assert tried == checks


def test_every_drift_is_reported_at_once(new_url):
    books = open_books(new_url())
    with books.begin() as conn:
        for n in range(50):
            books.book.create_account(conn, f"c{n}", "client")
        books.book.transfer_many(
            conn, [NewTransfer(uid("t", n), "outside", f"c{n}", 10) for n in range(50)]
        )
        run(conn, "UPDATE ledger_account SET credits_posted = 9 WHERE id LIKE 'c%'")
        report = books.book.audit(conn)
        assert {d.subject for d in report.drifts if d.check == "credits_posted"} == {
            f"c{n}" for n in range(50)
        }
        assert Drift("conservation", "all accounts", 0, -50) in report.drifts
