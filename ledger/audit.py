"""The audit: everything that is derived, worked out again from the transfers, and compared.

All of it in SQL, so that only what is wrong leaves the database. The constraints refuse these
states already; the audit is for what got past them: a restored file, a hand in the database, a
connection without foreign keys, a fault of ours.
"""

from __future__ import annotations

from sqlalchemy import Connection

from ledger.border import fetch
from ledger.model import AuditReport, Drift, Totals

# Each check gives a row for each thing that is wrong: check, subject, expected, found.

_COUNTERS = """
WITH paid AS (
    SELECT debit AS id,
        sum(CASE WHEN kind IN ('direct', 'post') THEN amount ELSE 0 END) AS posted,
        sum(CASE kind WHEN 'pending' THEN amount WHEN 'direct' THEN 0 ELSE -pending_amount END)
            AS pending
    FROM ledger_transfer GROUP BY debit
), earned AS (
    SELECT credit AS id,
        sum(CASE WHEN kind IN ('direct', 'post') THEN amount ELSE 0 END) AS posted,
        sum(CASE kind WHEN 'pending' THEN amount WHEN 'direct' THEN 0 ELSE -pending_amount END)
            AS pending
    FROM ledger_transfer GROUP BY credit
), compared AS (
    SELECT a.id,
        coalesce(paid.posted, 0) AS debits_posted, a.debits_posted AS found_debits_posted,
        coalesce(paid.pending, 0) AS debits_pending, a.debits_pending AS found_debits_pending,
        coalesce(earned.posted, 0) AS credits_posted, a.credits_posted AS found_credits_posted,
        coalesce(earned.pending, 0) AS credits_pending, a.credits_pending AS found_credits_pending
    FROM ledger_account AS a
        LEFT JOIN paid ON paid.id = a.id
        LEFT JOIN earned ON earned.id = a.id
    WHERE coalesce(paid.posted, 0) <> a.debits_posted
        OR coalesce(paid.pending, 0) <> a.debits_pending
        OR coalesce(earned.posted, 0) <> a.credits_posted
        OR coalesce(earned.pending, 0) <> a.credits_pending
)
SELECT 'debits_posted', id, debits_posted, found_debits_posted
    FROM compared WHERE debits_posted <> found_debits_posted
UNION ALL SELECT 'debits_pending', id, debits_pending, found_debits_pending
    FROM compared WHERE debits_pending <> found_debits_pending
UNION ALL SELECT 'credits_posted', id, credits_posted, found_credits_posted
    FROM compared WHERE credits_posted <> found_credits_posted
UNION ALL SELECT 'credits_pending', id, credits_pending, found_credits_pending
    FROM compared WHERE credits_pending <> found_credits_pending
"""

_MISSING_ACCOUNTS = """
SELECT 'account_missing', side.id, 1, 0
FROM (SELECT debit AS id FROM ledger_transfer UNION SELECT credit FROM ledger_transfer) AS side
    LEFT JOIN ledger_account AS a ON a.id = side.id
WHERE a.id IS NULL
"""

_OVERDRAFTS = """
SELECT 'overdraft', id, 0, credits_posted - debits_posted - debits_pending
FROM ledger_account
WHERE allow_overdraft = 0 AND debits_posted + debits_pending > credits_posted
"""

# Each transfer adds to one side what it adds to the other, so all accounts together have nothing.
_CONSERVATION = """
SELECT 'conservation', 'all accounts', 0, posted FROM (
    SELECT sum(credits_posted - debits_posted) AS posted FROM ledger_account
) AS total WHERE posted <> 0
UNION ALL
SELECT 'conservation_of_holds', 'all accounts', 0, pending FROM (
    SELECT sum(credits_pending - debits_pending) AS pending FROM ledger_account
) AS total WHERE pending <> 0
"""

