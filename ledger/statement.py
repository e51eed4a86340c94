"""The statement of an account: its transfers from its own side, signed."""

from __future__ import annotations

from sqlalchemy import Connection

from ledger.border import fetch
from ledger.model import Entry
from ledger.requests import json_to_tags

# Two walks along two indexes, each for a page, merged by seq: the cost is the page, however long
# the journal is.
# A hold or a void changes nothing for the account that it would have credited, so that side lists
# only what moved money.
_ENTRIES = """
SELECT * FROM (
    SELECT seq, id, kind, credit AS counterparty,
        CASE WHEN kind IN ('direct', 'post') THEN -amount ELSE 0 END AS posted,
        CASE kind WHEN 'direct' THEN 0 WHEN 'pending' THEN amount ELSE -pending_amount END
            AS pending,
        pending_id, reverses_id, tags, at_us
    FROM ledger_transfer WHERE debit = ? AND seq > ? ORDER BY seq LIMIT ?
) AS paid
UNION ALL
SELECT * FROM (
    SELECT seq, id, kind, debit, amount, 0, pending_id, reverses_id, tags, at_us
    FROM ledger_transfer WHERE credit = ? AND seq > ? AND kind IN ('direct', 'post')
    ORDER BY seq LIMIT ?
) AS earned
ORDER BY seq LIMIT ?
"""


def entries(conn: Connection, account_id: str, after_seq: int, limit: int) -> list[Entry]:
    """Return the entries of an account after `after_seq`, oldest first, at most `limit`."""
    side = (account_id, after_seq, limit)
    rows = fetch(conn, _ENTRIES, (*side, *side, limit))
    return [
        Entry(
            seq, ident, kind, counterparty, posted, pending, hold, reverses, json_to_tags(tags), us
        )
        for seq, ident, kind, counterparty, posted, pending, hold, reverses, tags, us in rows
    ]
