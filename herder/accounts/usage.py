"""Usage: what accounts ordered, by account or model, between two days.

Orders are counted on the day (UTC) on which they ended, however their texts were deleted since. A
refund is counted with its order, whenever it was given.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from datetime import date
from typing import Any

from herder.accounts.csv_export import to_csv
from herder.db.database import Database
from herder.domain.paging import MAX_PAGE, page_of, require_limit
from herder.domain.parsing import parse_account
from herder.domain.periods import Every, day_of, parse_day, start_us
from herder.errors import InvalidRequest, shown
from herder.store import usage as usage_sql
from herder.store.usage import Used

BY = ("account", "model")
MAX_DAYS = 366
NUMBERS = tuple(one.name for one in fields(Used))[1:]
"""The figures of each account or model."""


@dataclass(frozen=True, slots=True)
class Report:
    """A page of what was used.

    Attributes:
        by: what each row is about: an `account`, or a `model`.
        first: the first day.
        last: the last day, which belongs to it.
        account: whose orders; None: everybody's.
        rows: in the order of their names.
        next: the name to go on after, or None at the end.
    """

    by: str
    first: date
    last: date
    account: str | None
    rows: tuple[Used, ...]
    next: str | None

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON would have it."""
        return {
            "by": self.by,
            "from": self.first.isoformat(),
            "to": self.last.isoformat(),
            "account": self.account,
            "rows": [row_of(row) for row in self.rows],
            "next": self.next,
        }


def row_of(row: Used) -> dict[str, Any]:
    """Return a row as JSON would have it: the orders by how they ended, and the rest."""
    values = asdict(row)
    ends = {state: values.pop(state) for state in ("completed", "failed", "cancelled", "expired")}
    return {"name": values.pop("name"), "orders": ends, **values}


def to_sheet(by: str, rows: Iterable[Used], *, line_end: str = "\r\n") -> str:
    """Rows as CSV, with a line of titles; no cell of it is run as a formula."""
    cells: Iterable[list[str | int]] = ([row.name, *numbers_of(row)] for row in rows)
    return to_csv((by, *NUMBERS), cells, line_end=line_end)


def numbers_of(row: Used) -> list[int]:
    """Return the numbers of a row, in the order of `NUMBERS`."""
    return [getattr(row, name) for name in NUMBERS]


def total(rows: Iterable[Used]) -> Used:
    """Return all rows as one."""
    columns = zip(*(numbers_of(row) for row in rows), strict=True)
    return Used("(total)", *(sum(column) for column in columns))


def read_usage(
    database: Database,
    now_us: int,
    *,
    by: object = "account",
    first: object = None,
    last: object = None,
    account: str | None = None,
    after: str = "",
    limit: int = MAX_PAGE,
    names: tuple[str, str] = ("from", "to"),
) -> Report:
    """Return the usage between two days, a page at a time.

    Args:
        database: where orders stand.
        now_us: the time, in microseconds since the epoch.
        by: `account` or `model`.
        first: the first day, as `2026-11-25`; None: the first of the last day's month.
        last: the last day, which belongs to it; None: today. All in UTC.
        account: only this account's; None: everybody's.
        after: begin after this name: `next` of the page before.
        limit: how many rows at most, 1 to `MAX_PAGE`.
        names: what the two days are called in a sentence that refuses them.

    Raises:
        InvalidRequest: one of them is not valid, or there are more than `MAX_DAYS` days.
    """
    if by not in BY:
        raise InvalidRequest(f"by must be {' or '.join(BY)}, not {shown(by)!r}.")
    if account is not None:
        parse_account(account)
    require_limit(limit)
    ends = day_of(now_us) if last is None else parse_day(names[1], last)
    begins = Every.MONTH.beginning(ends) if first is None else parse_day(names[0], first)
    if begins > ends:
        raise InvalidRequest(f"{names[0]} ({begins}) is after {names[1]} ({ends}).")
    if (ends - begins).days >= MAX_DAYS:
        raise InvalidRequest(
            f"{begins} to {ends} is {(ends - begins).days + 1} days; ask for at most {MAX_DAYS}."
        )
    with database.read() as connection:
        found = usage_sql.used(
            connection,
            str(by),
            start_us(begins),
            start_us(Every.DAY.following(ends)),
            only=account,
            after=after,
            limit=limit + 1,
        )
    page = page_of(found, limit, lambda row: row.name)
    return Report(str(by), begins, ends, account, tuple(page.items), page.next)
