"""Grants: what an account is given anew in each day, week or month, exactly once.

A period is one of the calendar, in UTC, and is posted as soon as it has begun; the first is the one
in which the grant is made. Those that began while no herder was there are posted on return, each
once. A clock that was set back posts nothing twice; one that runs ahead posts early.

What makes it once: a period's transfer is written in the transaction that moves the grant on to
the next one, and its id follows from the grant and the period: the ledger writes it no second time.

A grant that cannot be posted stops no other. One that the ledger refuses ends: it would be refused
for ever. One that this version cannot read (its period, say, is a newer version's) is set aside
with the reason, and tried again when a herder starts and each hour: what it owes is then posted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import date
from functools import partial

from sqlalchemy import Connection

import ledger
from herder.accounts.accounts import OUTSIDE, client_account, money_errors
from herder.db.database import Database
from herder.domain.ids import new_uuid
from herder.domain.parsing import parse_account, parse_amount
from herder.domain.periods import Every, day_of, parse_every, start_us
from herder.duties.turns import Turns
from herder.errors import (
    AccountNotFound,
    GrantNotFound,
    HerdError,
    HerdUnavailable,
    IdempotencyKeyReused,
    InvalidIdempotencyKey,
    InvalidRequest,
    SetupError,
    shown,
)
from herder.store import accounts as account_sql
from herder.store import grants as grant_sql
from herder.store.grants import Due, Grant
from ledger import Ledger, NewTransfer
from workers.transport.event_log import EventLog

_log = EventLog("herder.accounts.grants")

MAX_POSTED = 100
"""Periods that one step posts at most: some milliseconds, so that a herder's other work is not held
up, however many were missed."""

RETRY_US = 3_600_000_000
"""The time between tries of what was set aside."""

FIRST = Due(-(2**63), "")
"""Stands before every grant that may be due."""

MAX_NOTE_CHARS = 200
_BROKEN = "Posting it failed with an internal error; the herder's log has it."
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class _NotPosted(Exception):
    """A grant that this version cannot post; its text is the reason, for operators."""


class Grants:
    """Makes and ends grants, and posts what is due. Safe among threads and processes."""

    def __init__(
        self,
        database: Database,
        books: Ledger,
        *,
        clock_us: Callable[[], int],
        new_id: Callable[[], str] = new_uuid,
    ) -> None:
        self._database = database
        self._ledger = books
        self._clock_us = clock_us
        self._new_id = new_id
        self._retry_us = 0
        self._retried = ""
        self._stuck: set[str] = set()
        self._turns: Turns[Due, Due] = Turns(FIRST, lambda grant: grant, clock_us)

    def create(
        self,
        account: str,
        amount: int,
        every: str,
        *,
        starts: date | None = None,
        note: str = "",
        grant_id: str | None = None,
    ) -> Grant:
        """Give an account an amount anew in each period; the one that runs is posted at once.

        Args:
            account: who is given it.
            amount: winston for each period.
            every: `day`, `week` (from Monday on) or `month`: calendar ones, in UTC.
            starts: a day from today on: then the first period is the first that begins on it or
                later. None: the one that runs.
            note: the operator's own words; they stand in the statement.
            grant_id: the idempotency key, a UUID; drawn where none is given.

        Returns:
            The grant; or the one of an earlier call with the same id, as it stands now.

        Raises:
            AccountNotFound: no account has that name.
            InvalidRequest: another argument is not valid.
            IdempotencyKeyReused: the id stands for another grant.
        """
        parse_account(account)
        parse_amount(amount)
        period = parse_every(every)
        if len(note) > MAX_NOTE_CHARS or not note.isprintable():
            raise InvalidRequest(
                f"A grant's note must be at most {MAX_NOTE_CHARS} printable characters."
            )
        key = grant_id or self._new_id()
        if not _UUID.fullmatch(key):
            raise InvalidIdempotencyKey(
                f"A grant's id must be a UUID, not {shown(key)!r}.", key=shown(key)
            )
        now_us = self._clock_us()

        def step(connection: Connection) -> Grant:
            asked = Grant(
                key, account, amount, period, note, now_us, 0, 0, 0, ended_us=None, failure=None
            )
            found = grant_sql.get(connection, key, lock=True)
            if found is None:
                if account_sql.standing(connection, account) is None:
                    raise AccountNotFound(account)
                if grant_sql.add(connection, _beginning(asked, starts)):
                    self._post(connection, grant_sql.lock(connection, [key]), now_us)
                found = grant_sql.get(connection, key)
            assert found is not None, "it was there, or was written in this transaction"
            _require_same(found, asked, starts)
            return found

        return self._database.settle(step)

    def list(
        self, account: str | None = None, *, after: str | None = None, limit: int | None = None
    ) -> list[Grant]:
        """Return the grants of an account, or all of them, oldest first.

        Args:
            account: whose; None: anybody's.
            after: begin after this one: the last one of the page before.
            limit: how many at most; None: all.

        Raises:
            GrantNotFound: there is no grant `after`.
        """
        with self._database.read() as connection:
            last = None if after is None else grant_sql.get(connection, after)
            if after is not None and last is None:
                raise GrantNotFound(after)
            return grant_sql.page(connection, account=account, after=last, limit=limit)

    def set_aside(self, *, limit: int) -> tuple[int, Sequence[Grant]]:
        """Return the number of grants that are set aside, and the first of them.

        Args:
            limit: how many of them to return at most.
        """
        with self._database.read() as connection:
            return grant_sql.count_aside(connection), grant_sql.all_aside(connection, limit)

    def end(self, grant_id: str) -> Grant:
        """Post nothing more of a grant; what was posted stays, and one that has ended too.

        Raises:
            GrantNotFound: there is no such grant.
        """
        if not _UUID.fullmatch(grant_id):
            raise GrantNotFound(grant_id)

        def step(connection: Connection) -> Grant:
            grant_sql.end(connection, grant_id, self._clock_us())
            found = grant_sql.get(connection, grant_id)
            if found is None:
                raise GrantNotFound(grant_id)
            return found

        return self._database.settle(step)

    def post_due(self, limit: int = MAX_POSTED) -> int:
        """Post periods that have begun, the longest overdue first.

        Any number of herders may do it at once, and any may die at it: whoever comes next finds
        what was not posted.

        Args:
            limit: how many grants at most; never more than `MAX_POSTED` periods.

        Returns:
            How many periods were posted.

        Raises:
            HerdUnavailable: the database is busy or out of reach; what was posted stays so.
        """
        now_us = self._clock_us()
        with self._database.read() as connection:
            most = min(limit, MAX_POSTED)
            found = grant_sql.due(connection, now_us, self._turns.after, most)
        posted = self._retry_aside(now_us, limit)
        due = self._turns.due(found)
        self._stuck.clear()
        posted += self._post_all([one.id for one in due], now_us)
        self._turns.failed([one for one in due if one.id in self._stuck])
        self._turns.turn(found, most)
        return posted

    def _post_all(self, due: Sequence[str], now_us: int) -> int:
        """Post what is due of these together; where that fails, of each alone."""
        if not due:
            return 0
        try:
            return self._database.transact(partial(self._post_those, ids=due, now_us=now_us))
        except (HerdUnavailable, SetupError):
            raise
        except Exception as error:  # noqa: BLE001 (each is tried again alone, and logged then)
            # One of them must not keep the others from theirs: each alone.
            _log.warning("grants_posted_alone", count=len(due), reason=type(error).__name__)
        return sum(self._post_alone(one, now_us) for one in due)

    def _retry_aside(self, now_us: int, limit: int) -> int:
        """Try again what was set aside: all of it when a herder starts, and then each hour."""
        if now_us < self._retry_us:
            return 0
        with self._database.read() as connection:
            found = grant_sql.aside(connection, now_us, self._retried, limit)
        if len(found) == limit:
            self._retried = found[-1]
        else:
            self._retried, self._retry_us = "", now_us + RETRY_US
        return sum(self._post_alone(one, now_us) for one in found)

    def _post_alone(self, grant_id: str, now_us: int) -> int:
        """Post what is due of a grant; one that cannot be posted ends, or is set aside."""
        try:
            return self._database.transact(partial(self._post_those, ids=[grant_id], now_us=now_us))
        except (HerdUnavailable, SetupError):
            raise
        except HerdError as error:
            # The ledger would refuse it for ever: an account can be given so much and no more.
            why, ended = error.message, True
            _log.error("grant_ended", grant=grant_id, reason=why)
        except _NotPosted as error:
            why, ended = str(error), False
            _log.error("grant_set_aside", grant=grant_id, reason=why)
        except Exception:  # noqa: BLE001 (logged with its trace, and shown to operators)
            why, ended = _BROKEN, False
            _log.exception("grant_set_aside", grant=grant_id)
        try:
            self._database.transact(
                partial(grant_sql.end, grant_id=grant_id, now_us=now_us, why=why[:1000])
                if ended
                else partial(grant_sql.set_aside, grant_id=grant_id, why=why)
            )
        except (HerdUnavailable, SetupError):
            raise
        except Exception:  # noqa: BLE001 (logged with its trace; it is found again, and then waits)
            self._stuck.add(grant_id)
            _log.exception("grant_not_set_aside", grant=grant_id)
        return 0

    def _post_those(self, connection: Connection, ids: Iterable[str], now_us: int) -> int:
        """Post what is still due of these, now that nobody else can."""
        found = grant_sql.lock(connection, ids)
        live = [one for one in found if one.ended_us is None and one.next_us <= now_us]
        return self._post(connection, sorted(live, key=lambda one: one.next_us), now_us)

    def _post(self, connection: Connection, locked: Sequence[Grant], now_us: int) -> int:
        transfers: list[NewTransfer] = []
        moved: list[tuple[str, int, int]] = []
        for grant in locked:
            before, first = len(transfers), day_of(grant.next_us)
            every = _period(grant)
            while start_us(first) <= now_us and len(transfers) < MAX_POSTED:
                transfers.append(_transfer(grant, every.label(first)))
                first = every.following(first)
            moved.append((grant.id, start_us(first), len(transfers) - before))
        grant_sql.advance(connection, moved)
        # The ledger comes last: what it locks, others wait for until the commit.
        with money_errors(OUTSIDE):
            self._ledger.transfer_many(connection, transfers)
        return len(transfers)


def _transfer(grant: Grant, label: str) -> NewTransfer:
    """Return the deposit of a grant for one period."""
    tags = {"grant": grant.id, "period": label} | ({"note": grant.note} if grant.note else {})
    return NewTransfer(
        ledger.derive(grant.id, "grant", label),
        OUTSIDE,
        client_account(grant.account),
        grant.amount,
        tags,
    )


def _period(grant: Grant) -> Every:
    """Return the length of a grant's period.

    Raises:
        _NotPosted: this version knows no such period.
    """
    try:
        return Every(grant.every)
    except ValueError:
        raise _NotPosted(
            f"Its period {shown(grant.every)!r} is not known to this version, which knows "
            f"{', '.join(Every)}."
        ) from None


def _first(every: Every, made: date, starts: date | None) -> date:
    """Return the first day of a grant's first period."""
    if starts is None:
        return every.beginning(made)
    first = every.beginning(starts)
    return first if first == starts else every.following(first)


def _beginning(asked: Grant, starts: date | None) -> Grant:
    """Return a new grant, with its first period still to be posted."""
    today = day_of(asked.created_us)
    if starts is not None and starts < today:
        raise InvalidRequest(f"A grant must begin today ({today}, UTC) or later, not on {starts}.")
    first_us = start_us(_first(Every(asked.every), today, starts))
    return replace(asked, first_us=first_us, next_us=first_us)


def _require_same(found: Grant, asked: Grant, starts: date | None) -> None:
    """Require that a repeated call asks for the same.

    Raises:
        IdempotencyKeyReused: it asks for something else.
    """
    for field in ("account", "amount", "every", "note"):
        if getattr(found, field) != getattr(asked, field):
            raise IdempotencyKeyReused(found.id, field)
    if found.first_us != start_us(_first(Every(found.every), day_of(found.created_us), starts)):
        raise IdempotencyKeyReused(found.id, "starts")
