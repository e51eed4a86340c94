"""What a commit changed: temporary triggers note which rows, and only those are read again."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass, field
from typing import Any, NamedTuple

QUEUED, DISPATCHED, RUNNING = "queued", "dispatched", "running"
OUT = frozenset({DISPATCHED, RUNNING})
WAITING = frozenset({QUEUED, DISPATCHED})
ENDED = frozenset({"completed", "failed", "cancelled", "expired"})


class Row(NamedTuple):
    """An order as it stands, with the names of its columns."""

    seq: int
    id: str
    account: str
    model: str
    state: str
    rank: int
    fee: int
    needed: int
    prompt_fee: int
    fee_per_token: int
    charge_unused: int
    words: int
    tokens: int
    hold_id: str
    holds: int
    start_by_us: int | None
    run_limit_s: int | None
    submitted_us: int
    attempt: int
    nonce: str | None
    attempt_open: int
    dispatched_us: int | None
    deadline_heard_s: int | None
    instance: str | None
    worker: str | None
    begun: int
    call_off: str | None
    tries: int
    dispatches: int
    ended_us: int | None
    finish_reason: str | None
    generated: int
    charged: int
    returned: int
    refunded: int
    failure: str | None
    message: str | None

    @property
    def open(self) -> bool:
        """Whether it has not ended."""
        return self.state not in ENDED

    @property
    def key(self) -> tuple[int, int]:
        """Its place of service: lower goes first."""
        return -self.rank, self.seq

    @property
    def failure_code(self) -> str | None:
        """Why it failed."""
        return None if self.failure is None else str(json.loads(self.failure)["code"])


class Move(NamedTuple):
    """A transfer of the ledger's."""

    seq: int
    id: str
    kind: str
    debit: str
    credit: str
    amount: int
    pending_id: str | None
    pending_amount: int | None
    reverses_id: str | None


class Event(NamedTuple):
    """A line of an order's story."""

    seq: int
    order_id: str
    kind: str
    attempt: int


class Change(NamedTuple):
    """An order before a commit, if it was there, and after it."""

    old: Row | None
    new: Row


@dataclass
class Commit:
    """What one transaction changed."""

    changes: list[Change]
    moves: list[Move]
    events: list[Event]
    unsent: list[tuple[str, int]]
    """(order, attempt) of outbox rows that were deleted."""
    purged: list[str]
    """Orders whose texts were."""
    told: list[str]
    """Orders whose end was told by a message."""

    @property
    def anything(self) -> bool:
        """Whether anything that the rules look at changed."""
        return any((self.changes, self.moves, self.events, self.unsent, self.purged, self.told))


_SETUP = """
CREATE TEMP TABLE touched (seq INTEGER);
CREATE TEMP TABLE unsent (order_id TEXT, attempt INTEGER);
CREATE TEMP TABLE purged (order_id TEXT);
CREATE TEMP TABLE told (order_id TEXT);
CREATE TEMP TRIGGER orders_born AFTER INSERT ON main.orders
    BEGIN INSERT INTO touched VALUES (NEW.seq); END;
CREATE TEMP TRIGGER orders_moved AFTER UPDATE ON main.orders
    BEGIN INSERT INTO touched VALUES (NEW.seq); END;
CREATE TEMP TRIGGER outbox_cleared AFTER DELETE ON main.outbox
    BEGIN INSERT INTO unsent VALUES (OLD.order_id, OLD.attempt); END;
CREATE TEMP TRIGGER texts_purged AFTER DELETE ON main.order_text
    BEGIN INSERT INTO purged VALUES (OLD.order_id); END;
CREATE TEMP TRIGGER messages_came AFTER INSERT ON main.message
    BEGIN INSERT INTO told VALUES (NEW.order_id); END;
"""
_COLUMNS = ", ".join(Row._fields)
_TOUCHED = f"SELECT {_COLUMNS} FROM orders WHERE seq IN (SELECT seq FROM touched) ORDER BY seq"
_ALL = f"SELECT {_COLUMNS} FROM orders ORDER BY seq"
_MOVES = f"SELECT {', '.join(Move._fields)} FROM ledger_transfer WHERE seq > ? ORDER BY seq"
_EVENTS = f"SELECT {', '.join(Event._fields)} FROM event WHERE seq > ? ORDER BY seq"


@dataclass
class Shadow:
    """The committed state of the orders, kept beside the database."""

    raw: sqlite3.Connection
    by_seq: dict[int, Row] = field(default_factory=dict)
    by_id: dict[str, Row] = field(default_factory=dict)
    queued: dict[int, Row] = field(default_factory=dict)
    out: dict[int, Row] = field(default_factory=dict)
    commits: int = 0
    """Commits that changed anything."""
    _changes: int = 0
    _moves: int = 0
    _events: int = 0

    def watch(self) -> None:
        """Begin, on a database without orders."""
        self.raw.executescript(_SETUP)
        self._moves = self.one("SELECT coalesce(max(seq), 0) FROM ledger_transfer")
        self._changes = self.raw.total_changes

    def one(self, sql: str, *values: object) -> Any:
        """The one value that a query gives."""
        return self.raw.execute(sql, values).fetchone()[0]

    def rows(self, sql: str, *values: object) -> list[Any]:
        """All rows of a query."""
        return self.raw.execute(sql, values).fetchall()

    def read(self) -> Commit | None:
        """What changed since the last time; None if nothing did."""
        if self.raw.total_changes == self._changes:
            return None
        self.commits += 1
        changes = []
        for values in self.rows(_TOUCHED):
            new = Row(*values)
            old = self.by_seq.get(new.seq)
            if new != old:
                changes.append(Change(old, new))
                self._put(new)
        moves = [Move(*values) for values in self.rows(_MOVES, self._moves)]
        events = [Event(*values) for values in self.rows(_EVENTS, self._events)]
        unsent = self.rows("SELECT order_id, attempt FROM unsent ORDER BY rowid")
        purged = [order_id for (order_id,) in self.rows("SELECT order_id FROM purged")]
        told = [order_id for (order_id,) in self.rows("SELECT order_id FROM told")]
        if moves:
            self._moves = moves[-1].seq
        if events:
            self._events = events[-1].seq
        self.raw.execute("DELETE FROM touched")
        if unsent:
            self.raw.execute("DELETE FROM unsent")
        if purged:
            self.raw.execute("DELETE FROM purged")
        if told:
            self.raw.execute("DELETE FROM told")
        self._changes = self.raw.total_changes
        return Commit(changes, moves, events, unsent, purged, told)

    def _put(self, row: Row) -> None:
        self.by_seq[row.seq] = self.by_id[row.id] = row
        for state, rows in ((row.state == QUEUED, self.queued), (row.state in OUT, self.out)):
            if state:
                rows[row.seq] = row
            else:
                rows.pop(row.seq, None)

    def all_rows(self) -> list[Row]:
        """Every order as the database has it now."""
        return [Row(*values) for values in self.rows(_ALL)]