_RESOLUTIONS = """
SELECT 'resolution_of_hold', t.id, coalesce(h.amount, 0), t.pending_amount
FROM ledger_transfer AS t
    LEFT JOIN ledger_transfer AS h ON h.id = t.pending_id AND h.kind = 'pending'
        AND h.debit = t.debit AND h.credit = t.credit AND h.amount = t.pending_amount
WHERE t.pending_id IS NOT NULL
    AND (h.id IS NULL OR t.amount > h.amount OR (t.kind = 'void' AND t.amount <> h.amount))
UNION ALL
SELECT 'resolved_once', pending_id, 1, count(*)
FROM ledger_transfer WHERE pending_id IS NOT NULL GROUP BY pending_id HAVING count(*) > 1
"""

_REFUNDS = """
WITH given_back AS (
    SELECT reverses_id AS id, sum(amount) AS refunded
    FROM ledger_transfer WHERE reverses_id IS NOT NULL GROUP BY reverses_id
)
SELECT 'refund_of_transfer', t.id, 1, 0
FROM ledger_transfer AS t
    LEFT JOIN ledger_transfer AS o ON o.id = t.reverses_id AND o.reverses_id IS NULL
        AND o.kind IN ('direct', 'post') AND o.debit = t.credit AND o.credit = t.debit
WHERE t.reverses_id IS NOT NULL AND o.id IS NULL
UNION ALL
SELECT 'refundable_amount', r.transfer_id, coalesce(o.amount, 0), r.amount
FROM ledger_refundable AS r LEFT JOIN ledger_transfer AS o ON o.id = r.transfer_id
WHERE o.amount IS NULL OR o.amount <> r.amount
UNION ALL
SELECT 'refunded', r.transfer_id, coalesce(g.refunded, 0), r.refunded
FROM ledger_refundable AS r LEFT JOIN given_back AS g ON g.id = r.transfer_id
WHERE coalesce(g.refunded, 0) <> r.refunded
UNION ALL
SELECT 'refunded', g.id, g.refunded, 0
FROM given_back AS g LEFT JOIN ledger_refundable AS r ON r.transfer_id = g.id
WHERE r.transfer_id IS NULL
UNION ALL
SELECT 'refunded_within_amount', g.id, o.amount, g.refunded
FROM given_back AS g JOIN ledger_transfer AS o ON o.id = g.id
WHERE g.refunded > o.amount
"""

_CHECKS = (_COUNTERS, _MISSING_ACCOUNTS, _OVERDRAFTS, _CONSERVATION, _RESOLUTIONS, _REFUNDS)

_TOTALS = """
SELECT count(*),
    (SELECT count(*) FROM ledger_transfer),
    (SELECT count(*) FROM ledger_transfer WHERE kind = 'pending')
        - (SELECT count(*) FROM ledger_transfer WHERE pending_id IS NOT NULL),
    coalesce(sum(CASE allow_overdraft WHEN 0 THEN credits_posted - debits_posted END), 0),
    coalesce(sum(CASE allow_overdraft WHEN 1 THEN credits_posted - debits_posted END), 0),
    coalesce(sum(debits_pending), 0)
FROM ledger_account
"""


_SUMS = """
SELECT count(*),
    coalesce(sum(CASE allow_overdraft WHEN 0 THEN credits_posted - debits_posted END), 0),
    coalesce(sum(CASE allow_overdraft WHEN 1 THEN credits_posted - debits_posted END), 0),
    coalesce(sum(debits_pending), 0),
    coalesce(sum(credits_pending), 0),
    coalesce(sum(CASE WHEN allow_overdraft = 0 AND debits_posted + debits_pending > credits_posted
        THEN 1 ELSE 0 END), 0)
FROM ledger_account
"""


def totals(conn: Connection) -> Totals:
    """Return the sums over all accounts; see `Ledger.totals`."""
    return Totals(*map(int, fetch(conn, _SUMS)[0]))


def audit(conn: Connection) -> AuditReport:
    """Compare what is derived with the transfers; see `Ledger.audit`."""
    # PostgreSQL sums up into a `Decimal`, since the sum of integers may be larger than any of its.
    drifts = tuple(
        Drift(name, subject, int(expected), int(found))
        for check in _CHECKS
        for name, subject, expected, found in fetch(conn, check)
    )
    accounts, transfers, open_holds, circulating, outside, held = map(int, fetch(conn, _TOTALS)[0])
    return AuditReport(accounts, transfers, open_holds, circulating, outside, held, drifts)
