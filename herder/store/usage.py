"""SQL about usage: what the orders of accounts came to that ended between two moments."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, bindparam, case, func, literal_column, select

from herder.db.tables import account, orders
from herder.domain.order import State

AMOUNTS = ("charged", "returned", "refunded")
_HALF = 2**32


@dataclass(frozen=True, slots=True)
class Used:
    """The usage of an account or of a model; amounts in winston.

    Attributes:
        name: the account's or the model's.
        completed, failed, cancelled, expired: how many orders ended so.
        prompt_tokens: tokens that were read.
        generated: tokens that were sampled.
        charged: of their fees, what was kept.
        returned: of their fees, what went back at their end.
        refunded: of what was charged, what an operator has given back since.
    """

    name: str
    completed: int
    failed: int
    cancelled: int
    expired: int
    prompt_tokens: int
    generated: int
    charged: int
    returned: int
    refunded: int


def _count(state: State) -> ColumnElement[int]:
    return func.count(case((orders.c.state == literal_column(f"'{state}'"), 1)))


def _halves(name: str) -> tuple[ColumnElement[int], ColumnElement[int]]:
    """Return the sums of the upper and the lower half of amounts.

    SQLite adds no further than 2**63, and an account may have all it has returned again and again.
    """
    column = orders.c[name]
    upper: ColumnElement[int] = literal_column(str(_HALF.bit_length() - 1))
    lower: ColumnElement[int] = literal_column(str(_HALF - 1))
    return func.sum(column.op(">>")(upper)), func.sum(column.op("&")(lower))


_SUMS = (
    *(_count(state) for state in (State.COMPLETED, State.FAILED, State.CANCELLED, State.EXPIRED)),
    func.sum(orders.c.prompt_tokens),
    func.sum(orders.c.generated),
    *(half for name in AMOUNTS for half in _halves(name)),
)
_BY = {"account": account.c.name, "model": orders.c.model}
_ENDED = (
    orders.c.ended_us >= bindparam("from_us"),
    orders.c.ended_us < bindparam("until_us"),
)


def used(
    connection: Connection,
    by: str,
    from_us: int,
    until_us: int,
    *,
    only: str | None,
    after: str,
    limit: int,
) -> list[Used]:
    """Sum up orders that ended in a time, by account or model, sorted by name.

    Args:
        connection: a transaction.
        by: `account` or `model`.
        from_us: the time's beginning, in microseconds since the epoch.
        until_us: its end, which does not belong to it.
        only: this account's; None: everybody's.
        after: begin after this name.
        limit: how many names at most.
    """
    name = _BY[by]
    # Each account's orders are found by their end (`ix_orders_ended`): neither a page of accounts
    # nor one account's models reads what others ordered. That a name is above nothing holds for
    # all: it says by which index accounts are walked.
    whose = account.c.name > "" if only is None else account.c.name == bindparam("only")
    query = (
        select(name, *_SUMS)
        .select_from(account.join(orders, orders.c.account == account.c.name))
        .where(whose, name > bindparam("after"), *_ENDED)
        .group_by(name)
        .order_by(name)
        .limit(bindparam("limit"))
    )
    given = {"from_us": from_us, "until_us": until_us, "after": after, "limit": limit}
    rows = connection.execute(query, given if only is None else given | {"only": only})
    return [_to_used(list(row)) for row in rows]


def _to_used(cells: list[object]) -> Used:
    # Whole numbers all of them; PostgreSQL's sums come as decimals.
    first, *rest = cells
    numbers = [int(str(cell)) for cell in rest]
    counts, halves = numbers[:6], numbers[6:]
    amounts = [
        upper * _HALF + lower for upper, lower in zip(halves[::2], halves[1::2], strict=True)
    ]
    return Used(str(first), *counts, *amounts)
